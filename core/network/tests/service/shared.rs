//! Networks that hosts share: two services with one store. The driver makes no links.

use std::path::Path;
use std::sync::mpsc;

use gantry_network::*;
use gantry_plugin_sdk::serde_json;

use super::ip;
use super::rig::shared::{host, host_of, host_with};
use super::rig::*;

/// Hosts `a` and `b` with a store.
pub(crate) fn hosts(test: impl FnOnce(&Path, Other, Other) + Send) {
    Rig::run(None, |rig| {
        let dir = rig.dir.path();
        test(dir, host(dir, "a", None), host(dir, "b", None));
    });
}

/// Changes what the store holds while no host does.
fn rewrite(dir: &Path, revision: u64, change: impl FnOnce(&mut serde_json::Value)) {
    let lock = std::fs::File::create(dir.join("store.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let store = dir.join("store");
    let mut content = serde_json::from_slice(&std::fs::read(&store).unwrap()).unwrap();
    change(&mut content);
    content["revision"] = serde_json::json!(revision);
    std::fs::write(dir.join("changed"), content.to_string()).unwrap();
    std::fs::rename(dir.join("changed"), &store).unwrap();
}

#[test]
fn a_network_is_made_on_one_host_and_known_and_removed_on_all() {
    hosts(|dir, a, b| {
        let made = a
            .create("net", |n| {
                n.labels = [("k".to_owned(), "v".to_owned())].into();
                n.attachable = true;
                n.enable_ipv6 = true;
            })
            .unwrap();
        assert_eq!(made.scope, Scope::Global);
        assert_eq!(
            made.ipam.pools[0].subnet.unwrap().to_string(),
            "10.99.1.0/24"
        );
        assert_eq!(made.ipam.pools[0].gateway, ip("10.99.1.1"));
        assert!(
            made.options.contains_key("mock.number"),
            "the driver's own options are kept"
        );
        let seen = at_last(|| b.service.get("net").ok());
        assert_eq!(seen, made);
        let error = b.create("net", |_| {}).unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (ErrorKind::Conflict, "network with name net already exists")
        );
        b.end();
        // It is known without the store.
        std::fs::write(dir.join("store.away"), "").unwrap();
        let b = host(dir, "b", None);
        assert_eq!(b.service.get(made.id.as_str()).unwrap(), made);
        let error = b.create("other", |_| {}).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
        let error = b.remove("net").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
        std::fs::remove_file(dir.join("store.away")).unwrap();
        assert_eq!(b.remove("net").unwrap(), made);
        at_last(|| a.service.get("net").is_err().then_some(()));
        // What was removed does not come back with a late answer, and its name is free.
        for _ in 0..20 {
            let again = b.create("net", |_| {}).unwrap();
            assert_eq!(
                b.service.list().iter().filter(|n| n.name == "net").count(),
                1
            );
            assert_eq!(b.remove("net").unwrap(), again);
            assert!(b.service.get("net").is_err());
        }
        a.end();
        b.end();
    });
}

#[test]
fn what_other_hosts_do_is_told_once_and_what_this_one_does_is_not() {
    hosts(|dir, a, b| {
        let listen = |host: &Other| {
            let (sender, told) = mpsc::channel();
            host.service.on_shared_change(move |change, record| {
                sender.send((change, record.id.clone())).unwrap();
            });
            told
        };
        let (at_a, at_b) = (listen(&a), listen(&b));
        let made = a.create("net", |_| {}).unwrap();
        at_last(|| b.service.get("net").ok());
        assert_eq!(at_b.recv().unwrap(), (SharedChange::Made, made.id.clone()));
        let (one, joined) = b.run(dir, "one", "net");
        joined.unwrap();
        b.end_container(one);
        b.remove("net").unwrap();
        assert_eq!(at_a.recv().unwrap(), (SharedChange::Removed, made.id));
        // A later change of the set: nothing of the former ones is told again.
        let made = b.create("other", |_| {}).unwrap();
        assert_eq!(at_a.recv().unwrap(), (SharedChange::Made, made.id));
        b.remove("other").unwrap();
        at_last(|| a.service.get("other").is_err().then_some(()));
        a.end();
        b.end();
        assert_eq!(at_a.iter().count(), 1);
        assert_eq!(at_b.iter().count(), 0);
    });
}

#[test]
fn what_others_share_keeps_no_host_from_its_own_subnets() {
    hosts(|dir, a, b| {
        let net = a.create("net", |_| {}).unwrap();
        at_last(|| b.service.get("net").ok());
        b.end();
        let b = host_of(dir, "b", serde_json::json!({}), Vec::new(), |config| {
            config.bridge.bip = Some("10.99.1.1/24".parse().unwrap());
        });
        let bridge = b.service.get("bridge").unwrap();
        assert_eq!(bridge.ipam.pools[0].subnet, net.ipam.pools[0].subnet);
        b.end();
        a.remove("net").unwrap();
        a.end();
    });
}

#[test]
fn addresses_are_the_drivers_to_give_and_hold_the_network_on_every_host() {
    hosts(|dir, a, b| {
        let net = a.create("net", |_| {}).unwrap();
        at_last(|| b.service.get("net").ok());
        let (one, at_a) = a.run(dir, "one", "net");
        let (two, at_b) = b.run(dir, "two", "net");
        let (at_a, at_b) = (at_a.unwrap(), at_b.unwrap());
        assert_eq!((at_a.ipv4, at_a.ipv4_prefix), (ip("10.99.1.2"), 24));
        assert_eq!(at_b.ipv4, ip("10.99.1.3"));
        let three = b.sandbox(dir, "three");
        let wish = |address: &str| EndpointConfig {
            ipv4: ip(address),
            ..EndpointConfig::default()
        };
        let error = b.join(&three, "net", wish("10.99.1.2")).unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (ErrorKind::Forbidden, "Address already in use")
        );
        let error = b.join(&three, "net", wish("10.98.0.1")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
        let joined = b.join(&three, "net", wish("10.99.1.77")).unwrap();
        assert_eq!(joined.ipv4, ip("10.99.1.77"));
        b.end_container(three);
        let in_use = format!(
            "error while removing network: network net id {} has active endpoints (name:\"one\" id:{:?} host:\"a\")",
            net.id,
            at_a.endpoint.short()
        );
        b.end_container(two);
        assert_eq!(b.service.members(&net.id).len(), 0);
        let peers = at_last(|| Some(b.service.peers(&net.id)).filter(|p| !p.is_empty()));
        assert_eq!(peers[0].name, "a");
        let error = b.remove("net").unwrap_err();
        assert_eq!((error.kind, error.message), (ErrorKind::Forbidden, in_use));
        let pruned = b.block(b.service.prune(|_| true)).unwrap();
        assert_eq!(pruned, [], "it is in use on another host");
        // The refusal changed nothing.
        let (four, at_b) = b.run(dir, "four", "net");
        assert_eq!(at_b.unwrap().ipv4, ip("10.99.1.3"));
        b.end_container(four);
        a.end_container(one);
        b.remove("net").unwrap();
        a.end();
        b.end();
    });
}

#[test]
fn without_the_store_nobody_joins_and_those_who_did_stay() {
    hosts(|dir, a, b| {
        a.create("net", |_| {}).unwrap();
        let (one, joined) = a.run(dir, "one", "net");
        let joined = joined.unwrap();
        std::fs::write(dir.join("store.away"), "").unwrap();
        let (two, refused) = a.run(dir, "two", "net");
        let error = refused.unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (ErrorKind::Unavailable, "the store does not answer")
        );
        assert_eq!(a.service.endpoints(&two.container), Vec::new());
        assert_eq!(a.service.endpoints(&one.container), [joined]);
        std::fs::remove_file(dir.join("store.away")).unwrap();
        let joined = a.join(&two, "net", EndpointConfig::default()).unwrap();
        assert_eq!(
            joined.ipv4,
            ip("10.99.1.3"),
            "nothing of the attempt is left"
        );
        a.end_container(one);
        a.end_container(two);
        // Removed elsewhere while somebody here is on it (its host was taken for lost): it goes with the last one.
        at_last(|| b.service.get("net").ok());
        let (three, joined) = b.run(dir, "three", "net");
        joined.unwrap();
        let mut networks = serde_json::Value::Null;
        rewrite(dir, 1000, |content| {
            networks = content["networks"].take();
            content["networks"] = serde_json::json!({"odd": {"id": "odd", "name": "odd", "created": "", "enable_ipv4": true}});
            content["endpoints"] = serde_json::json!({});
        });
        at_last(|| a.service.get("net").is_err().then_some(()));
        assert!(b.service.get("net").is_ok());
        b.end_container(three);
        at_last(|| b.service.get("net").is_err().then_some(()));
        // The store is put back as it was: what went with its loss is known again.
        rewrite(dir, 2000, |content| content["networks"] = networks);
        at_last(|| a.service.get("net").ok());
        at_last(|| b.service.get("net").ok());
        a.end();
        b.end();
    });
}

#[test]
fn parallel_starts_on_both_hosts_get_different_addresses() {
    hosts(|dir, a, b| {
        a.create("net", |_| {}).unwrap();
        at_last(|| b.service.get("net").ok());
        let start = |host: &Other, n: usize| {
            let (service, spec) = (host.service.clone(), sandbox_spec(dir, &format!("c{n}")));
            host.spawn(async move {
                let sandbox = service.sandbox(spec).await.unwrap();
                let id = sandbox.container;
                let joined = service.connect(&id, "net", EndpointConfig::default()).await;
                (id, joined.unwrap().ipv4.unwrap())
            })
        };
        let at_a: Vec<_> = (0..10).map(|n| start(&a, n)).collect();
        let at_b: Vec<_> = (10..20).map(|n| start(&b, n)).collect();
        let at_a: Vec<_> = at_a.into_iter().map(|t| a.block(t).unwrap()).collect();
        let at_b: Vec<_> = at_b.into_iter().map(|t| b.block(t).unwrap()).collect();
        let all: std::collections::HashSet<_> = at_a.iter().chain(&at_b).map(|c| c.1).collect();
        assert_eq!(all.len(), 20);
        for (host, containers) in [(&a, at_a), (&b, at_b)] {
            for (id, _) in containers {
                host.block(host.service.release(&id)).unwrap();
            }
        }
        a.remove("net").unwrap();
        a.end();
        b.end();
    });
}

#[test]
fn a_creation_whose_answer_was_lost_is_taken_back() {
    Rig::run(None, |rig| {
        let dir = rig.dir.path();
        let b = host(dir, "b", None);
        let lost = serde_json::json!({"share_done": {"with": "error", "code": "unavailable", "message": "no answer"}});
        let a = host_with(dir, "a", None, lost, Vec::new());
        let error = a.create("net", |_| {}).unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (ErrorKind::Unavailable, "no answer")
        );
        let made = at_last(|| b.create("net", |_| {}).ok());
        // It may have heard of its own before that was taken back.
        at_last(|| a.service.get("net").ok().filter(|net| *net == made));
        a.end();
        b.remove("net").unwrap();
        b.end();
    });
}

#[test]
fn a_failed_creation_is_taken_back_everywhere() {
    Rig::run(None, |rig| {
        let dir = rig.dir.path();
        let b = host(dir, "b", None);
        let a = host_with(
            dir,
            "a",
            None,
            serde_json::json!({"create_network": {"with": "error", "code": "internal", "message": "no links today"}}),
            Vec::new(),
        );
        let error = a.create("net", |_| {}).unwrap_err();
        assert_eq!(error.message, "no links today");
        assert!(a.service.get("net").is_err());
        // The other host may have seen it come and go.
        let made = at_last(|| b.create("net", |_| {}).ok());
        at_last(|| a.service.get("net").ok().filter(|net| *net == made));
        a.end();
        b.remove("net").unwrap();
        b.end();
    });
}
