//! Throughput between containers on two hosts.

use std::time::Duration;

use anyhow::{Context, Result};
use gantry_fixtures::{Etcd, Host, Hosts};
use serde_json::{Value, json};

use super::place::Place;
use super::traffic::{Arrived, Row, Server, goal, measure};
use crate::direct::{create, remove, start};
use crate::http::Api;
use crate::peers::{Bench, Daemon, shell};

/// A container in an engine of its own.
struct Far {
    api: Api,
    container: String,
    place: Place,
    _daemon: Daemon,
}

/// Containers on an overlay network of two hosts, beside VXLAN set up by hand between the same hosts.
pub(crate) fn overlay(bench: &Bench, rounds: usize) -> Result<()> {
    if shell("command -v etcd >/dev/null").is_err() {
        println!("etcd is not installed: overlay networks are left out");
        return Ok(());
    }
    let hosts = Hosts::new(2);
    let etcd = Etcd::start(&[hosts.host(1)]);
    let mut ends = Vec::new();
    for host in hosts.iter() {
        ends.push(far(bench, host, &etcd)?);
    }
    let [one, two] = [1, 2].map(|number| by_hand(hosts.host(number), hosts.host(3 - number)));
    let [here, there] = &mut ends[..] else {
        unreachable!("there are two hosts");
    };
    let mut arrived = Arrived::new();
    let _servers = [
        Server::start(&two, &arrived)?,
        Server::start(&there.place, &arrived)?,
    ];
    let mut rows = [
        Row::new("VXLAN by hand", &one, &two.address, 5201)?,
        Row::new("overlay", &here.place, &there.place.address, 5201)?,
    ];
    measure(
        "one TCP connection between two hosts",
        &mut rows,
        &mut arrived,
        rounds,
    )?;
    goal(&rows, "overlay", "VXLAN by hand", 0.95);
    for end in [&mut *there, &mut *here] {
        remove(&mut end.api, &end.container)?;
    }
    here.api
        .json("DELETE", "/networks/wide", &Value::Null)
        .map(drop)
}

fn far(bench: &Bench, host: &Host, etcd: &Etcd) -> Result<Far> {
    let config =
        json!({"drivers": {"network": {"overlay": {"options": {"etcd": etcd.endpoints()}}}}});
    let name = format!("host{}", host.number);
    let netns = host.namespace.path();
    let dir = bench.dir().join(&name);
    let program = bench.program("gantryd");
    let daemon = Daemon::start_in(Some(&netns), &program, &dir, &config.to_string())?;
    bench.import(&daemon.host)?;
    let mut api = Api::connect(&daemon.host)?;
    if host.number == 1 {
        let body = json!({"Name": "wide", "Driver": "overlay", "Attachable": true});
        api.json("POST", "/networks/create", &body)?;
    }
    // The other host learns of the network in its own time.
    let known = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        api.json("GET", "/networks/wide", &Value::Null).is_ok()
    });
    known
        .then_some(())
        .context("the network does not become known")?;
    let config = json!({"NetworkMode": "wide"});
    let container = create(&mut api, &name, &["sleep", "100000"], &config)?;
    start(&mut api, &container)?;
    let place = Place::of_container(&mut api, &container, "wide")?;
    Ok(Far {
        api,
        container,
        place,
        _daemon: daemon,
    })
}

/// A namespace behind a bridge that has a VXLAN link to the other host, with the MTU that this leaves.
fn by_hand(host: &Host, other: &Host) -> Place {
    host.namespace.shell(&format!(
        "ip link add hand0 type bridge
         ip link add handvx type vxlan id 77 dstport 4799 local {} remote {} dev eth0
         ip link set handvx master hand0 up
         ip link set hand0 up",
        host.address, other.address
    ));
    let address = format!("172.31.1.{}", host.number);
    let place = Place::behind(&host.namespace, "hand0", "hand1", &address);
    place.namespace.shell("ip link set eth0 mtu 1450");
    host.namespace.shell("ip link set hand1 mtu 1450");
    place
}
