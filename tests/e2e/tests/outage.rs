//! A daemon that is killed and started again, while containers, other hosts and the host go on talking.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use gantry_e2e::{Done, Echo, Engine, Options, eventually};
use gantry_fixtures::{Hosts, Namespace};

fn docker(engine: &Engine, line: &str) -> Done {
    engine.docker(&line.split(' ').collect::<Vec<_>>())
}

/// A connection over which what is said comes back.
fn echo(from: &Namespace, address: &str) -> TcpStream {
    eventually(&format!("{address} answers"), 20, || {
        let connected = from.enter(|| {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            Ok(stream)
        });
        let mut stream = connected.ok()?;
        said(&mut stream, "hello").then_some(stream)
    })
}

fn said(stream: &mut TcpStream, text: &str) -> bool {
    let mut back = vec![0; text.len()];
    stream.write_all(text.as_bytes()).is_ok()
        && stream.read_exact(&mut back).is_ok()
        && back == text.as_bytes()
}

/// Does something again and again until `stop`, and counts.
fn repeat(stop: &AtomicBool, count: &AtomicU32, work: impl Fn()) {
    while !stop.load(Ordering::Relaxed) {
        work();
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn no_connection_breaks_and_no_lookup_fails() {
    let hosts = Hosts::new(2);
    let (host, other) = (hosts.host(1), hosts.host(2));
    let mut engine = Engine::with(Options {
        namespace: Some(host.namespace.path()),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    docker(&engine, "network create app").ok();
    docker(
        &engine,
        "run -d --name db --network app --network-alias store -p 7:7 busybox sleep 600",
    )
    .ok();
    docker(&engine, "run -d --name box --network app busybox sleep 600").ok();
    let server = Echo::inside(&engine, "db", &[7]);
    let inside = docker(&engine, "inspect -f {{.State.Pid}} box").ok();
    let inside = Namespace::of_process(inside.parse().unwrap());
    let direct = docker(
        &engine,
        "inspect -f {{.NetworkSettings.Networks.app.IPAddress}} db",
    );
    let direct = format!("{}:7", direct.ok());
    let published = format!("{}:7", host.address);
    let mut long = [
        echo(&other.namespace, &published),
        echo(&host.namespace, "127.0.0.1:7"),
        echo(&host.namespace, "[::1]:7"),
        echo(&inside, &direct),
    ];
    // Elements of sets come in any order.
    let rules = || {
        let text = host.namespace.shell("nft -s list ruleset");
        let words = text.split(|c: char| c.is_whitespace() || c == ',');
        let mut words: Vec<String> = words.map(str::to_owned).collect();
        words.sort();
        words
    };
    let (before, links) = (rules(), host.namespace.shell("ip -o link | wc -l"));
    let (stop, looked_up, connected) =
        (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            repeat(&stop, &looked_up, || {
                // By the container's own files: search domains, options and the internal server.
                for name in ["db", "store", "db.app"] {
                    let found = inside.try_shell(&format!("busybox nslookup {name} 127.0.0.11"));
                    assert!(found.is_ok(), "{name}: {found:?}");
                }
            });
        });
        scope.spawn(|| {
            repeat(&stop, &connected, || {
                drop(echo_once(&other.namespace, &published))
            })
        });
        for _ in 0..2 {
            engine.kill9();
            let (names, connections) = (
                looked_up.load(Ordering::Relaxed),
                connected.load(Ordering::Relaxed),
            );
            for stream in &mut long {
                assert!(said(stream, "without a daemon"));
            }
            eventually("names and ports were used without a daemon", 30, || {
                let more = looked_up.load(Ordering::Relaxed) > names + 1
                    && connected.load(Ordering::Relaxed) > connections + 1;
                more.then_some(())
            });
            engine.boot();
            for stream in &mut long {
                assert!(said(stream, "with another daemon"));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(rules(), before, "rules are as they were");
    assert_eq!(host.namespace.shell("ip -o link | wc -l"), links);
    // Sockets keep the networks that they were made in.
    drop((server, inside, long));
    docker(&engine, "rm -f db box").ok();
    docker(&engine, "network rm app").ok();
    engine.finish();
}

/// One connection, which must work at once.
fn echo_once(from: &Namespace, address: &str) -> TcpStream {
    let stream = from.enter(|| {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(stream)
    });
    let mut stream = stream.expect("a published port is reached");
    assert!(said(&mut stream, "hello"));
    stream
}
