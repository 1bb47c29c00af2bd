//! What happens while somebody is not there.

use gantry_plugin_sdk::{Driver, ErrorCode, Reconcile};

use super::*;
use crate::claim;
use crate::cluster::Held;

#[test]
fn the_store_may_go_and_come_back() {
    let (hosts, mut etcd) = lab();
    let [one, two] = sharing(&hosts, &json!({}));
    let (a, b) = (one.sandbox("n", "a"), two.sandbox("n", "b"));
    a.reaches(&b);
    etcd.kill(hosts.host(3));
    eventually("it is missed", || one.status("Member") == "away");
    let health = |host: &Host| host.with(|driver| driver.health(&call())).unwrap();
    let told = health(&one);
    let why = "the cluster's store does not answer: http://192.0.2.3:";
    assert!(!told.healthy && told.message.starts_with(why), "{told:?}");
    std::thread::sleep(Duration::from_secs(2));
    let since = |text: &str| text.split_once("(since ").unwrap().1.to_owned();
    assert_eq!(since(&health(&one).message), since(&told.message));
    let short = Call::new("test").with_timeout(Duration::from_secs(1));
    let before = one
        .with(|driver| driver.shared(&short, Watch::default()))
        .unwrap();
    let after = one.with(|driver| {
        driver.shared(
            &short,
            Watch {
                since: before.revision,
            },
        )
    });
    assert_eq!(after.unwrap(), before, "nothing is known to be removed");
    let refused = one.allocate("n", "c", &[]).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable, "{refused}");
    assert_eq!(
        one.allocate("n", "a", &[]).unwrap(),
        a.plan.addresses,
        "it has them"
    );
    one.create("n");
    b.reaches(&a);
    two.release("n", "b");
    etcd.start_member(hosts.host(3));
    eventually("it was given back", || one.others().is_empty());
    eventually("it is there again", || one.status("Member") == "yes");
    let told = health(&one);
    assert!(told.healthy && told.message.is_empty(), "{told:?}");
    one.allocate("n", "c", &[]).unwrap();
    eventually("that is known elsewhere", || two.others() == ["a", "c"]);
}

#[test]
fn a_host_without_a_cable_loses_nothing() {
    let (hosts, _etcd) = lab();
    let [one, two] = sharing(&hosts, &json!({}));
    let (a, b) = (one.sandbox("n", "a"), two.sandbox("n", "b"));
    a.reaches(&b);
    hosts.cut(2);
    eventually("it is away", || one.status("Hosts") == "2 (1 away)");
    assert!(a.send(&b, false).is_err());
    assert_eq!(one.others(), ["b"]);
    assert_eq!(two.others(), ["a"]);
    let taken = b.address(false).to_string();
    let refused = one.allocate("n", "c", &[&taken]).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Conflict);
    one.allocate("n", "c", &[]).unwrap();
    hosts.heal(2);
    eventually("it is back", || one.status("Hosts") == "2 (0 away)");
    eventually("it knows what it missed", || two.others() == ["a", "c"]);
    a.reaches(&b);
    b.reaches(&a);
}

#[test]
fn a_store_that_was_set_back_is_put_right() {
    let (hosts, _etcd) = lab();
    let [one, two] = sharing(&hosts, &json!({}));
    one.allocate("n", "a", &[]).unwrap();
    let addresses = one.allocate("n", "b", &[]).unwrap();
    one.release("n", "a");
    eventually("one is there", || two.others() == ["b"]);
    // The lease is still good; endpoints are those of some time ago.
    let record =
        json!({"host": one.id(), "addresses": ["10.64.0.99/24"], "mac": "02:42:0a:40:00:63"});
    one.forge("endpoints/n/a", Some(&record));
    one.forge("endpoints/n/b", None);
    for net in addresses {
        one.forge(&format!("addresses/n/{}", net.addr()), None);
    }
    eventually("it is wrong", || two.others() == ["a"]);
    eventually("it is right again", || two.others() == ["b"]);
}

#[test]
fn what_a_store_lost_is_put_back_by_the_hosts_that_know_it() {
    let (hosts, mut etcd) = lab();
    let [mut one, two] = sharing(&hosts, &json!({}));
    two.share(network_of("idle")).unwrap();
    one.create("idle");
    two.share(network_of("gone")).unwrap();
    let (a, b) = (one.sandbox("n", "a"), two.sandbox("n", "b"));
    a.reaches(&b);
    eventually("they know each other", || {
        one.others() == ["b"] && two.others() == ["a"]
    });
    let network = NetworkRef { id: "gone".into() };
    two.with(|driver| driver.unshare(&call(), network)).unwrap();
    let known = |host: &Host| {
        let short = Call::new("test").with_timeout(Duration::from_secs(1));
        let all = host.with(|driver| driver.shared(&short, Watch::default()));
        let all = all.map(|all| all.networks).unwrap_or_default();
        all.into_iter().map(|n| n.id).collect::<Vec<_>>()
    };
    eventually("it is removed", || known(&one) == ["idle", "n"]);
    // Emptied while all hosts run: nobody is told of anything, also not of a member that is gone for a moment.
    etcd.lose(hosts.host(3));
    eventually("all is there again", || {
        assert_eq!(known(&one), ["idle", "n"]);
        assert_eq!(known(&two), ["idle", "n"]);
        assert_eq!(
            (one.others(), two.others()),
            (vec!["b".into()], vec!["a".into()])
        );
        one.keys("networks/") == ["idle", "n"] && one.keys("endpoints/n/") == ["a", "b"]
    });
    let addresses = [&a, &b].map(|sandbox| sandbox.address(false).to_string());
    for (host, taken) in [(&one, &addresses[1]), (&two, &addresses[0])] {
        let refused = host.allocate("n", "c", &[taken]).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Conflict, "{refused}");
    }
    a.reaches(&b);
    b.reaches(&a);
    // Emptied while none of its drivers run: by the one that comes first.
    one.stop();
    let options = two.options.clone();
    let (id, kept) = (two.id(), two.root);
    drop(two.driver);
    etcd.lose(hosts.host(3));
    one.start();
    eventually("the networks are back", || known(&one) == ["idle", "n"]);
    eventually("its endpoint is back", || one.keys("endpoints/n/") == ["a"]);
    let two = Host::at_root(hosts.host(2), &options, kept);
    assert_eq!(two.id(), id);
    eventually("the other's is back", || one.others() == ["b"]);
    // Emptied by hand, and networks removed before and after that while a host was away.
    one.share(network_of("early")).unwrap();
    eventually("it is known", || known(&two) == ["early", "idle", "n"]);
    hosts.cut(2);
    let network = NetworkRef { id: "early".into() };
    one.with(|driver| driver.unshare(&call(), network)).unwrap();
    eventually("it is removed", || known(&one) == ["idle", "n"]);
    one.erase("");
    eventually("they are back again", || {
        one.keys("networks/") == ["idle", "n"]
    });
    let network = NetworkRef { id: "idle".into() };
    one.with(|driver| driver.unshare(&call(), network)).unwrap();
    hosts.heal(2);
    eventually("it is removed", || known(&two) == ["n"]);
    eventually("both are there", || one.status("Hosts") == "2 (0 away)");
    assert_eq!(one.keys("networks/"), ["n"]);
    eventually("nobody lost anything", || {
        one.keys("endpoints/n/") == ["a", "b"] && one.others() == ["b"]
    });
    a.reaches(&b);
}

#[test]
fn what_is_its_own_is_not_lost_and_what_was_released_is_not_held() {
    let (hosts, _etcd) = lab();
    let [mut one, two] = sharing(&hosts, &json!({}));
    one.allocate("n", "a", &[]).unwrap();
    let note = one.root.path().join("endpoints").join("a");
    let read = || -> Value { serde_json::from_slice(&std::fs::read(&note).unwrap()).unwrap() };
    one.stop();
    let mut lost = read();
    lost["lost"] = json!(true);
    std::fs::write(&note, lost.to_string()).unwrap();
    one.start();
    eventually("it is its own", || read()["lost"] == json!(false));
    // It is there by a transaction whose answer was lost.
    one.stop();
    let before = one.keys("endpoints/n/");
    std::fs::write(&note, lost.to_string()).unwrap();
    one.start();
    let claimed = one.with(|driver| {
        let member = driver.member.as_ref().unwrap();
        let cluster = std::sync::Arc::clone(&member.cluster);
        member.run(&call(), async move { claim::claim_lost(&cluster).await })
    });
    claimed.unwrap();
    eventually("it is its own again", || read()["lost"] == json!(false));
    assert_eq!(one.keys("endpoints/n/"), before);
    // Released while it is put back: the store has it, and nobody here knows it.
    let addresses = two.allocate("n", "b", &[]).unwrap();
    let note = two.root.path().join("endpoints").join("b");
    let tried: Held = serde_json::from_slice(&std::fs::read(&note).unwrap()).unwrap();
    let settled = two.with(|driver| {
        let member = driver.member.as_ref().unwrap();
        let cluster = std::sync::Arc::clone(&member.cluster);
        cluster.let_go("b").unwrap();
        member.run(&call(), async move {
            claim::settle(&cluster, "b", &tried, false).await
        })
    });
    settled.unwrap();
    assert!(!note.exists());
    assert_eq!(one.keys("endpoints/n/"), ["a"]);
    let ip = addresses[0].addr().to_string();
    one.allocate("n", "c", &[&ip]).unwrap();
}

#[test]
fn a_driver_is_replaced_while_it_works() {
    let (hosts, _etcd) = lab();
    let [mut one, two] = sharing(&hosts, &json!({}));
    let (a, b) = (one.sandbox("n", "a"), two.sandbox("n", "b"));
    let (old, its) = (one.driver.take(), one.lease());
    one.start();
    let live = Reconcile {
        live: vec!["n".into()],
        endpoints: vec!["a".into()],
    };
    one.with(|driver| driver.reconcile(&call(), live)).unwrap();
    eventually("the host's key goes with the new one's lease", || {
        one.status("Member") == "yes" && one.lease() != its
    });
    // The calls that came before it end meanwhile.
    let new = std::mem::replace(&mut one.driver, old);
    one.allocate("n", "c", &[]).unwrap();
    one.driver = new;
    eventually("all is there", || two.others() == ["a", "c"]);
    one.release("n", "c");
    eventually("it was given back", || two.others() == ["a"]);
    a.reaches(&b);
}

#[test]
fn a_driver_that_was_told_of_no_network_serves_it_when_it_is_joined() {
    let (hosts, _etcd) = lab();
    let [mut one, two] = sharing(&hosts, &json!({}));
    let a = one.sandbox("n", "a");
    one.driver.take();
    one.start();
    let b = two.sandbox("n", "b");
    eventually("it is known", || one.others() == ["b"]);
    // The news of this one come before it is joined.
    one.allocate("n", "c", &[]).unwrap();
    eventually("it has come", || two.others() == ["a", "c"]);
    std::thread::sleep(Duration::from_millis(100));
    let c = one.sandbox("n", "c");
    c.reaches(&b);
    a.reaches(&b);
}

#[test]
fn a_lost_host_is_forgotten_and_gets_back_what_is_left() {
    let (hosts, _etcd) = lab();
    let [one, mut two] = sharing(&hosts, &json!({"forget": 2}));
    let first = two.allocate("n", "b", &[]).unwrap()[0].addr().to_string();
    let second = two.allocate("n", "c", &[]).unwrap();
    eventually("they are known", || one.others() == ["b", "c"]);
    two.stop();
    let mut here = Instant::now();
    eventually("it is away", || {
        let asked = Instant::now();
        let away = one.status("Hosts") == "2 (1 away)";
        if !away {
            here = asked;
        }
        away
    });
    let away = Instant::now();
    eventually("it is forgotten", || one.status("Hosts") == "1 (0 away)");
    assert!(
        here.elapsed() > Duration::from_secs(2),
        "not before its time"
    );
    // The time of grace is the driver's own, not an hour.
    assert!(
        away.elapsed() < Duration::from_secs(20),
        "{:?}",
        away.elapsed()
    );
    assert!(one.others().is_empty());
    one.allocate("n", "a", &[&first]).unwrap();
    two.start();
    let live = Reconcile {
        live: vec!["n".into()],
        endpoints: vec!["b".into(), "c".into()],
    };
    two.with(|driver| driver.reconcile(&call(), live)).unwrap();
    eventually("what is left is put back", || one.others() == ["c"]);
    let members = one
        .with(|driver| driver.members(&call(), Watch::default()))
        .unwrap();
    let addresses: Vec<_> = second.iter().map(IpNet::addr).collect();
    assert_eq!(members.members[0].addresses, addresses);
    assert_eq!(two.others(), ["a"]);
    one.release("n", "a");
    eventually("what the other let go of is its own again", || {
        one.others() == ["b", "c"]
    });
}
