//! What starts before what.

use gantry_e2e::{Engine, Options};

use crate::{becomes, inspect, run, state};

#[test]
fn what_is_required_starts_first() {
    let engine = Engine::start();
    let gantry = |flags: &[&str], command: &str| {
        let mut args = vec!["create", "--network", "none", "--stop-timeout", "0"];
        args.extend(flags);
        args.extend(["busybox", "sh", "-c", command]);
        engine.gantry(&args)
    };
    let healthy = [
        "--name",
        "cache",
        "--health-cmd",
        "test -e /ready",
        "--health-interval",
        "100ms",
        "--health-start-period",
        "30s",
        "--health-start-interval",
        "100ms",
    ];
    gantry(&["--name", "db"], "sleep 600").ok();
    gantry(&healthy, "sleep 1; touch /ready; sleep 600").ok();
    gantry(
        &["--name", "web", "--requires", "db,cache:healthy"],
        "sleep 600",
    )
    .ok();
    engine.docker(&["start", "web"]).ok();
    for name in ["db", "cache", "web"] {
        assert_eq!(state(&engine, name), "running", "{name}");
    }
    assert_eq!(
        inspect(&engine, "{{.State.Health.Status}}", "cache"),
        "healthy"
    );
    let started = |name| inspect(&engine, "{{.State.StartedAt}}", name);
    assert!(started("web") > started("cache") && started("cache") > started("db"));
    assert_eq!(
        engine
            .gantry(&["inspect", "-f", "{{.HostConfig.Requires}}", "web"])
            .ok(),
        "[db cache:healthy]"
    );
    // Those that depend on it do not end with it.
    engine.docker(&["stop", "db"]).ok();
    assert_eq!(state(&engine, "web"), "running");
    engine.docker(&["restart", "web"]).ok();
    assert_eq!(state(&engine, "db"), "running");

    for (requires, words) in [
        ("nosuch", "No such container: nosuch"),
        ("db:healthy", "has no health check"),
        ("db:sometimes", "unknown condition"),
    ] {
        gantry(&["--requires", requires], "true").fails(1, words);
    }
    // A circle is closed by a name that is given again.
    engine.docker(&["stop", "web"]).ok();
    engine.docker(&["rm", "-f", "db"]).ok();
    engine
        .docker(&["start", "web"])
        .fails(1, "requirement \"db\": No such container: db");
    gantry(&["--name", "db", "--requires", "web"], "true")
        .fails(1, "containers require each other: db -> web -> db");
    // What cannot start fails whoever requires it.
    gantry(&["--name", "db", "--entrypoint", "/nosuch"], "true").ok();
    engine
        .docker(&["start", "web"])
        .fails(1, "requirement \"db\": failed to create task");
    assert_eq!(state(&engine, "web"), "exited");
    engine.finish();
}

#[test]
fn containers_start_in_order_with_the_machine() {
    let mut engine = Engine::with(Options {
        boot_id: Some("first".into()),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    run(
        &engine,
        &["--name", "zz-base", "--restart", "always"],
        "sleep 600",
    );
    let joins = [
        "run",
        "-d",
        "--name",
        "aa-joins",
        "--restart",
        "unless-stopped",
        "--network",
        "container:zz-base",
        "--pid",
        "container:zz-base",
        "busybox",
        "sleep",
        "600",
    ];
    engine.docker(&joins).ok();
    let requires = [
        "run",
        "-d",
        "--name",
        "bb-requires",
        "--restart",
        "always",
        "--requires",
        "aa-joins",
        "--network",
        "none",
        "busybox",
        "sleep",
        "600",
    ];
    engine.gantry(&requires).ok();
    engine.reboot("second");
    for name in ["zz-base", "aa-joins", "bb-requires"] {
        becomes(&engine, name, "running");
        // None had to be tried twice.
        assert_eq!(inspect(&engine, "{{.RestartCount}}", name), "1", "{name}");
    }
    engine.finish();
}
