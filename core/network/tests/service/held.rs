//! Who keeps a network that hosts share from being removed.

use std::time::{Duration, Instant};

use gantry_network::*;
use gantry_plugin_sdk::serde_json;

use super::rig::shared::host_with;
use super::rig::*;
use super::shared::hosts;

#[test]
fn who_holds_a_network_elsewhere_may_be_told_of_after_the_refusal() {
    hosts(|dir, a, b| {
        let net = a.create("net", |_| {}).unwrap();
        at_last(|| b.service.get("net").ok());
        std::fs::write(dir.join("store.late"), "").unwrap();
        let (one, joined) = a.run(dir, "one", "net");
        joined.unwrap();
        assert_eq!(b.service.peers(&net.id), []);
        let error = b.remove("net").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Forbidden, "{error}");
        assert!(error.message.contains("(name:\"one\" id:"), "{error}");
        b.end();
        // Nobody is waited for without end.
        let silent = serde_json::json!({"members": {"with": "error", "code": "unavailable", "message": "no news"}});
        let b = host_with(dir, "b", None, silent, Vec::new());
        let begun = Instant::now();
        let error = b.remove("net").unwrap_err();
        assert!(begun.elapsed() >= Duration::from_secs(1));
        assert!(error.message.ends_with("has active endpoints"), "{error}");
        a.end_container(one);
        b.remove("net").unwrap();
        a.end();
        b.end();
    });
}

#[test]
fn not_all_who_hold_a_network_are_named() {
    hosts(|dir, a, b| {
        a.create("net", |_| {}).unwrap();
        at_last(|| b.service.get("net").ok());
        let start = |host: &Other, n: usize| {
            let (sandbox, joined) = host.run(dir, &format!("c{n}"), "net");
            joined.unwrap();
            sandbox
        };
        let refusal = |host: &Other| host.remove("net").unwrap_err().message;
        let mut at_a: Vec<_> = (0..32).map(|n| start(&a, n)).collect();
        let all = refusal(&a);
        assert_eq!(all.matches("name:").count(), 32, "{all}");
        assert!(!all.contains("more"), "{all}");
        at_a.push(start(&a, 32));
        let at_b = start(&b, 33);
        let many = at_last(|| Some(refusal(&b)).filter(|text| text.contains("and 2 more")));
        assert_eq!(many.matches("name:").count(), 32, "{many}");
        assert!(many.contains("(name:\"c33\" id:"), "{many}");
        assert!(many.ends_with(", and 2 more)"), "{many}");
        at_a.into_iter()
            .for_each(|sandbox| a.end_container(sandbox));
        b.end_container(at_b);
        a.remove("net").unwrap();
        a.end();
        b.end();
    });
}
