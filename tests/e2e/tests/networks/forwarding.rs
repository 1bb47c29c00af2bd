//! Hosts that forward nothing.

use gantry_e2e::{Engine, Options, docker};
use gantry_fixtures::Namespace;

#[test]
fn containers_are_told_when_the_host_does_not_forward() {
    const WARNING: &str = "WARNING: IPv4 forwarding is disabled. Networking will not work.";
    let host = Namespace::new();
    let forwarding = |value: &str| {
        host.shell(&format!("echo {value} >/proc/sys/net/ipv4/ip_forward"));
    };
    forwarding("0");
    let engine = Engine::with(Options {
        args: vec!["--ip-forward=false".into()],
        namespace: Some(host.path()),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    let warned = |line: &str| {
        let done = docker(&engine, line);
        assert_eq!(done.code, 0, "{done:?}");
        done.err.contains(WARNING)
    };
    assert!(warned("run --rm busybox true"));
    assert!(warned("create --name later busybox true"));
    // What has no use for it hears nothing.
    assert!(!warned("run --rm --network none busybox true"));
    assert!(!warned("run --rm --network host busybox true"));
    assert!(!warned("start later"));
    forwarding("1");
    assert!(!warned("run --rm busybox true"));
    engine.finish();
}
