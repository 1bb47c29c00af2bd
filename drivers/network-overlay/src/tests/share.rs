//! What the hosts agree on.

use std::collections::BTreeSet;

use gantry_plugin_sdk::{ErrorCode, Reconcile};

use super::*;
use crate::options::VNI;

#[test]
fn names_numbers_and_subnets_are_unique_whoever_is_first() {
    let (hosts, _etcd) = lab();
    let both = two(&hosts, &json!({}));
    let same: Vec<_> = std::thread::scope(|scope| {
        let share = |(at, host)| {
            let mut wish = network_of(&format!("same{at}"));
            wish.name = "same".into();
            scope.spawn(move || Host::share(host, wish))
        };
        let all: Vec<_> = both.iter().enumerate().map(share).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let refused: Vec<_> = same.iter().filter_map(|r| r.as_ref().err()).collect();
    assert_eq!(refused.len(), 1, "{same:?}");
    assert_eq!(refused[0].code, ErrorCode::AlreadyExists);
    assert_eq!(refused[0].message, "network with name same already exists");
    let made: Vec<SharedNetwork> = std::thread::scope(|scope| {
        let share = |n: usize| {
            let host = &both[n % 2];
            scope.spawn(move || host.share(network_of(&format!("n{n}"))).unwrap())
        };
        let all: Vec<_> = (0..8).map(share).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let vnis: BTreeSet<&String> = made.iter().map(|n| &n.options[VNI]).collect();
    let subnets = made
        .iter()
        .flat_map(|n| n.pools.iter().map(|p| p.subnet.unwrap()));
    assert_eq!(
        (vnis.len(), subnets.collect::<BTreeSet<_>>().len()),
        (8, 16)
    );
    assert_eq!(
        both[1].share(network_of("n0")).unwrap(),
        made[0],
        "it is the same"
    );
    let mut wish = network_of("overlapping");
    wish.pools.clone_from(&made[0].pools);
    assert_eq!(
        both[0].share(wish).unwrap_err().code,
        ErrorCode::PermissionDenied
    );
    let mut wish = network_of("numbered");
    wish.options
        .insert(VNI.into(), made[0].options[VNI].clone());
    assert_eq!(both[0].share(wish).unwrap_err().code, ErrorCode::Conflict);
    for host in &both {
        eventually("all are known", || {
            let all = host.with(|driver| driver.shared(&call(), Watch::default()));
            all.is_ok_and(|all| all.networks.len() == 9)
        });
        let known = host.create("n3");
        assert_eq!(known, made[3]);
    }
}

#[test]
fn a_network_with_endpoints_anywhere_is_not_taken_back() {
    let (hosts, _etcd) = lab();
    let [one, two] = sharing(&hosts, &json!({}));
    two.allocate("n", "e", &[]).unwrap();
    let unshare = |host: &Host| {
        let network = NetworkRef { id: "n".into() };
        host.with(|driver| driver.unshare(&call(), network))
    };
    assert_eq!(
        unshare(&one).unwrap_err().code,
        ErrorCode::FailedPrecondition
    );
    two.release("n", "e");
    let before = two
        .with(|driver| driver.shared(&call(), Watch::default()))
        .unwrap();
    std::thread::scope(|scope| {
        let (two, since) = (&two, before.revision);
        let watch = move || two.with(|driver| driver.shared(&call(), Watch { since }));
        let waiter = scope.spawn(watch);
        unshare(&one).unwrap();
        assert!(waiter.join().unwrap().unwrap().networks.is_empty());
    });
    unshare(&one).unwrap();
    eventually("it is gone", || {
        let gone = two.allocate("n", "e", &[]);
        gone.is_err_and(|e| e.code == ErrorCode::NotFound)
    });
}

#[test]
fn nobody_gets_the_address_of_another() {
    let (hosts, _etcd) = lab();
    let both = two(&hosts, &json!({}));
    let mut wish = network_of("n");
    wish.enable_ipv6 = false;
    wish.pools = vec![gantry_plugin_sdk::network::SharedPool {
        subnet: Some("10.7.0.0/27".parse().unwrap()),
        reserved: [("printer".into(), "10.7.0.9".parse().unwrap())].into(),
        ..Default::default()
    }];
    both[0].share(wish).unwrap();
    for host in &both {
        host.create("n");
    }
    let kept = both[0].allocate("n", "wished", &["10.7.0.20"]).unwrap();
    assert_eq!(kept, ["10.7.0.20/27".parse().unwrap()]);
    assert_eq!(
        both[0].allocate("n", "wished", &[]).unwrap(),
        kept,
        "it has it"
    );
    // Of 30 addresses the gateway, the printer's and the wished one are not free.
    let given: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..4)
            .map(|thread: usize| {
                let host = &both[thread % 2];
                let endpoints = 0..if thread == 3 { 6 } else { 7 };
                scope.spawn(move || {
                    let give = |n| host.allocate("n", &format!("e{thread}-{n}"), &[]).unwrap();
                    endpoints.map(give).collect::<Vec<_>>()
                })
            })
            .collect();
        all.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    let different: BTreeSet<_> = given.iter().flatten().collect();
    assert_eq!(different.len(), 27);
    assert!(!different.contains(&kept[0]));
    for (wish, code) in [
        (&[][..], ErrorCode::ResourceExhausted),
        (&["10.7.0.20"][..], ErrorCode::Conflict),
        (&["10.7.0.1"][..], ErrorCode::Conflict),
        (&["10.7.0.0"][..], ErrorCode::Conflict),
        (&["10.7.0.31"][..], ErrorCode::Conflict),
        (&["10.8.0.1"][..], ErrorCode::InvalidArgument),
    ] {
        let refused = both[1].allocate("n", "late", wish).unwrap_err();
        assert_eq!(refused.code, code, "{wish:?}: {refused}");
    }
    both[0].release("n", "wished");
    both[0].release("n", "wished");
    eventually("it is free again", || {
        both[1].allocate("n", "late", &["10.7.0.20"]).is_ok()
    });
    // What core knows nothing of is given back.
    let live = Reconcile {
        live: vec!["n".into()],
        endpoints: vec!["e1-0".into()],
    };
    both[1]
        .with(|driver| gantry_plugin_sdk::Driver::reconcile(driver, &call(), live))
        .unwrap();
    eventually("one is left", || both[0].others() == ["e1-0"]);
}

#[test]
fn without_a_cluster_the_driver_says_what_is_missing() {
    let (hosts, _etcd) = lab();
    let host = Host::new(hosts.host(1), &json!({"etcd": []}));
    let refused = host.share(network_of("n")).unwrap_err();
    assert_eq!(refused.code, ErrorCode::FailedPrecondition);
    assert!(refused.message.contains("\"etcd\""), "{refused}");
    let refused = host.with(|driver| driver.shared(&call(), Watch::default()));
    assert_eq!(refused.unwrap_err().code, ErrorCode::FailedPrecondition);
    host.release("n", "e");
    let member = Host::new(hosts.host(2), &json!({}));
    let mut silent = network_of("n");
    (silent.enable_ipv4, silent.enable_ipv6) = (false, false);
    for wrong in [network_of("../n"), silent] {
        let refused = member.share(wrong).unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidArgument, "{refused}");
    }
}
