//! The service with the real bridge driver, on a host of its own.

mod rig;

use std::net::IpAddr;

use gantry_network::*;
use gantry_sys::netlink::RouteSocket;
use gantry_sys::netns;
use rig::*;

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

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

/// Whether frames between members of a bridge pass the IP firewall changes which way a container's own packets take.
fn filter_bridged_frames(yes: bool) {
    let sysctl = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    // A kernel without the file never filters them.
    if std::path::Path::new(sysctl).exists() {
        std::fs::write(sysctl, if yes { "1" } else { "0" }).unwrap();
    }
}

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
fn a_running_container_changes_networks() {
    Rig::run(None, |rig| {
        rig.network("apple", |_| {}).unwrap();
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
fn a_new_daemon_takes_over_without_a_gap() {
    Rig::run(None, |rig| {
        let one = rig.network("one", |_| {}).unwrap();
        let (a, at_a) = rig.container("a", "one");
        let (dead, _) = rig.container("dead", "one");
        serve(&a.netns, 80);
        rig.publish(&a, 8080, 80).unwrap();
        rig.publish(&dead, 8081, 80).unwrap();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let world = rig.world.try_clone().unwrap();
        let asking = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let mut count = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    ask_from(&world, &format!("{HOST}:8080")).unwrap();
                    count += 1;
                }
                count
            }
        });
        drop(dead.netns);
        rig.restart(&[&a]);
        rig.restart(&[&a]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(asking.join().unwrap() > 0);
        assert_eq!(rig.service.get("one").unwrap(), one);
        assert_eq!(rig.service.endpoints(&a.id), vec![at_a.clone()]);
        let error = rig.block(rig.service.remove("one")).unwrap_err();
        assert_eq!(
            error.message,
            format!(
                "error while removing network: network one id {} has active endpoints",
                one.id
            )
        );
        let (b, at_b) = rig.container("b", "one");
        assert_ne!(at_b.ipv4, at_a.ipv4);
        assert!(rig.publish(&b, 8080, 80).is_err(), "the lease is known");
        rig.publish(&b, 8081, 80).unwrap();
        rig.end(a);
        rig.end(b);
        rig.block(rig.service.remove("one")).unwrap();
    });
}

#[test]
fn wrong_wishes_are_refused_in_dockers_words() {
    Rig::run(None, |rig| {
        let record = rig.network("one", |_| {}).unwrap();
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
        let outside = EndpointConfig {
            ipv4: ip("10.0.0.9"),
            ..EndpointConfig::default()
        };
        assert_eq!(
            rig.connect(&b, "one", outside).unwrap_err().kind,
            ErrorKind::Invalid
        );
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

/// Tries until it works: what another program did is put right by a thread of the service's.
fn at_last<T>(what: impl Fn() -> std::io::Result<T>) -> T {
    (0..20).find_map(|_| what().ok()).expect("it never works")
}

#[test]
fn a_foreign_policy_of_drop_is_passed() {
    use gantry_sys::nft::{BaseChain, Batch, Family, Hook, NftSocket};
    Rig::run(None, |rig| {
        let (a, _) = rig.container("a", "bridge");
        let mut socket = NftSocket::open().unwrap();
        let mut foreign = Batch::new(Family::Ipv4, "filter");
        foreign.add_table();
        let chain = BaseChain {
            name: "FORWARD",
            kind: "filter",
            hook: Hook::Forward,
            priority: 0,
            drop: true,
        };
        foreign.add_chain(&chain);
        socket.commit(foreign).unwrap();
        serve(&rig.world, 81);
        at_last(|| ask_from(&a.netns, &format!("{WORLD}:81")));
        serve(&a.netns, 80);
        rig.publish(&a, 8080, 80).unwrap();
        ask_from(&rig.world, &format!("{HOST}:8080")).unwrap();
        rig.end(a);
        rig.block(rig.service.shutdown(true));
        assert!(
            socket
                .rules(Family::Ipv4, "filter", "FORWARD")
                .unwrap()
                .is_empty()
        );
    });
}

#[test]
fn a_flushed_rule_set_is_made_again() {
    use gantry_sys::nft::{Batch, Family, NftSocket};
    Rig::run(None, |rig| {
        let (a, _) = rig.container("a", "bridge");
        serve(&a.netns, 80);
        rig.publish(&a, 8080, 80).unwrap();
        let mut flush = Batch::new(Family::Inet, &format!("gantry-{TAG}"));
        flush.remove_table();
        NftSocket::open().unwrap().commit(flush.clone()).unwrap();
        at_last(|| ask_from(&rig.world, &format!("{HOST}:8080")));
        // Even when a port is published before it was noticed.
        NftSocket::open().unwrap().commit(flush).unwrap();
        rig.publish(&a, 8081, 80).unwrap();
        ask_from(&rig.world, &format!("{HOST}:8081")).unwrap();
        rig.end(a);
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
fn a_udp_client_that_keeps_its_port_follows_the_published_port() {
    use std::net::UdpSocket;
    use std::time::Duration;
    Rig::run(None, |rig| {
        let client = netns::inside(&rig.world, || UdpSocket::bind("0.0.0.0:5000")).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(5)))
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
                .set_read_timeout(Some(Duration::from_secs(5)))
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
fn many_starts_at_once_get_what_is_theirs() {
    Rig::run(None, |rig| {
        rig.network("one", |_| {}).unwrap();
        let starts = (0..24).map(|n| {
            let (service, spec) = (rig.service.clone(), rig.spec(&format!("c{n}")));
            rig.spawn(async move {
                let id = spec.container.clone();
                let sandbox = service.sandbox(spec).await.unwrap();
                let mut addresses = Vec::new();
                for network in ["bridge", "one"] {
                    let endpoint = service
                        .connect(&id, network, EndpointConfig::default())
                        .await
                        .unwrap();
                    addresses.extend(endpoint.ipv4);
                }
                let ports = service.publish(&id, vec![request(0, 80)]).await.unwrap();
                (id, sandbox, addresses, ports[0].host_port)
            })
        });
        let starts: Vec<_> = starts.collect();
        let started: Vec<_> = starts
            .into_iter()
            .map(|task| rig.block(task).unwrap())
            .collect();
        let addresses: std::collections::HashSet<_> = started.iter().flat_map(|s| &s.2).collect();
        let ports: std::collections::HashSet<_> = started.iter().map(|s| s.3).collect();
        assert_eq!((addresses.len(), ports.len()), (48, 24));
        let ends = started.into_iter().map(|(id, sandbox, ..)| {
            let service = rig.service.clone();
            drop(sandbox);
            rig.spawn(async move { service.release(&id).await.unwrap() })
        });
        let ends: Vec<_> = ends.collect();
        ends.into_iter().for_each(|task| rig.block(task).unwrap());
        rig.block(rig.service.remove("one")).unwrap();
    });
}

#[test]
fn engines_that_start_together_choose_different_subnets() {
    Rig::run(None, |rig| {
        let here = netns::current().unwrap();
        let open = |tag: &'static str| {
            let (dir, here) = (rig.dir.path().join(tag), here.try_clone().unwrap());
            std::thread::spawn(move || netns::inside(&here, || Ok(another(&dir, tag))).unwrap())
        };
        let others: Vec<_> = ["aaaaaaaa", "bbbbbbbb", "cccccccc"].map(open).into();
        let others: Vec<Other> = others.into_iter().map(|o| o.join().unwrap()).collect();
        let subnet = |s: &NetworkService| s.get("bridge").unwrap().ipam.pools[0].subnet.unwrap();
        let mut subnets: Vec<_> = others.iter().map(|o| subnet(&o.service)).collect();
        subnets.push(subnet(&rig.service));
        subnets.sort();
        subnets.dedup();
        assert_eq!(subnets.len(), 4);
        others.into_iter().for_each(Other::end);
    });
}
