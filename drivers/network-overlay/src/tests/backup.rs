//! Stores that were restored from a backup. What came after it is known to the hosts alone.

use std::path::Path;

use super::*;

/// How the restored store counts when the hosts see it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    /// From where it was at the backup.
    Less,
    /// Beyond all that the hosts saw.
    More,
    /// The same, and what was before is no longer kept: as with `--bump-revision` and `--mark-compacted`.
    MoreAlone,
}

/// Restores the store of the third host while no other host sees it.
fn restore(hosts: &Hosts, etcd: &mut Etcd, backup: &Path, counts: Counts) {
    let at = hosts.host(3);
    let seen = revision(at);
    if counts == Counts::Less {
        // The hosts are told of its end.
        etcd.kill(at);
        hosts.cut(3);
    } else {
        // As when its machine loses power: all that they see is that it says nothing for a moment.
        let soon = "echo 1 >/proc/sys/net/ipv4/tcp_orphan_retries";
        at.namespace.shell(soon);
        hosts.cut(3);
        etcd.kill(at);
    }
    etcd.restore(at, backup);
    etcd.start_member(at);
    etcd.wait(at);
    if counts != Counts::Less {
        write(at, 500);
    }
    if counts == Counts::MoreAlone {
        forget(at);
    }
    assert_eq!(revision(at) > seen, counts != Counts::Less);
    hosts.heal(3);
}

/// Writes a key that is nobody's, again and again.
fn write(at: &gantry_fixtures::Host, times: usize) {
    let put = r#"{"key": "eA==", "value": "eQ=="}"#;
    let url = format!("http://127.0.0.1:2379/v3/kv/put?[1-{times}]");
    at.namespace
        .shell(&format!("curl -fs -o /dev/null -d '{put}' '{url}'"));
}

/// Has the store keep no revision but the last one.
fn forget(at: &gantry_fixtures::Host) {
    let last = revision(at);
    let request = format!(r#"{{"revision": "{last}", "physical": true}}"#);
    at.namespace.shell(&format!(
        "curl -fs http://127.0.0.1:2379/v3/kv/compaction -d '{request}'"
    ));
}

/// What the store counts.
fn revision(at: &gantry_fixtures::Host) -> u64 {
    let ask = r#"curl -fs http://127.0.0.1:2379/v3/kv/range -d '{"key": "eA=="}'"#;
    let told: Value = serde_json::from_str(&at.namespace.shell(ask)).unwrap();
    let revision = told["header"]["revision"].as_str().unwrap();
    revision.parse().unwrap()
}

/// The networks that a host knows.
fn known(host: &Host) -> Vec<String> {
    let short = Call::new("test").with_timeout(Duration::from_secs(1));
    let all = host.with(|driver| driver.shared(&short, Watch::default()));
    let all = all.map(|all| all.networks).unwrap_or_default();
    all.into_iter().map(|n| n.id).collect()
}

fn unshare(host: &Host, network: &str) {
    let network = NetworkRef { id: network.into() };
    host.with(|driver| driver.unshare(&call(), network))
        .unwrap();
}

/// Hosts that run put back what came after the backup, and what was removed after it stays removed.
fn restored_while_hosts_run(counts: Counts) {
    let (hosts, mut etcd) = lab();
    let [one, two] = sharing(&hosts, &json!({}));
    for network in ["gone", "left"] {
        two.share(network_of(network)).unwrap();
    }
    let a = one.sandbox("n", "a");
    two.allocate("n", "old", &[]).unwrap();
    two.allocate("left", "guest", &[]).unwrap();
    let backup = etcd.back_up(hosts.host(3));
    two.release("n", "old");
    two.release("left", "guest");
    unshare(&one, "gone");
    unshare(&two, "left");
    one.share(network_of("late")).unwrap();
    let b = two.sandbox("n", "b");
    two.allocate("late", "c", &[]).unwrap();
    let is_right = || {
        (known(&one), known(&two)) == (vec!["late".into(), "n".into()], known(&one))
            && one.others() == ["c", "b"]
            && two.others() == ["a"]
    };
    eventually("all know all", is_right);
    a.reaches(&b);
    restore(&hosts, &mut etcd, &backup, counts);
    let end = Instant::now() + Duration::from_secs(60);
    let is_whole = || {
        one.keys("networks/") == ["late", "n"]
            && one.keys("endpoints/") == ["late/c", "n/a", "n/b"]
            && one.status("Hosts") == "2 (0 away)"
            && two.status("Member") == "yes"
    };
    while !is_whole() {
        // Nobody is told meanwhile that anything is gone, or there again.
        for host in [&one, &two] {
            assert_eq!(known(host), ["late", "n"]);
        }
        assert!(one.others().contains(&"b".into()) && two.others() == ["a"]);
        assert!(
            Instant::now() < end,
            "never whole: {:?} {:?} {} {}",
            one.keys("networks/"),
            one.keys("endpoints/"),
            one.status("Hosts"),
            two.status("Member")
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    eventually("all know all again", is_right);
    a.reaches(&b);
    b.reaches(&a);
    for (host, taken) in [(&one, &b), (&two, &a)] {
        let taken = taken.address(false).to_string();
        let refused = host.allocate("n", "d", &[&taken]).unwrap_err();
        assert_eq!(refused.code, gantry_plugin_sdk::ErrorCode::Conflict);
    }
}

#[test]
fn an_older_store_is_given_what_came_after_it() {
    restored_while_hosts_run(Counts::Less);
}

#[test]
fn an_older_store_that_counts_on_is_given_what_came_after_it() {
    restored_while_hosts_run(Counts::More);
}

#[test]
fn an_older_store_without_its_past_is_given_what_came_after_it() {
    restored_while_hosts_run(Counts::MoreAlone);
}

/// Hosts put back the endpoints of one whose driver is away, though no network changed since the backup.
fn restored_while_one_is_away(counts: Counts) {
    let (hosts, mut etcd) = lab();
    // One that has worked for some time has had more leaders than one that begins anew.
    etcd.kill(hosts.host(3));
    etcd.start_member(hosts.host(3));
    etcd.wait(hosts.host(3));
    let [one, mut two] = sharing(&hosts, &json!({}));
    let a = one.sandbox("n", "a");
    two.allocate("n", "old", &[]).unwrap();
    let backup = etcd.back_up(hosts.host(3));
    two.release("n", "old");
    let b = two.sandbox("n", "b");
    eventually("it is known", || one.others() == ["b"]);
    a.reaches(&b);
    two.stop();
    restore(&hosts, &mut etcd, &backup, counts);
    let end = Instant::now() + Duration::from_secs(60);
    while !one.keys("endpoints/n/").contains(&"b".into()) {
        assert!(one.others().contains(&"b".into()), "it is known");
        assert!(
            Instant::now() < end,
            "never: it is put back: {:?}",
            one.keys("endpoints/n/")
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    a.reaches(&b);
    let taken = b.address(false).to_string();
    let refused = one.allocate("n", "d", &[&taken]).unwrap_err();
    assert_eq!(refused.code, gantry_plugin_sdk::ErrorCode::Conflict);
    two.start();
    eventually("what was released stays so", || {
        one.keys("endpoints/n/") == ["a", "b"]
    });
    eventually("that is known", || one.others() == ["b"]);
}

#[test]
fn endpoints_of_a_host_that_is_away_are_put_back_into_an_older_store() {
    restored_while_one_is_away(Counts::Less);
}

#[test]
fn endpoints_of_a_host_that_is_away_are_put_back_into_an_older_store_that_counts_on() {
    restored_while_one_is_away(Counts::More);
}

#[test]
fn endpoints_of_a_host_that_is_away_are_put_back_into_an_older_store_without_its_past() {
    restored_while_one_is_away(Counts::MoreAlone);
}

#[test]
fn an_older_store_is_known_for_one_when_somebody_new_has_changed_it() {
    let (hosts, mut etcd) = lab();
    let [mut one, mut two] = sharing(&hosts, &json!({}));
    let backup = etcd.back_up(hosts.host(3));
    one.share(network_of("late")).unwrap();
    two.share(network_of("later")).unwrap();
    two.allocate("late", "b", &[]).unwrap();
    eventually("they are known", || {
        known(&one) == ["late", "later", "n"] && one.others() == ["b"]
    });
    one.stop();
    two.stop();
    restore(&hosts, &mut etcd, &backup, Counts::More);
    let three = Host::new(hosts.host(3), &json!({}));
    // In nobody's way.
    let mut new = network_of("new");
    new.enable_ipv6 = false;
    new.options
        .insert(crate::options::VNI.into(), "9000".into());
    new.pools = vec![gantry_plugin_sdk::network::SharedPool {
        subnet: Some("10.99.0.0/24".parse().unwrap()),
        ..Default::default()
    }];
    three.share(new).unwrap();
    // As many changes as were lost, and more.
    for brief in ["first", "second"] {
        three.share(network_of(brief)).unwrap();
        unshare(&three, brief);
    }
    one.start();
    eventually("what it knows is put back", || {
        three.keys("networks/") == ["late", "later", "n", "new"]
    });
    two.start();
    eventually("everything is", || three.keys("endpoints/") == ["late/b"]);
    for host in [&one, &two, &three] {
        eventually("that is known", || {
            known(host) == ["late", "later", "n", "new"]
        });
    }
}
