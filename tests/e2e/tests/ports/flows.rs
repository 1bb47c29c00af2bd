//! Flows that the host or a container began from a port that is relayed: their answers are not the relay's.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use gantry_e2e::{Echo, Engine, Options, eventually};
use gantry_fixtures::{Host, Hosts, Namespace};
use serde_json::json;

use super::{SLEEP, WEB, datagram, datagram_from, docker, netd, run};

const SHORT: Duration = Duration::from_millis(500);

pub(super) fn engine(host: &Host, config: serde_json::Value) -> Engine {
    let engine = Engine::with(Options {
        namespace: Some(host.namespace.path()),
        config: Some(config),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    engine
}

fn inside(engine: &Engine, container: &str) -> Namespace {
    let pid = docker(
        engine,
        &format!("inspect -f {{{{.State.Pid}}}} {container}"),
    )
    .ok();
    Namespace::of_process(pid.parse().unwrap())
}

fn bound(network: &Namespace, at: &str) -> UdpSocket {
    let socket = network.enter(|| UdpSocket::bind(at)).unwrap();
    socket.set_read_timeout(Some(SHORT)).unwrap();
    socket
}

/// Says what it hears, after a while if that is `late`. It ends with this value.
struct Server(Arc<AtomicBool>, Option<JoinHandle<()>>);

/// How long that while is.
const LATE: Duration = Duration::from_millis(2500);

impl Server {
    fn at(network: &Namespace, at: &str) -> Self {
        let socket = bound(network, at);
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let serving = std::thread::spawn(move || {
            let mut buffer = [0; 100];
            while !told.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                if &buffer[..length] == b"late" {
                    std::thread::sleep(LATE);
                }
                socket.send_to(&buffer[..length], from).unwrap();
            }
        });
        Self(ended, Some(serving))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let ended = self.1.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking());
    }
}

/// Whether a socket that is not connected hears the answer to what it says.
fn hears(socket: &UdpSocket, server: &str) -> bool {
    socket.send_to(b"hello", server).unwrap();
    let heard = socket.recv_from(&mut [0; 100]);
    heard.is_ok_and(|(length, from)| (length, from.to_string()) == (5, server.to_owned()))
}

#[test]
fn answers_to_flows_that_began_here_are_not_relayed() {
    let hosts = Hosts::new(2);
    let (host, other) = (hosts.host(1), hosts.host(2));
    let engine = engine(host, json!({"published-ports-obey-input": true}));
    let ports = "--name echo -p 7:7/udp -p 5000-5100:5000-5100/udp";
    run(&engine, ports, SLEEP);
    let echo = Echo::inside(&engine, "echo", &[7]);
    let published = format!("{}:7", host.address);
    let relayed = || {
        eventually("the relay answers", 20, || {
            datagram_from(&other.namespace, &published, "over")
        });
    };
    relayed();
    let v4 = format!("{}:9000", other.address);
    let v6 = format!("[{}]:9000", other.address_v6);
    let here = "127.0.0.1:9000";
    let there = [&v4, &v6].map(|at| Server::at(&other.namespace, at));
    let own = Server::at(&host.namespace, here);
    for (from, to) in [
        ("0.0.0.0:5050", v4.as_str()),
        ("0.0.0.0:5051", here),
        ("[::]:5052", &v6),
    ] {
        let socket = bound(&host.namespace, from);
        eventually(&format!("{from} hears {to}"), 30, || {
            hears(&socket, to).then_some(())
        });
        // Who comes from elsewhere is the container's client, whoever has that port here.
        relayed();
    }
    // A container's own number is kept on the way out, where it is free.
    let socket = bound(&inside(&engine, "echo"), "0.0.0.0:5000");
    eventually("the container hears the answer", 30, || {
        hears(&socket, &v4).then_some(())
    });
    drop((echo, socket, there, own));
    engine.finish();
}

#[test]
fn what_the_kernel_translates_is_not_relayed() {
    let hosts = Hosts::new(1);
    let host = hosts.host(1);
    let engine = engine(host, json!({}));
    // Where bridges call the host's chains, what is led there gets lost, and goes where it would have gone.
    host.namespace
        .shell("! cd /proc/sys/net/bridge || echo 0 >bridge-nf-call-ip6tables");
    docker(&engine, "network create --ipv6 six").ok();
    run(&engine, "--name web --network six -p 8080:80", WEB);
    let at = format!("http://[{}]:8080/", host.address_v6);
    let page = |port: u16| {
        let line = format!("curl -gsf -m 3 --local-port {port} {at}");
        host.namespace.try_shell(&line).ok()
    };
    eventually("the server answers", 20, || page(5000));
    // Over IPv6 these are relayed.
    run(&engine, "--name four -p 5001-5100:5001-5100", SLEEP);
    eventually("it answers who asks from such a port", 30, || page(5050));
    engine.finish();
}

#[test]
fn a_client_whose_flow_the_kernel_forgot_is_relayed() {
    let hosts = Hosts::new(2);
    let (host, other) = (hosts.host(1), hosts.host(2));
    let engine = engine(host, json!({"published-ports-obey-input": true}));
    run(&engine, "--name echo -p 7:7/udp", SLEEP);
    let server = Server::at(&inside(&engine, "echo"), "0.0.0.0:7");
    let client = bound(&other.namespace, "0.0.0.0:0");
    client.connect((host.address, 7)).unwrap();
    let remember = |seconds: u8| {
        host.namespace.shell(&format!(
            "for kind in udp_timeout udp_timeout_stream; do echo {seconds} >/proc/sys/net/netfilter/nf_conntrack_$kind; done"
        ));
    };
    let heard = |text: &str| eventually("it answers", 20, || datagram(&client, text));
    heard("hello");
    // The answer comes when nothing is known of the question: to the kernel the flow begins with it.
    remember(1);
    std::thread::sleep(LATE);
    client.send(b"late").unwrap();
    std::thread::sleep(LATE / 2);
    remember(120);
    std::thread::sleep(LATE);
    // Without its socket the relay has to be led what the client says.
    let pid = netd(&engine)
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    gantry_e2e::run("kill", &["-9", &pid]).ok();
    while client.recv(&mut [0; 100]).is_ok() {}
    heard("again");
    drop(server);
    engine.finish();
}
