//! What is asked of the service, and refused.

use gantry_network::*;
use gantry_sys::netlink::RouteSocket;
use gantry_sys::netns;

use super::ip;
use super::rig::*;

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
