//! The driver in network namespaces of its own, on a bridge that stands for the host's card.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use gantry_plugin_sdk::network::{EndpointRef, EndpointSpec, NetworkRef, NetworkSpec, Subnet};
use gantry_plugin_sdk::sys::netlink::{Change, RouteSocket};
use gantry_plugin_sdk::sys::netns;
use gantry_plugin_sdk::{Call, Driver, DriverConfig, ErrorCode, Log, Network, Reconcile};

use super::*;

const PARENT: &str = "card0";

fn with_driver(work: impl FnOnce(&dyn Fn() -> MacvlanNetwork) + Send) {
    let root = tempfile::tempdir().unwrap();
    let config = DriverConfig {
        name: "macvlan".into(),
        root: root.path().to_owned(),
        run: root.path().to_owned(),
        tag: "0badcafe".into(),
        options: gantry_plugin_sdk::serde_json::json!({}),
    };
    netns::create(|| {
        let mut socket = RouteSocket::open()?;
        socket.apply(vec![Change::bridge(PARENT, None)])?;
        let index = socket.link(PARENT)?.unwrap().index;
        socket.apply(vec![Change::up(index)])?;
        work(&|| MacvlanNetwork::new(config.clone(), Log::none()).unwrap());
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

fn endpoint(network: &NetworkSpec, host: u8) -> EndpointSpec {
    EndpointSpec {
        network: network.id.clone(),
        id: format!("{host:064x}"),
        addresses: vec![format!("10.9.0.{host}/24").parse().unwrap()],
        mac: None,
        link: "eth0".into(),
        options: BTreeMap::new(),
    }
}

/// A sandbox with a joined endpoint, configured as core does it.
fn joined(driver: &MacvlanNetwork, spec: &EndpointSpec) -> (OwnedFd, RouteSocket) {
    let (netns, mut inside) = netns::create(RouteSocket::open).unwrap();
    let fds = [netns.as_fd()];
    let plan = driver
        .join(&Call::default().with_fds(&fds), spec.clone())
        .unwrap();
    let link = inside.link(&plan.link).unwrap().expect("born inside");
    assert_eq!(link.kind, "macvlan");
    assert_eq!(link.mac.unwrap().to_string(), plan.mac);
    let mut changes = vec![Change::up(link.index)];
    changes.extend(
        plan.addresses
            .iter()
            .map(|a| Change::address(link.index, *a)),
    );
    inside.apply(changes).unwrap();
    (netns, inside)
}

#[test]
fn neighbours_on_one_card_reach_each_other_and_leave() {
    with_driver(|open| {
        let driver = open();
        let call = Call::default();
        let spec = network('a', &[("parent", PARENT)]);
        driver.create_network(&call, spec.clone()).unwrap();
        let (one, two) = (endpoint(&spec, 2), endpoint(&spec, 3));
        let (server, mut inside) = joined(&driver, &one);
        let (client, _socket) = joined(&driver, &two);
        let listener = netns::inside(&server, || TcpListener::bind("10.9.0.2:80")).unwrap();
        let asked = std::thread::spawn(move || {
            let mut stream = netns::inside(&client, || TcpStream::connect("10.9.0.2:80")).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
        });
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip().to_string(), "10.9.0.3");
        asked.join().unwrap();
        // Another process of the driver knows what the first did.
        let driver = open();
        let fds = [server.as_fd()];
        let gone = EndpointRef {
            network: spec.id.clone(),
            id: one.id.clone(),
        };
        // The same again is an attempt that is repeated.
        driver.join(&call.with_fds(&fds), one).unwrap();
        for _ in 0..2 {
            driver.leave(&call.with_fds(&fds), gone.clone()).unwrap();
            driver.delete_endpoint(&call, gone.clone()).unwrap();
        }
        assert!(inside.link("eth0").unwrap().is_none());
        let id = spec.id;
        driver.delete_network(&call, NetworkRef { id }).unwrap();
        let mut here = RouteSocket::open().unwrap();
        assert!(here.link(PARENT).unwrap().is_some(), "it was there before");
    });
}

#[test]
fn parents_are_shared_unless_one_wants_them_whole() {
    with_driver(|open| {
        let (driver, call) = (open(), Call::default());
        let create = |id, mode| {
            let spec = network(id, &[("parent", PARENT), ("macvlan_mode", mode)]);
            driver.create_network(&call, spec)
        };
        create('a', "bridge").unwrap();
        create('b', "private").unwrap();
        let refused = create('c', "passthru").unwrap_err();
        assert_eq!(refused.code, ErrorCode::PermissionDenied);
        assert!(refused.message.contains("already using parent interface"));
        driver.reconcile(&call, Reconcile::default()).unwrap();
        create('c', "passthru").unwrap();
        assert!(create('a', "bridge").is_err());
    });
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    with_driver(|open| {
        let (driver, call) = (open(), Call::default());
        for (options, words) in [
            (
                &[("macvlan_mode", "odd")][..],
                "requested macvlan mode 'odd' is not valid",
            ),
            (
                &[("parent", "lo")],
                "loopback interface is not a valid macvlan parent link",
            ),
            (
                &[("parent", "much-too-long-name")],
                "is not the name of a network interface",
            ),
            (&[("com.docker.network.driver.mtu", "1")], "invalid MTU"),
        ] {
            let error = driver.validate(&call, network('a', options)).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument);
            assert!(error.message.contains(words), "{}", error.message);
        }
        for (parent, words) in [
            ("absent", "invalid subinterface vlan name absent"),
            ("absent.7", "failed to find master interface absent"),
            ("card0.5000", "vlan id must be between 1-4094"),
        ] {
            let spec = network('a', &[("parent", parent)]);
            let error = driver.create_network(&call, spec.clone()).unwrap_err();
            assert!(error.message.contains(words), "{}", error.message);
            let one = endpoint(&spec, 2);
            let unknown = driver.create_endpoint(&call, one).unwrap_err();
            assert_eq!(unknown.code, ErrorCode::NotFound);
        }
    });
}

#[test]
fn plans_say_mtu_gateway_and_address() {
    with_driver(|open| {
        let (driver, call) = (open(), Call::default());
        let options = [
            ("parent", PARENT),
            ("com.docker.network.driver.mtu", "1400"),
        ];
        let spec = network('a', &options);
        driver.create_network(&call, spec.clone()).unwrap();
        let (netns, mut inside) = netns::create(RouteSocket::open).unwrap();
        let fds = [netns.as_fd()];
        let plan = driver
            .join(&call.with_fds(&fds), endpoint(&spec, 2))
            .unwrap();
        assert_eq!(plan.gateways, [std::net::IpAddr::from([10, 9, 0, 1])]);
        assert_eq!((plan.mtu, plan.mac.as_str()), (1400, "02:42:0a:09:00:02"));
        assert_eq!(inside.link("eth0").unwrap().unwrap().mtu, 1400);
        let silent = NetworkSpec {
            internal: true,
            ..network('b', &options)
        };
        driver.create_network(&call, silent.clone()).unwrap();
        let mut two = endpoint(&silent, 3);
        two.link = "eth1".into();
        let plan = driver.join(&call.with_fds(&fds), two).unwrap();
        assert!(plan.gateways.is_empty() && plan.routes.is_empty());
    });
}
