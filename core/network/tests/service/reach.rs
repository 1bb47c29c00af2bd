//! Who reaches whom.

use gantry_network::*;
use gantry_sys::netlink::RouteSocket;
use gantry_sys::netns;

use super::ip;
use super::rig::*;

#[test]
fn two_containers_reach_each_other_and_the_world() {
    Rig::run(None, |rig| {
        let (a, at_a) = rig.container("a", "bridge");
        let (b, at_b) = rig.container("b", "bridge");
        assert_eq!((at_a.ipv4, at_b.ipv4), (ip("172.17.0.2"), ip("172.17.0.3")));
        assert_eq!(
            (at_a.mac.as_str(), at_a.ipv4_prefix),
            ("02:42:ac:11:00:02", 16)
        );
        assert_eq!(at_a.gateway, ip("172.17.0.1"));
        serve(&b.netns, 80);
        assert_eq!(ask_from(&a.netns, "172.17.0.3:80").unwrap(), "172.17.0.2");
        assert_eq!(ask("172.17.0.3:80").unwrap(), "172.17.0.1");
        serve(&rig.world, 81);
        assert_eq!(
            ask_from(&a.netns, &format!("{WORLD}:81")).unwrap(),
            HOST,
            "it is masqueraded"
        );
        assert!(
            ask_from(&rig.world, "172.17.0.3:80").is_err(),
            "what is not published is not reached"
        );
        let hosts = std::fs::read_to_string(&a.files.hosts).unwrap();
        assert!(
            hosts.ends_with(&format!("172.17.0.2\t{}\n", a.id.short())),
            "{hosts}"
        );
        let bridge = rig.service.get("bridge").unwrap();
        let members: Vec<_> = rig
            .service
            .members(&bridge.id)
            .into_iter()
            .map(|m| m.name)
            .collect();
        assert_eq!(members, ["a", "b"]);
        rig.end(a);
        rig.end(b);
        assert!(rig.service.members(&bridge.id).is_empty());
    });
}

#[test]
fn networks_are_kept_apart_and_internal_ones_kept_in() {
    Rig::run(None, |rig| {
        let one = rig.network("one", |_| {}).unwrap();
        assert_eq!(
            one.ipam.pools[0].subnet.unwrap().to_string(),
            "172.18.0.0/16"
        );
        rig.network("inside", |n| n.internal = true).unwrap();
        rig.network("mute", |n| {
            n.options.insert(
                "com.docker.network.bridge.enable_icc".into(),
                "false".into(),
            );
        })
        .unwrap();
        let (a, _) = rig.container("a", "one");
        let (b, at_b) = rig.container("b", "bridge");
        let (c, at_c) = rig.container("c", "inside");
        let (d, at_d) = rig.container("d", "inside");
        let (e, _) = rig.container("e", "mute");
        let (f, at_f) = rig.container("f", "mute");
        for container in [&b, &d, &f] {
            serve(&container.netns, 80);
        }
        serve(&rig.world, 81);
        let address = |e: &EndpointInfo| format!("{}:80", e.ipv4.unwrap());
        assert!(
            ask_from(&a.netns, &address(&at_b)).is_err(),
            "other networks are out of reach"
        );
        ask_from(&c.netns, &address(&at_d)).unwrap();
        assert!(at_c.gateway.is_none());
        assert!(ask_from(&c.netns, &format!("{WORLD}:81")).is_err());
        assert!(
            ask_from(&e.netns, &address(&at_f)).is_err(),
            "members are kept apart"
        );
        ask_from(&e.netns, &format!("{WORLD}:81")).unwrap();
        for container in [a, b, c, d, e, f] {
            rig.end(container);
        }
        for network in ["one", "inside", "mute"] {
            rig.block(rig.service.remove(network)).unwrap();
        }
    });
}

#[test]
fn ipv6_works_beside_ipv4() {
    Rig::run(None, |rig| {
        rig.network("six", |n| n.enable_ipv6 = true).unwrap();
        let (a, at_a) = rig.container("a", "six");
        let (b, _) = rig.container("b", "six");
        let listener = netns::inside(&a.netns, || std::net::TcpListener::bind("[::]:80")).unwrap();
        serve_on(listener);
        ask_from(&b.netns, &format!("[{}]:80", at_a.ipv6.unwrap())).unwrap();
        let bindings = rig.publish(&a, 8080, 80).unwrap();
        assert_eq!(bindings.len(), 2);
        ask(&format!("[{}]:8080", at_a.gateway_v6.unwrap())).unwrap();
        assert!(ask("[::1]:8080").is_err());
        rig.end(a);
        rig.end(b);
    });
}

#[test]
fn a_running_container_changes_networks() {
    Rig::run(None, |rig| {
        rig.network("apple", |n| {
            n.ipam.pools = vec![IpamPool {
                subnet: Some("172.18.0.0/16".parse().unwrap()),
                ..IpamPool::default()
            }];
        })
        .unwrap();
        let (a, _) = rig.container("a", "bridge");
        serve(&a.netns, 80);
        rig.publish(&a, 8080, 80).unwrap();
        let routes = || {
            let routes = netns::inside(&a.netns, || RouteSocket::open()?.routes()).unwrap();
            routes
                .into_iter()
                .find(|r| r.to.prefix_len() == 0)
                .and_then(|r| r.via)
        };
        assert_eq!(routes(), ip("172.17.0.1"));
        let config = EndpointConfig {
            ipv4: ip("172.18.0.77"),
            mac: Some("02:00:00:00:00:07".into()),
            ..EndpointConfig::default()
        };
        let joined = rig.connect(&a, "apple", config.clone()).unwrap();
        assert_eq!(
            (joined.link.as_str(), joined.mac.as_str()),
            ("eth1", "02:00:00:00:00:07")
        );
        assert_eq!(
            routes(),
            ip("172.18.0.1"),
            "the first name has the default route"
        );
        ask(&format!("{HOST}:8080")).unwrap();
        let error = rig.connect(&a, "apple", config).unwrap_err();
        assert_eq!(
            error.message,
            "endpoint with name a already exists in network apple"
        );
        rig.block(rig.service.disconnect(&a.id, "apple")).unwrap();
        assert_eq!(routes(), ip("172.17.0.1"));
        ask(&format!("{HOST}:8080")).unwrap();
        rig.block(rig.service.disconnect(&a.id, "bridge")).unwrap();
        assert_eq!(routes(), None);
        assert!(ask(&format!("{HOST}:8080")).is_err());
        assert!(rig.service.endpoints(&a.id).is_empty());
        let error = rig
            .block(rig.service.disconnect(&a.id, "bridge"))
            .unwrap_err();
        assert!(
            error
                .message
                .ends_with("is not connected to network bridge"),
            "{error}"
        );
        rig.end(a);
    });
}

#[test]
fn a_shared_namespace_is_given_up_with_its_owner() {
    Rig::run(None, |rig| {
        let (a, _) = rig.container("a", "bridge");
        let mut spec = rig.spec("b");
        spec.mode = SandboxMode::Container(a.id.clone());
        let b = rig.start(spec);
        assert_eq!(b.files, a.files);
        serve(&a.netns, 80);
        ask_from(&b.netns, "127.0.0.1:80").unwrap();
        let error = rig
            .connect(&b, "bridge", EndpointConfig::default())
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict);
        rig.restart(&[&b, &a]);
        // The namespace lives on in the second container; the address does not.
        rig.end(a);
        let mut socket = netns::inside(&b.netns, RouteSocket::open).unwrap();
        assert!(socket.link("eth0").unwrap().is_none());
        rig.end(b);
    });
}
