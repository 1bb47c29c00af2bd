//! Hosts with an engine each, and etcd on the first of them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use gantry_e2e::{Engine, Options, eventually, run};
use gantry_fixtures::{Etcd, Host, Hosts, Namespace};
use serde_json::{Value, json};

/// Seconds after which a silent host is taken for away.
pub(crate) const LEASE: u64 = 2;
/// Seconds after which what it had is given to others: not within a test.
pub(crate) const FORGET: u64 = 300;
/// How long a look-up waits for a server that does not answer.
pub(crate) const IN_VAIN: Duration = Duration::from_secs(2);
/// What a server's page says; the rest of the tests count on its name alone.
pub(crate) const WEB: &str =
    "mkdir -p /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www";

pub(crate) struct Cluster {
    /// First, for they end first.
    engines: Vec<Engine>,
    pub(crate) etcd: Etcd,
    pub(crate) hosts: Hosts,
}

impl Cluster {
    /// `engines` hosts with an engine, `members` of which have an etcd member, and one host more that has neither.
    pub(crate) fn new(engines: u8, members: usize) -> Self {
        Self::forgetting(engines, members, FORGET)
    }

    /// The same; what a host had that is away is given to others after so many seconds.
    pub(crate) fn forgetting(engines: u8, members: usize, forget: u64) -> Self {
        let hosts = Hosts::new(engines + 1);
        let with_etcd: Vec<&Host> = hosts.iter().take(members).collect();
        let etcd = Etcd::start(&with_etcd);
        let engines = std::thread::scope(|scope| {
            let on = |n| {
                let (host, etcd) = (hosts.host(n), &etcd);
                scope.spawn(move || start(host, config(host, etcd, forget)))
            };
            let starting: Vec<_> = (1..=engines).map(on).collect();
            let started = starting.into_iter().map(|engine| engine.join());
            started.collect::<Result<_, _>>()
        });
        let engines = engines.expect("the engines start");
        Self {
            engines,
            etcd,
            hosts,
        }
    }

    /// The engine of a host.
    pub(crate) fn at(&self, host: u8) -> &Engine {
        &self.engines[usize::from(host) - 1]
    }

    pub(crate) fn at_mut(&mut self, host: u8) -> &mut Engine {
        &mut self.engines[usize::from(host) - 1]
    }

    /// The host that is not one of the cluster.
    pub(crate) fn outside(&self) -> &Host {
        self.hosts.host(self.engines.len() as u8 + 1)
    }

    /// Runs docker on a host.
    #[track_caller]
    pub(crate) fn docker(&self, host: u8, args: &str) -> String {
        self.at(host).docker(&words(args)).ok()
    }

    /// Makes a network on a host, and waits until all know it.
    #[track_caller]
    pub(crate) fn network(&self, host: u8, args: &str) {
        self.docker(host, &format!("network create -d overlay {args}"));
        let name = args.rsplit(' ').next().expect("a name");
        for engine in &self.engines {
            eventually("every host knows the network", 20, || {
                (engine.docker(&["network", "inspect", name]).code == 0).then_some(())
            });
        }
    }

    /// Starts a container that serves its name by HTTP.
    #[track_caller]
    pub(crate) fn web(&self, host: u8, args: &str) {
        let args = format!("run -d {args} busybox sh -c");
        let args = [words(&args), vec![WEB]].concat();
        self.at(host).docker(&args).ok();
    }

    /// The address of a container on a network.
    #[track_caller]
    pub(crate) fn address(&self, host: u8, container: &str, network: &str) -> Ipv4Addr {
        let format = format!("{{{{(index .NetworkSettings.Networks {network:?}).IPAddress}}}}");
        let args = ["inspect", "-f", &format, container];
        let text = self.at(host).docker(&args).ok();
        text.parse().expect("an address")
    }

    /// A container's network.
    #[track_caller]
    pub(crate) fn inside(&self, host: u8, container: &str) -> Namespace {
        let args = ["inspect", "-f", "{{.State.Pid}}", container];
        let pid = self.at(host).docker(&args).ok();
        Namespace::of_process(pid.parse().expect("a process"))
    }

    /// Whether a command succeeds in a container.
    pub(crate) fn works(&self, host: u8, container: &str, command: &str) -> bool {
        let args = [vec!["exec", container], words(command)].concat();
        self.at(host).docker(&args).code == 0
    }

    /// Waits until a command succeeds in a container.
    #[track_caller]
    pub(crate) fn comes_to_work(&self, host: u8, container: &str, command: &str) {
        eventually(&format!("{container}: {command}"), 60, || {
            self.works(host, container, command).then_some(())
        });
    }

    /// The addresses that a name has for a container.
    pub(crate) fn resolve(&self, host: u8, container: &str, name: &str) -> Vec<String> {
        let look = format!(
            "exec {container} nslookup -timeout={} -retry=1 -type=a {name}",
            IN_VAIN.as_secs()
        );
        let args = words(&look);
        let told = self.at(host).docker(&args).out;
        // The first part names the server.
        let answers = told.split("\n\n").skip(1);
        let addresses = answers.flat_map(|part| part.lines());
        let mut addresses: Vec<String> = addresses
            .filter_map(|line| line.strip_prefix("Address: "))
            .map(str::to_owned)
            .collect();
        addresses.sort();
        addresses
    }

    /// What the store has of a kind, as etcd tells it.
    fn stored(&self, kind: &str) -> Value {
        let script = format!(
            "encoded() {{ printf %s /gantry/overlay/$1 | base64 -w 0; }}
             from=$(encoded {kind}/) to=$(encoded {kind}0)
             curl -fs http://127.0.0.1:2379/v3/kv/range -d '{{\"key\": \"'$from'\", \"range_end\": \"'$to'\"}}'"
        );
        let told = self.hosts.host(1).namespace.shell(&script);
        let mut told: Value = serde_json::from_str(&told).expect("etcd answers with JSON");
        match told["kvs"].take() {
            Value::Null => json!([]),
            found => found,
        }
    }

    /// Ends everything; nothing may be left of any engine, on its host or in the store.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        std::thread::scope(|scope| {
            for engine in self.engines.drain(..) {
                scope.spawn(move || engine.finish());
            }
        });
        for kind in ["endpoints", "addresses"] {
            let left = self.stored(kind);
            assert_eq!(left, json!([]), "left in the store");
        }
    }
}

pub(crate) fn words(text: &str) -> Vec<&str> {
    text.split(' ').filter(|word| !word.is_empty()).collect()
}

/// The configuration of a host.
pub(crate) fn config(host: &Host, etcd: &Etcd, forget: u64) -> Value {
    let overlay = json!({
        "etcd": etcd.endpoints(),
        "advertise": host.address.to_string(),
        "lease": LEASE,
        "forget": forget,
    });
    json!({"drivers": {"network": {"overlay": {"options": overlay}}}})
}

/// An engine on a host.
pub(crate) fn start(host: &Host, config: Value) -> Engine {
    let engine = Engine::with(Options {
        config: Some(config),
        namespace: Some(host.namespace.path()),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    engine
}

/// Has an engine read another configuration.
#[track_caller]
pub(crate) fn reload(engine: &Engine, config: &Value) {
    const DONE: &str = "configuration reloaded";
    let before = engine.log().matches(DONE).count();
    let file = engine.dir().join("daemon.json");
    std::fs::write(file, config.to_string()).expect("the file is there");
    run("kill", &["-HUP", &engine.pid().to_string()]).ok();
    eventually("the configuration is read", 30, || {
        (engine.log().matches(DONE).count() > before).then_some(())
    });
}

/// A connection between two namespaces over which a byte goes to and fro, counted.
pub(crate) struct Talk {
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    client: JoinHandle<std::io::Result<()>>,
}

impl Talk {
    /// Connects and begins.
    #[track_caller]
    pub(crate) fn begin(from: &Namespace, to: &Namespace, address: Ipv4Addr) -> Self {
        let any = SocketAddr::from(([0, 0, 0, 0], 9000));
        let listener = to.enter(|| TcpListener::bind(any)).expect("a free port");
        std::thread::spawn(move || echo(&listener));
        let stream = from.enter(|| TcpStream::connect((address, 9000)));
        let mut stream = stream.expect("the other host is reached");
        let (count, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let client = std::thread::spawn({
            let (count, stop) = (count.clone(), stop.clone());
            move || {
                let mut byte = [7];
                while !stop.load(Ordering::Relaxed) {
                    stream.write_all(&byte)?;
                    stream.read_exact(&mut byte)?;
                    count.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(())
            }
        });
        let talk = Self {
            count,
            stop,
            client,
        };
        talk.goes_on();
        talk
    }

    /// Waits until further bytes have gone to and fro.
    #[track_caller]
    pub(crate) fn goes_on(&self) {
        let before = self.count.load(Ordering::Relaxed);
        eventually("the connection goes on", 60, || {
            (self.count.load(Ordering::Relaxed) > before + 3).then_some(())
        });
    }

    /// Ends it; it must not have broken.
    #[track_caller]
    pub(crate) fn end(self) {
        self.goes_on();
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.client.join().expect("it does not panic");
        ended.expect("the connection never broke");
    }
}

fn echo(listener: &TcpListener) {
    let Ok((mut stream, _)) = listener.accept() else {
        return;
    };
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
}

/// Sends a datagram and has it back; what the server saw as its sender.
#[track_caller]
pub(crate) fn datagram(from: &Namespace, to: &Namespace, address: Ipv4Addr) -> SocketAddr {
    let server = to.enter(|| UdpSocket::bind(("0.0.0.0", 9001)));
    let server = server.expect("a free port");
    let (sender, seen) = mpsc::channel();
    let answering = std::thread::spawn(move || {
        let mut text = [0; 64];
        let (length, from) = server.recv_from(&mut text)?;
        // Who is told is waiting for it.
        let _ = sender.send(from);
        server.send_to(&text[..length], from)
    });
    let client = from.enter(|| UdpSocket::bind(("0.0.0.0", 0)));
    let client = client.expect("a free port");
    let wait = Some(Duration::from_secs(20));
    client.set_read_timeout(wait).expect("it is not zero");
    client
        .send_to(b"ping", (address, 9001))
        .expect("it is sent");
    let mut text = [0; 64];
    let length = client.recv(&mut text).expect("it comes back");
    assert_eq!(&text[..length], b"ping");
    answering.join().expect("no panic").expect("it answers");
    seen.recv().expect("it was seen")
}
