//! Published ports.

use gantry_network::*;
use gantry_sys::netns;

use super::filter_bridged_frames;
use super::rig::*;

#[test]
fn a_published_port_is_reached_from_everywhere() {
    published(true);
}

#[test]
fn a_published_port_is_reached_from_everywhere_without_bridge_netfilter() {
    published(false);
}

fn published(bridged: bool) {
    Rig::run(None, |rig| {
        filter_bridged_frames(bridged);
        rig.network("other", |_| {}).unwrap();
        let (a, _) = rig.container("a", "bridge");
        let (b, _) = rig.container("b", "bridge");
        let (c, _) = rig.container("c", "other");
        serve(&a.netns, 80);
        let bindings = rig.publish(&a, 8080, 80).unwrap();
        assert_eq!(bindings, rig.service.ports(&a.id));
        assert_eq!(bindings[0].host_ip.to_string(), "0.0.0.0");
        let host = format!("{HOST}:8080");
        assert_eq!(
            ask_from(&rig.world, &host).unwrap(),
            WORLD,
            "clients are seen as they are"
        );
        for from_host in ["127.0.0.1:8080", "172.17.0.1:8080", host.as_str()] {
            ask(from_host).unwrap_or_else(|e| panic!("{from_host}: {e}"));
        }
        for (who, container) in [
            ("itself", &a),
            ("its neighbour", &b),
            ("another network", &c),
        ] {
            ask_from(&container.netns, &host).unwrap_or_else(|e| panic!("{who}: {e}"));
            ask_from(&container.netns, "172.17.0.1:8080").unwrap_or_else(|e| panic!("{who}: {e}"));
        }
        let error = rig.publish(&b, 8080, 80).unwrap_err();
        assert!(
            error
                .message
                .ends_with("Bind for 0.0.0.0:8080 failed: port is already allocated"),
            "{error}"
        );
        rig.publish(&a, 8081, 80).unwrap();
        assert!(ask(&host).is_err() && ask(&format!("{HOST}:8081")).is_ok());
        for container in [a, b, c] {
            rig.end(container);
        }
        assert!(ask(&format!("{HOST}:8081")).is_err());
    });
}

#[test]
fn a_udp_client_that_keeps_its_port_follows_the_published_port() {
    use std::net::UdpSocket;
    use std::time::Duration;
    Rig::run(None, |rig| {
        let client = netns::inside(&rig.world, || UdpSocket::bind("0.0.0.0:5000")).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let wish = PortRequest {
            protocol: Protocol::Udp,
            ..request(9000, 9000)
        };
        // Before anything is published, then to one container after the other: the client's flow stays the same.
        client.send_to(b"x", format!("{HOST}:9000")).unwrap();
        for name in ["a", "b"] {
            let (container, _) = rig.container(name, "bridge");
            let server =
                netns::inside(&container.netns, || UdpSocket::bind("0.0.0.0:9000")).unwrap();
            server
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            rig.block(rig.service.publish(&container.id, vec![wish.clone()]))
                .unwrap();
            client
                .send_to(name.as_bytes(), format!("{HOST}:9000"))
                .unwrap();
            let mut buffer = [0; 8];
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], name.as_bytes());
            server.send_to(b"y", from).unwrap();
            assert_eq!(
                client.recv_from(&mut buffer).unwrap().1.to_string(),
                format!("{HOST}:9000")
            );
            drop(server);
            rig.end(container);
        }
    });
}

#[test]
fn ports_of_a_running_container_change_one_by_one() {
    Rig::run(None, |rig| {
        let (a, _) = rig.container("a", "bridge");
        let (b, _) = rig.container("b", "bridge");
        serve(&a.netns, 80);
        serve(&a.netns, 81);
        rig.publish(&a, 8080, 80).unwrap();
        rig.publish(&b, 8083, 80).unwrap();
        let change = |add: &[(u16, u16)], remove: &[(Protocol, u16)]| {
            let add = add.iter().map(|(host, inside)| PortRequest {
                container_port: *inside,
                ..request(*host, *host)
            });
            let add: Vec<_> = add.collect();
            rig.block(rig.service.change_ports(&a.id, add, remove.to_vec()))
        };
        let at = |port: u16| ask(&format!("{HOST}:{port}")).is_ok();
        let bindings = change(&[(8081, 81)], &[]).unwrap();
        assert_eq!(bindings.len(), 2);
        assert!(at(8080) && at(8081));
        // Taken: nothing is changed, the withdrawn one is back.
        let error = change(&[(8082, 81), (8083, 81)], &[(Protocol::Tcp, 80)]).unwrap_err();
        assert!(
            error
                .message
                .ends_with("Bind for 0.0.0.0:8083 failed: port is already allocated"),
            "{error}"
        );
        assert!(at(8080) && at(8081) && !at(8082));
        assert_eq!(rig.service.ports(&a.id), bindings);
        // The host port goes to another port inside.
        let bindings = change(&[(8080, 81)], &[(Protocol::Tcp, 80), (Protocol::Tcp, 81)]).unwrap();
        assert_eq!(bindings.len(), 1);
        assert!(at(8080) && !at(8081));
        rig.publish(&b, 8081, 80).unwrap();
        for container in [a, b] {
            rig.end(container);
        }
    });
}

#[test]
fn an_attachment_whose_ports_are_taken_leaves_nothing() {
    Rig::run(None, |rig| {
        rig.network("inside", |n| n.internal = true).unwrap();
        let (a, _) = rig.container("a", "inside");
        assert_eq!(rig.publish(&a, 8080, 80).unwrap(), []);
        let (b, _) = rig.container("b", "bridge");
        rig.publish(&b, 8080, 80).unwrap();
        let connect = || rig.connect(&a, "bridge", EndpointConfig::default());
        let error = connect().unwrap_err();
        assert!(
            error.message.contains("port is already allocated"),
            "{error}"
        );
        let left: Vec<_> = rig.service.endpoints(&a.id);
        assert_eq!(left.len(), 1);
        let bridge = rig.service.get("bridge").unwrap();
        assert_eq!(rig.service.members(&bridge.id).len(), 1);
        let mut inside = netns::inside(&a.netns, gantry_sys::netlink::RouteSocket::open).unwrap();
        assert!(inside.link("eth1").unwrap().is_none());
        rig.end(b);
        connect().unwrap();
        assert!(!rig.service.ports(&a.id).is_empty());
        rig.end(a);
        rig.block(rig.service.remove("inside")).unwrap();
    });
}

/// A neighbour that sends to 127.0.0.1 over its link, which the host would not take from it if it were not translated first.
#[test]
fn loopback_ports_are_not_reached_from_other_hosts() {
    Rig::run(None, |rig| {
        let (a, _) = rig.container("a", "bridge");
        serve(&a.netns, 80);
        rig.publish(&a, 8080, 80).unwrap();
        ask("127.0.0.1:8080").unwrap();
        let way = format!(
            "for f in /proc/sys/net/ipv4/conf/*/route_localnet; do echo 1 >$f; done
             ip addr flush dev lo; ip route add 127.0.0.1/32 via {HOST}"
        );
        let made = netns::inside(&rig.world, || {
            std::process::Command::new("sh").args(["-c", &way]).status()
        });
        assert!(made.unwrap().success());
        assert!(ask_from(&rig.world, "127.0.0.1:8080").is_err());
        ask_from(&rig.world, &format!("{HOST}:8080")).unwrap();
        ask("127.0.0.1:8080").unwrap();
        rig.end(a);
    });
}
