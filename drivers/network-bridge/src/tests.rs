//! The driver in network namespaces of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;

use gantry_plugin_sdk::network::{PortLease, Protocol, Subnet};
use gantry_plugin_sdk::sys::netlink::RouteSocket;
use gantry_plugin_sdk::sys::netns;

use super::*;

const TAG: &str = "0badcafe";

/// A driver in a fresh namespace, in which everything of `work` happens.
fn with_driver(work: impl FnOnce(&BridgeNetwork, &DriverConfig) + Send) {
    let root = tempfile::tempdir().unwrap();
    let config = DriverConfig {
        name: "bridge".into(),
        root: root.path().to_owned(),
        run: root.path().to_owned(),
        tag: TAG.into(),
        options: gantry_plugin_sdk::serde_json::json!({}),
    };
    netns::create(|| {
        let driver = BridgeNetwork::new(config.clone(), Log::none()).unwrap();
        work(&driver, &config);
        driver.drain(&Call::default()).unwrap();
        Ok(())
    })
    .unwrap();
}

fn network(id: char, options: &[(&str, &str)]) -> NetworkSpec {
    NetworkSpec {
        id: String::from(id).repeat(64),
        name: "n".into(),
        subnets: vec![Subnet {
            net: "10.9.0.0/24".parse().unwrap(),
            gateway: Some("10.9.0.1".parse().unwrap()),
        }],
        internal: false,
        options: options
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect(),
    }
}

fn endpoint(network: &NetworkSpec, id: char) -> EndpointSpec {
    EndpointSpec {
        network: network.id.clone(),
        id: String::from(id).repeat(64),
        addresses: vec!["10.9.0.2/24".parse().unwrap()],
        mac: None,
        link: "eth0".into(),
        options: BTreeMap::new(),
    }
}

fn links() -> Vec<String> {
    let links = RouteSocket::open().unwrap().links().unwrap();
    links
        .into_iter()
        .map(|link| link.name)
        .filter(|name| name != "lo")
        .collect()
}

#[test]
fn an_endpoint_is_joined_and_left() {
    with_driver(|driver, _| {
        let call = Call::default();
        let spec = network('a', &[(("com.docker.network.driver.mtu"), "1400")]);
        driver.create_network(&call, spec.clone()).unwrap();
        driver.create_network(&call, spec.clone()).unwrap();
        let (netns, mut inside) = netns::create(RouteSocket::open).unwrap();
        let fds = [netns.as_fd()];
        let joining = call.with_fds(&fds);
        let one = endpoint(&spec, '1');
        let plan = driver.join(&joining, one.clone()).unwrap();
        assert_eq!(plan.mac, "02:42:0a:09:00:02");
        assert_eq!(plan.gateways, vec![IpAddr::from([10, 9, 0, 1])]);
        // The same again is an attempt that is repeated.
        driver.join(&joining, one.clone()).unwrap();
        let inner = inside.link("eth0").unwrap().expect("it was born inside");
        assert_eq!(
            (inner.mtu, inner.mac.unwrap().to_string()),
            (1400, plan.mac)
        );
        assert_eq!(links().len(), 2);
        let gone = EndpointRef {
            network: spec.id.clone(),
            id: one.id,
        };
        driver.leave(&joining, gone.clone()).unwrap();
        driver.leave(&joining, gone).unwrap();
        assert!(inside.link("eth0").unwrap().is_none());
        driver
            .delete_network(
                &call,
                NetworkRef {
                    id: spec.id.clone(),
                },
            )
            .unwrap();
        driver
            .delete_network(&call, NetworkRef { id: spec.id })
            .unwrap();
        driver.drain(&call).unwrap();
        assert_eq!(links(), Vec::<String>::new());
    });
}

#[test]
fn a_bridge_that_was_there_is_kept_and_a_name_in_use_refused() {
    with_driver(|driver, _| {
        let call = Call::default();
        let mut socket = RouteSocket::open().unwrap();
        let mine = gantry_plugin_sdk::sys::netlink::Change::bridge("mine", None);
        socket.apply(vec![mine]).unwrap();
        let spec = network('a', &[("com.docker.network.bridge.name", "mine")]);
        driver.create_network(&call, spec.clone()).unwrap();
        let second = network('b', &[("com.docker.network.bridge.name", "mine")]);
        let error = driver.create_network(&call, second).unwrap_err();
        assert_eq!(error.code, ErrorCode::PermissionDenied);
        driver
            .delete_network(&call, NetworkRef { id: spec.id })
            .unwrap();
        driver.drain(&call).unwrap();
        assert_eq!(links(), vec!["mine"]);
    });
}

#[test]
fn a_name_is_free_for_the_next_network_at_once() {
    with_driver(|driver, _| {
        let call = Call::default();
        for id in ['a', 'b', 'c'] {
            let spec = network(id, &[("com.docker.network.bridge.name", "again")]);
            driver.create_network(&call, spec.clone()).unwrap();
            assert_eq!(links(), vec!["again"]);
            driver
                .delete_network(&call, NetworkRef { id: spec.id })
                .unwrap();
        }
    });
}

#[test]
fn leftovers_of_a_crash_are_removed_and_the_living_kept() {
    with_driver(|driver, config| {
        let call = Call::default();
        let (live, dead) = (
            network('a', &[]),
            network('b', &[("com.docker.network.bridge.name", "chosen")]),
        );
        let (netns, ()) = netns::create(|| Ok(())).unwrap();
        let fds = [netns.as_fd()];
        for (spec, ids) in [(&live, "12"), (&dead, "3")] {
            driver.create_network(&call, spec.clone()).unwrap();
            for id in ids.chars() {
                let mut wanted = endpoint(spec, id);
                wanted.link = format!("eth{id}");
                driver.join(&call.with_fds(&fds), wanted).unwrap();
            }
        }
        let next = BridgeNetwork::new(config.clone(), Log::none()).unwrap();
        let known = Reconcile {
            live: vec![live.id.clone()],
            endpoints: vec!["1".repeat(64)],
        };
        next.reconcile(&call, known).unwrap();
        // It was told of the network by the file of its predecessor.
        next.create_endpoint(&call, endpoint(&live, '1')).unwrap();
        let names = Names::new(TAG);
        let mut wanted = vec![
            names.name(BRIDGE, &live.id),
            names.name(VETH, &"1".repeat(64)),
        ];
        wanted.sort();
        next.drain(&call).unwrap();
        let mut now = links();
        now.sort();
        assert_eq!(now, wanted);
    });
}

#[test]
fn ports_become_intents_of_their_family() {
    with_driver(|driver, _| {
        let call = Call::default();
        let spec = network('a', &[]);
        driver.create_network(&call, spec.clone()).unwrap();
        let lease = |host: &str| PortLease {
            protocol: Protocol::Tcp,
            host: host.parse().unwrap(),
            container_port: 80,
        };
        let (netns, ()) = netns::create(|| Ok(())).unwrap();
        let fds = [netns.as_fd()];
        driver
            .join(&call.with_fds(&fds), endpoint(&spec, '1'))
            .unwrap();
        let request = SetExternal {
            endpoint: endpoint(&spec, '1'),
            ports: vec![lease("0.0.0.0:8080"), lease("[::]:8080")],
        };
        let intents = driver.set_external(&call, request).unwrap();
        assert_eq!(
            intents,
            vec![FirewallIntent::Publish {
                protocol: Protocol::Tcp,
                host: "0.0.0.0:8080".parse().unwrap(),
                target: "10.9.0.2:80".parse().unwrap(),
                link: Names::new(TAG).name(BRIDGE, &spec.id),
            }]
        );
    });
}

#[test]
fn routed_members_are_reached_at_their_own_addresses() {
    with_driver(|driver, _| {
        let call = Call::default();
        let routed = ("com.docker.network.bridge.gateway_mode_ipv4", "routed");
        let spec = network('a', &[routed]);
        driver.create_network(&call, spec.clone()).unwrap();
        let (netns, ()) = netns::create(|| Ok(())).unwrap();
        let fds = [netns.as_fd()];
        let one = endpoint(&spec, '1');
        let plan = driver.join(&call.with_fds(&fds), one.clone()).unwrap();
        assert!(plan.routed_ipv4 && !plan.routed_ipv6);
        let lease = PortLease {
            protocol: Protocol::Tcp,
            host: "0.0.0.0:0".parse().unwrap(),
            container_port: 80,
        };
        let request = SetExternal {
            endpoint: one,
            ports: vec![lease],
        };
        let direct = FirewallIntent::Direct {
            protocol: Protocol::Tcp,
            target: "10.9.0.2:80".parse().unwrap(),
        };
        assert_eq!(driver.set_external(&call, request).unwrap(), [direct]);
    });
}
