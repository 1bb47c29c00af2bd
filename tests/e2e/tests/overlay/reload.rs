//! Drivers that are loaded anew while they work.

use gantry_e2e::eventually;
use serde_json::json;

use crate::lab::{self, Cluster, FORGET, LEASE, Talk};

#[test]
fn a_reloaded_driver_goes_on_where_the_one_before_was() {
    let cluster = Cluster::new(2, 1);
    cluster.network(1, "--attachable net");
    cluster.web(1, "--name here --network net");
    cluster.web(2, "--name old --network net");
    cluster.comes_to_work(1, "here", "wget -qO- http://old/");
    let (from, to) = (cluster.inside(1, "here"), cluster.inside(2, "old"));
    let talk = Talk::begin(&from, &to, cluster.address(2, "old", "net"));

    let mut config = lab::config(cluster.hosts.host(1), &cluster.etcd, FORGET);
    config["drivers"]["network"]["overlay"]["options"]["lease"] = json!(LEASE + 1);
    lab::reload(cluster.at(1), &config);
    talk.end();
    // Who holds a container's namespace keeps its links.
    drop((from, to));
    // It must tell the kernel of what comes now, without an attachment here.
    cluster.web(2, "--name new --network net");
    cluster.comes_to_work(1, "here", "wget -qO- http://new/");
    cluster.docker(2, "rm -f old new");
    cluster.docker(1, "rm -f here");
    cluster.docker(1, "network rm net");
    cluster.finish();
}

#[test]
fn a_host_joins_by_a_reload() {
    let cluster = Cluster::new(1, 1);
    cluster.network(1, "--attachable net");
    let late = lab::start(cluster.outside(), json!({}));
    let listed = late.gantry(&["driver", "ls"]).ok();
    let line = listed.lines().find(|line| line.contains("overlay "));
    assert!(line.is_some_and(|line| line.contains(" idle")), "{listed}");
    late.docker(&["network", "inspect", "net"])
        .fails(1, "network net not found");
    let config = lab::config(cluster.outside(), &cluster.etcd, FORGET);
    lab::reload(&late, &config);
    eventually("the network is known", 20, || {
        (late.docker(&["network", "inspect", "net"]).code == 0).then_some(())
    });
    cluster.docker(1, "network rm net");
    late.finish();
    cluster.finish();
}
