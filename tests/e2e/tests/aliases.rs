//! A stack of docker compose spread over two networks, with other names on each, while its daemon is killed.

use std::path::Path;

use gantry_e2e::{Engine, eventually, free_port, run, run_env};
use gantry_fixtures::Namespace;

fn compose(engine: &Engine, port: u16, args: &[&str]) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("stacks/aliases/compose.yaml");
    let environment = [
        ("DOCKER_HOST", engine.host()),
        ("PORT", port.to_string()),
        ("COMPOSE_ANSI", "never".into()),
        ("COMPOSE_PROGRESS", "quiet".into()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let mut line = vec!["-f", file.to_str().expect("the path is text")];
    line.extend(args);
    let program = std::env::var("GANTRY_TEST_COMPOSE").unwrap_or_else(|_| "docker-compose".into());
    run_env(program, &line, &environment).ok();
}

/// The network of a service's container.
fn inside(engine: &Engine, service: &str) -> Namespace {
    let name = format!("aliases-{service}-1");
    let pid = engine.docker(&["inspect", "-f", "{{.State.Pid}}", &name]);
    Namespace::of_process(pid.ok().parse().expect("it runs"))
}

/// Whom each service finds under which name, and whom it does not; the daemon need not be there.
fn look(places: &[(&str, Namespace)], port: u16) {
    for (from, names) in [
        (
            "proxy",
            [
                ("app", true),
                ("shop", true),
                ("ledger", false),
                ("db", false),
                ("store", false),
            ],
        ),
        (
            "store",
            [
                ("app", true),
                ("shop", false),
                ("ledger", true),
                ("db", true),
                ("proxy", false),
            ],
        ),
        (
            "app",
            [
                ("proxy", true),
                ("store", true),
                ("db", true),
                ("shop", true),
                ("ledger", true),
            ],
        ),
    ] {
        let place = places.iter().find(|(service, _)| *service == from);
        let place = &place.expect("it was looked up").1;
        for (name, known) in names {
            let lookup = format!("busybox nslookup {name} 127.0.0.11");
            let asked = place.try_shell(&lookup);
            assert_eq!(asked.is_ok(), known, "{from} asks for {name}: {asked:?}");
        }
    }
    let page = run(
        "curl",
        &["-s", "-m", "5", &format!("http://127.0.0.1:{port}/")],
    );
    assert_eq!(page.ok(), "app");
}

#[test]
fn a_service_between_two_networks_and_a_daemon_that_is_killed() {
    let mut engine = Engine::start();
    let port = free_port();
    compose(&engine, port, &["up", "-d"]);
    let places = ["app", "proxy", "store"].map(|service| (service, inside(&engine, service)));
    let ask = |engine: &Engine, from: &str, whom: &str| {
        let (name, url) = (format!("aliases-{from}-1"), format!("http://{whom}/"));
        let wget = ["exec", &name, "timeout", "2", "wget", "-qO-", &url];
        let done = engine.docker(&wget);
        (done.code == 0).then_some(done.out)
    };
    for (from, whom, page) in [
        ("proxy", "shop", "app\n"),
        ("store", "ledger", "app\n"),
        ("app", "db", "store\n"),
    ] {
        let got = eventually("a service reaches another", 20, || ask(&engine, from, whom));
        assert_eq!(got, page);
    }
    look(&places, port);
    let routes = |service: usize| places[service].1.shell("ip route");
    assert!(routes(0).contains("default") && !routes(2).contains("default"));

    engine.kill9();
    look(&places, port);
    engine.boot();
    look(&places, port);
    assert_eq!(ask(&engine, "proxy", "shop").as_deref(), Some("app\n"));
    // A new container of the service has the names of the one before.
    drop(places);
    compose(&engine, port, &["up", "-d", "--force-recreate", "app"]);
    let places = ["app", "proxy", "store"].map(|service| (service, inside(&engine, service)));
    eventually("the new one answers", 20, || {
        ask(&engine, "store", "ledger")
    });
    look(&places, port);
    drop(places);
    compose(&engine, port, &["down", "-t", "1"]);
    engine.finish();
}
