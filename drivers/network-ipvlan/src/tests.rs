//! What is asked for. The links themselves are the kernel's, and not every kernel has them.

use std::net::IpAddr;
use std::os::fd::AsFd;

use gantry_plugin_sdk::network::{EndpointSpec, NetworkSpec, Subnet};
use gantry_plugin_sdk::sys::netlink::{Change, RouteSocket};
use gantry_plugin_sdk::sys::netns;
use gantry_plugin_sdk::{Call, DriverConfig, Log, Network};

use super::*;

const EOPNOTSUPP: i32 = 95;

fn options(mode: &str, flag: &str) -> BTreeMap<String, String> {
    [("parent", "card0"), (MODE, mode), (FLAG, flag)]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn modes_and_flags() {
    let parse = |mode, flag| IpvlanKind::parse(&options(mode, flag));
    let l2 = parse("", "").unwrap();
    assert_eq!(l2, Stacked::Ipvlan(Ipvlan::L2, Reach::Bridge));
    let l3s = parse("l3s", "vepa").unwrap();
    assert_eq!(l3s, Stacked::Ipvlan(Ipvlan::L3s, Reach::Vepa));
    let error = parse("l4", "").unwrap_err();
    assert!(error.message.contains("ipvlan mode 'l4' is not valid"));
    let error = parse("l3", "loud").unwrap_err();
    assert!(error.message.contains("ipvlan flag 'loud' is not valid"));
    assert!(IpvlanKind::agree(l2, l2) && !IpvlanKind::agree(l2, l3s));
    assert!(IpvlanKind::is_routed(l3s) && !IpvlanKind::is_routed(l2));
}

#[test]
fn a_container_is_joined_where_the_kernel_can() {
    let root = tempfile::tempdir().unwrap();
    let config = DriverConfig {
        name: "ipvlan".into(),
        root: root.path().to_owned(),
        run: root.path().to_owned(),
        tag: "0badcafe".into(),
        options: gantry_plugin_sdk::serde_json::json!({}),
    };
    netns::create(|| {
        RouteSocket::open()?.apply(vec![Change::bridge("card0", None)])?;
        let (driver, call) = (
            IpvlanNetwork::new(config, Log::none()).unwrap(),
            Call::default(),
        );
        for (id, mode) in [("a", "l3"), ("b", "l2")] {
            let spec = NetworkSpec {
                id: id.repeat(64),
                name: id.into(),
                subnets: vec![Subnet {
                    net: "10.9.0.0/24".parse().unwrap(),
                    gateway: Some("10.9.0.1".parse().unwrap()),
                }],
                internal: false,
                options: options(mode, ""),
            };
            driver.create_network(&call, spec.clone()).unwrap();
            let (netns, mut inside) = netns::create(RouteSocket::open)?;
            let fds = [netns.as_fd()];
            let endpoint = EndpointSpec {
                network: spec.id.clone(),
                id: "1".repeat(64),
                addresses: vec!["10.9.0.2/24".parse().unwrap()],
                mac: None,
                link: "eth0".into(),
                options: BTreeMap::new(),
            };
            match driver.join(&call.with_fds(&fds), endpoint) {
                Ok(plan) => {
                    assert_eq!(inside.link("eth0")?.unwrap().kind, "ipvlan");
                    let gateway = [IpAddr::from([10, 9, 0, 1])];
                    assert_eq!(plan.gateways, &gateway[..usize::from(mode == "l2")]);
                    assert_eq!(plan.routes.len(), usize::from(mode == "l3"));
                }
                Err(error) => {
                    assert!(
                        error
                            .message
                            .contains("failed to create the ipvlan port on card0")
                    );
                    assert!(error.message.contains(&format!("os error {EOPNOTSUPP}")));
                    println!("not run: this kernel has no ipvlan");
                }
            }
            let id = spec.id;
            driver
                .delete_network(&call, gantry_plugin_sdk::network::NetworkRef { id })
                .unwrap();
        }
        Ok(())
    })
    .unwrap();
}
