//! Three hosts with a member of etcd each.

use std::time::Duration;

use gantry_e2e::eventually;

use crate::lab::{Cluster, Talk};

/// Seconds until a lost host is forgotten.
const FORGET: u64 = 3;

/// A container on each of three hosts, `c1` to `c3`, that know each other.
fn joined(cluster: Cluster) -> Cluster {
    cluster.network(1, "net");
    for host in 1..=3 {
        cluster.web(
            host,
            &format!("--name c{host} --hostname c{host} --network net"),
        );
    }
    for (host, other) in [(1, 2), (2, 3), (3, 1), (1, 3)] {
        let look = format!("ping -c 1 -W 1 c{other}");
        cluster.comes_to_work(host, &format!("c{host}"), &look);
    }
    cluster
}

#[test]
fn a_lost_member_of_etcd_is_not_noticed_and_a_lost_host_is() {
    let mut cluster = joined(Cluster::forgetting(3, 3, FORGET));
    let member = cluster.hosts.host(3);
    cluster.etcd.kill(member);
    cluster.network(2, "second");
    cluster.web(3, "--name late --hostname late --network second");
    cluster.web(1, "--name other --hostname other --network second");
    cluster.comes_to_work(1, "other", "wget -qO- http://late/");
    cluster.comes_to_work(1, "c1", "wget -qO- http://c3/");
    // The host is lost: its links are cut for good.
    cluster.hosts.cut(3);
    let looks = [(1, "c1", "c3"), (2, "c2", "c3"), (1, "other", "late")];
    for (host, container, name) in looks {
        // A host that is not told to forget so soon takes minutes.
        eventually("the names of a lost host vanish", 60, || {
            let left = cluster.resolve(host, container, name);
            left.is_empty().then_some(())
        });
    }
    assert!(cluster.works(1, "c1", "wget -qO- http://c2/"));
    cluster.web(2, "--name new --hostname new --network net");
    cluster.comes_to_work(1, "c1", "wget -qO- http://new/");
    // What is left on the lost host ends in peace, so that it can be looked for leaks.
    cluster.hosts.heal(3);
    let member = cluster.hosts.host(3);
    cluster.etcd.start_member(member);
    cluster.etcd.wait(member);
    cluster.finish();
}

/// A host that is cut off for some time: everybody's containers stay, nobody new joins there, and all is as before by
/// itself once it is back.
fn partition(length: Duration) {
    let cluster = joined(Cluster::new(3, 3));
    let begun = std::time::Instant::now();
    let inside = [1, 2].map(|host| cluster.inside(host, &format!("c{host}")));
    let talk = Talk::begin(&inside[0], &inside[1], cluster.address(2, "c2", "net"));
    let before = cluster.address(3, "c3", "net");
    cluster.hosts.cut(3);
    assert!(!cluster.works(1, "c1", "ping -c 1 -W 1 c3"));
    let args = ["run", "--rm", "--network", "net", "busybox", "true"];
    let refused = eventually("nobody new joins on the cut side", 60, || {
        let done = cluster.at(3).docker(&args);
        (done.code != 0).then_some(done)
    });
    let words = refused.fails(125, "Error response from daemon");
    assert!(
        words.contains("the cluster's store d"),
        "it is said why: {words}"
    );
    let create = ["network", "create", "-d", "overlay", "lost"];
    let words = cluster
        .at(3)
        .docker(&create)
        .fails(1, "Error response from daemon");
    assert!(
        words.contains("the cluster's store d"),
        "it is said why: {words}"
    );
    let warned = cluster.docker(3, "info -f {{.Warnings}}");
    let why = "WARNING: driver network/overlay: the cluster's store does not answer";
    assert!(warned.contains(why), "{warned}");
    // Names on the cut side stay what they were: nobody there can know better.
    let second = cluster.address(2, "c2", "net").to_string();
    assert_eq!(cluster.resolve(3, "c3", "c2"), [second.as_str()]);
    assert!(cluster.works(3, "c3", "wget -qO- http://c3/"));
    cluster.web(1, "--name new --hostname new --network net");
    cluster.comes_to_work(2, "c2", "wget -qO- http://new/");
    std::thread::sleep(length.saturating_sub(begun.elapsed()));
    talk.goes_on();
    cluster.hosts.heal(3);
    for (host, command) in [
        (1, "timeout 2 wget -qO- http://c3/"),
        (2, "timeout 2 wget -qO- http://c3/"),
        (3, "timeout 2 wget -qO- http://c1/"),
        (3, "timeout 2 wget -qO- http://new/"),
    ] {
        cluster.comes_to_work(host, &format!("c{host}"), command);
    }
    assert_eq!(cluster.address(3, "c3", "net"), before);
    assert_eq!(cluster.resolve(1, "c1", "c3"), [before.to_string()]);
    talk.end();
    // A namespace that is held here keeps its links.
    drop(inside);
    for host in 1..=3 {
        let up = cluster.docker(host, "ps -q --filter name=^c --filter status=running");
        assert_eq!(up.lines().count(), 1, "host {host}");
    }
    eventually("somebody new joins again", 60, || {
        (cluster.at(3).docker(&args).code == 0).then_some(())
    });
    let warned = cluster.docker(3, "info -f {{.Warnings}}");
    assert!(!warned.contains("overlay"), "{warned}");
    cluster.finish();
}

#[test]
fn a_partition_heals_by_itself() {
    // Longer than the lease.
    partition(Duration::from_secs(5));
}

#[test]
#[ignore = "a minute: cargo xtask soak"]
fn a_long_partition_heals_by_itself() {
    partition(Duration::from_secs(30));
}
