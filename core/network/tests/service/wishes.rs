//! What is asked of the service, and refused.

use gantry_network::*;
use gantry_sys::netlink::RouteSocket;
use gantry_sys::netns;

use super::ip;
use super::rig::*;

#[test]
fn wrong_wishes_are_refused_in_dockers_words() {
    Rig::run(None, |rig| {
        let record = rig
            .network("one", |n| {
                n.ipam.pools = vec![IpamPool {
                    subnet: Some("172.30.0.0/16".parse().unwrap()),
                    ..IpamPool::default()
                }];
            })
            .unwrap();
        let message = |result: Result<NetworkRecord>| result.unwrap_err().message;
        assert_eq!(
            message(rig.network("one", |_| {})),
            "network with name one already exists"
        );
        assert_eq!(
            message(rig.network("two", |n| n.ipam = record.ipam.clone())),
            "invalid pool request: Pool overlaps with other one on this address space"
        );
        assert_eq!(
            message(rig.service.get("nothing")),
            "network nothing not found"
        );
        assert_eq!(rig.service.get(&record.id.as_str()[..8]).unwrap(), record);
        let error = rig.block(rig.service.remove("bridge")).unwrap_err();
        assert_eq!(
            error.message,
            "bridge is a pre-defined network and cannot be removed"
        );
        let (a, at_a) = rig.container("a", "one");
        let (b, _) = rig.container("b", "bridge");
        let taken = EndpointConfig {
            ipv4: at_a.ipv4,
            ..EndpointConfig::default()
        };
        assert_eq!(
            rig.connect(&b, "one", taken).unwrap_err().message,
            "Address already in use"
        );
        let broadcast = EndpointConfig {
            ipv4: ip("172.30.255.255"),
            ..EndpointConfig::default()
        };
        let error = rig.connect(&b, "one", broadcast).unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (ErrorKind::Forbidden, "Address already in use")
        );
        let broken = rig.network("broken", |n| {
            n.ipam.pools = vec![IpamPool {
                subnet: Some("172.29.0.0/16".parse().unwrap()),
                aux_addresses: [("router".to_owned(), ip("172.29.0.1").unwrap())].into(),
                ..IpamPool::default()
            }];
        });
        assert_eq!(
            message(broken),
            "failed to allocate secondary ip address (router:172.29.0.1): Address already in use"
        );
        let outside = EndpointConfig {
            ipv4: ip("10.0.0.9"),
            ..EndpointConfig::default()
        };
        let refused = |network: &str, config: EndpointConfig| {
            let error = rig.connect(&b, network, config).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid);
            error.message
        };
        assert_eq!(
            refused("one", outside.clone()),
            "invalid endpoint settings:\nno configured subnet or ip-range contain the IP address 10.0.0.9"
        );
        rig.network("auto", |_| {}).unwrap();
        assert_eq!(
            refused("auto", outside),
            "invalid endpoint settings:\nuser specified IP address is supported only when connecting to networks with user configured subnets"
        );
        let wrong = EndpointConfig {
            aliases: vec!["x".into()],
            ipv6: ip("10.0.0.9"),
            options: [(
                "com.docker.network.endpoint.sysctls".to_owned(),
                "net.ipv4.conf.eth0.forwarding=1".to_owned(),
            )]
            .into(),
            ..EndpointConfig::default()
        };
        let all = refused("auto", wrong);
        assert!(
            all.starts_with("invalid endpoint settings:\n* invalid IPv6 address: 10.0.0.9\n* "),
            "{all}"
        );
        assert!(
            all.contains(
                "* unrecognised network interface sysctl 'net.ipv4.conf.eth0.forwarding=1'"
            ),
            "{all}"
        );
        let wrong = EndpointConfig {
            mac: Some("02:42".into()),
            ..EndpointConfig::default()
        };
        assert_eq!(refused("one", wrong), "invalid MAC address 02:42");
        let auto = rig.block(rig.service.remove("auto")).unwrap();
        assert_eq!(auto.name, "auto");
        let error = rig
            .connect(&b, "none", EndpointConfig::default())
            .unwrap_err();
        assert!(
            error
                .message
                .contains("driver network/none is not available"),
            "{error}"
        );
        let listener = std::net::TcpListener::bind("0.0.0.0:9000").unwrap();
        let error = rig.publish(&b, 9000, 80).unwrap_err();
        assert!(error.message.ends_with("failed to bind host port for 0.0.0.0:9000:172.17.0.2:80/tcp: address already in use"), "{error}");
        drop(listener);
        rig.publish(&b, 9000, 80).unwrap();
        rig.end(a);
        rig.end(b);
        let pruned = rig.block(rig.service.prune(|_| true)).unwrap();
        assert_eq!(pruned, vec![record]);
    });
}

#[test]
fn flags_shape_the_default_network() {
    Rig::run(None, |rig| {
        let dir = rig.dir.path().join("flags");
        let mut config = config(&dir, "aaaaaaaa");
        config.bridge.bip = Some("10.5.0.1/24".parse().unwrap());
        config.bridge.fixed_cidr = Some("10.5.0.64/26".parse().unwrap());
        config.bridge.default_gateway = Some("10.5.0.254".parse().unwrap());
        config.bridge.host_ip = ip("127.0.0.1");
        config.bridge.ipv6 = true;
        config.bridge.fixed_cidr_v6 = Some("fd00:5::/64".parse().unwrap());
        config.mtu = 1400;
        let engine = another_with(config.clone(), registry(&dir, "aaaaaaaa"));
        let spec = rig.spec("a");
        let id = spec.container.clone();
        let sandbox = engine.block(engine.service.sandbox(spec)).unwrap();
        let connected = engine
            .service
            .connect(&id, "bridge", EndpointConfig::default());
        let endpoint = engine.block(connected).unwrap();
        assert_eq!(
            (endpoint.ipv4, endpoint.gateway),
            (ip("10.5.0.64"), ip("10.5.0.254"))
        );
        assert_eq!(
            (endpoint.ipv6, endpoint.gateway_v6),
            (ip("fd00:5::2"), ip("fd00:5::1"))
        );
        let netns = sandbox.netns.as_ref().unwrap();
        let mut socket = netns::inside(netns, RouteSocket::open).unwrap();
        assert_eq!(socket.link("eth0").unwrap().unwrap().mtu, 1400);
        let ports = engine
            .block(engine.service.publish(&id, vec![request(8080, 80)]))
            .unwrap();
        let hosts: Vec<_> = ports.iter().map(|p| Some(p.host_ip)).collect();
        assert_eq!(hosts, [ip("127.0.0.1")]);
        engine.block(engine.service.release(&id)).unwrap();
        drop(sandbox);
        engine.end();
        // What was chosen stays when the flag goes, for containers that have been told.
        let mut without = config.clone();
        without.bridge = BridgeDefaults::default();
        let engine = another_with(without, registry(&dir, "aaaaaaaa"));
        let subnet = engine.service.get("bridge").unwrap().ipam.pools[0].subnet;
        assert_eq!(subnet.unwrap().to_string(), "10.5.0.0/24");
        engine.end();
        config.bridge.link = Some("none".into());
        let engine = another_with(config, registry(&dir, "aaaaaaaa"));
        assert_eq!(
            engine.service.get("bridge").unwrap_err().kind,
            ErrorKind::NotFound
        );
        engine.end();
    });
}

#[test]
fn without_its_driver_a_network_is_listed_and_refused() {
    Rig::run(None, |rig| {
        const REASON: &str = "driver network/bridge is not available";
        let dir = rig.dir.path().join("bare");
        let engine = another_with(config(&dir, "aaaaaaaa"), std::sync::Arc::default());
        assert_eq!(engine.service.list().len(), 3);
        assert!(engine.service.warnings().iter().any(|w| w.contains(REASON)));
        let spec = rig.spec("a");
        let id = spec.container.clone();
        let _sandbox = engine.block(engine.service.sandbox(spec)).unwrap();
        let connected = engine
            .service
            .connect(&id, "bridge", EndpointConfig::default());
        let error = engine.block(connected).unwrap_err();
        assert!(error.message.contains(REASON), "{error}");
        engine.block(engine.service.release(&id)).unwrap();
        engine.end();
    });
}

#[test]
fn a_link_is_what_the_user_wishes() {
    Rig::run(None, |rig| {
        rig.network("lan", |n| {
            n.enable_ipv6 = true;
            n.ipam.pools = ["10.9.0.0/24", "fd09::/64"]
                .map(|subnet| IpamPool {
                    subnet: Some(subnet.parse().unwrap()),
                    ..IpamPool::default()
                })
                .into();
        })
        .unwrap();
        rig.network("other", |_| {}).unwrap();
        let a = rig.start(rig.spec("a"));
        let option = |name: &str, value: &str| {
            (
                format!("com.docker.network.endpoint.{name}"),
                value.to_owned(),
            )
        };
        let config = EndpointConfig {
            ipv4: ip("10.9.0.77"),
            ipv6: ip("fd09::77"),
            link_local: vec!["169.254.7.7".parse().unwrap(), "fe80::7:7".parse().unwrap()],
            mac: Some("02:00:00:00:00:77".into()),
            options: [
                option("ifname", "eth1"),
                option(
                    "sysctls",
                    "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=0",
                ),
            ]
            .into(),
            gw_priority: 1,
            ..EndpointConfig::default()
        };
        let lan = rig.connect(&a, "lan", config).unwrap();
        let other = rig.connect(&a, "other", EndpointConfig::default()).unwrap();
        assert_eq!((lan.link.as_str(), other.link.as_str()), ("eth1", "eth2"));
        let (addresses, routes, settings) = netns::inside(&a.netns, || {
            let mut socket = RouteSocket::open()?;
            let link = socket.link("eth1")?.unwrap().index;
            let read = |path: &str| std::fs::read_to_string(format!("/proc/sys/net/{path}"));
            let settings = [
                read("ipv4/conf/eth1/log_martians")?,
                read("ipv6/conf/eth1/accept_ra")?,
            ];
            let addresses = socket.addresses()?;
            let of_link = addresses.into_iter().filter(|(index, _)| *index == link);
            let of_link: Vec<String> = of_link.map(|(_, net)| net.to_string()).collect();
            let routes = std::fs::read_to_string("/proc/thread-self/net/route")?;
            Ok((of_link, routes, settings))
        })
        .unwrap();
        for wanted in [
            "10.9.0.77/24",
            "fd09::77/64",
            "169.254.7.7/16",
            "fe80::7:7/64",
        ] {
            assert!(
                addresses.iter().any(|a| a == wanted),
                "{wanted}: {addresses:?}"
            );
        }
        assert_eq!(settings, ["1\n", "0\n"]);
        assert!(
            routes.lines().any(|l| l.starts_with("eth1\t00000000\t")),
            "{routes}"
        );
        rig.end(a);
    });
}

#[test]
fn links_follow_a_container_to_its_next_address() {
    Rig::run(None, |rig| {
        let (db, at_db) = rig.container("db", "bridge");
        let mut spec = rig.spec("web");
        spec.links = vec![Link {
            container: db.id.clone(),
            name: "db".into(),
            alias: "store".into(),
        }];
        let web = rig.start(spec);
        rig.connect(&web, "bridge", EndpointConfig::default())
            .unwrap();
        let hosts = || std::fs::read_to_string(&web.files.hosts).unwrap();
        let line =
            |at: &EndpointInfo| format!("{}\tstore {} db\n", at.ipv4.unwrap(), db.id.short());
        assert!(hosts().contains(&line(&at_db)), "{}", hosts());
        rig.block(rig.service.release(&db.id)).unwrap();
        let (between, _) = rig.container("between", "bridge");
        let mut spec = rig.spec("db");
        spec.container = db.id.clone();
        let again = rig.start(spec);
        let now = rig
            .connect(&again, "bridge", EndpointConfig::default())
            .unwrap();
        assert_ne!(now.ipv4, at_db.ipv4);
        assert!(hosts().contains(&line(&now)), "{}", hosts());
        assert!(!hosts().contains(&line(&at_db)), "{}", hosts());
        for container in [web, again, between] {
            rig.end(container);
        }
    });
}

#[test]
fn loopback_is_routed_behind_the_guard_alone() {
    Rig::run(None, |rig| {
        let routed = |service: &NetworkService| {
            let record = service.get("bridge").unwrap();
            let link = &record.options["com.docker.network.bridge.name"];
            let path = format!("/proc/sys/net/ipv4/conf/{link}/route_localnet");
            std::fs::read_to_string(path).unwrap().trim() == "1"
        };
        assert!(routed(&rig.service));
        let dir = rig.dir.path().join("bare");
        let mut config = config(&dir, "aaaaaaaa");
        config.firewall = false;
        let engine = another_with(config, registry(&dir, "aaaaaaaa"));
        assert!(!routed(&engine.service));
        engine.end();
    });
}
