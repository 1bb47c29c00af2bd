//! What containers are told of names, by name servers of the tests' own on a host of its own.

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Stdio};

use gantry_e2e::{Done, Engine, Options, eventually};
use gantry_fixtures::{Hosts, Namespace};

/// A name server that knows one address for everything, answers some kinds of questions by itself, and says "server failed"
/// or nothing at all for names that ask for it.
const SERVER: &str = r#"
import socket, socketserver, struct, sys
address, known = sys.argv[1], socket.inet_aton(sys.argv[2])
def name_of(q):
    at, labels = 12, []
    while q[at]:
        labels.append(q[at + 1:at + 1 + q[at]].decode().lower())
        at += 1 + q[at]
    return '.'.join(labels), at + 1
def answer(q):
    name, at = name_of(q)
    kind = struct.unpack('!H', q[at:at + 2])[0]
    code, data = 0, None
    if name.startswith('fails'):
        code = 2
    elif name.startswith('missing'):
        code = 3
    elif kind == 1:
        data = known
    elif kind == 16:
        data = b'\x05hello'
    elif kind == 15:
        data = b'\x00\x0a\x04mail\xc0\x0c'
    elif kind == 33:
        data = struct.pack('!HHH', 1, 2, 5060) + b'\x03sip\x07example\x00'
    head = q[:2] + struct.pack('!HHHHH', 0x8180 | code, 1, 1 if data else 0, 0, 0)
    record = b'\xc0\x0c' + struct.pack('!HHIH', kind, 1, 60, len(data)) + data if data else b''
    return head + q[12:at + 4] + record
class Tcp(socketserver.BaseRequestHandler):
    def handle(self):
        q = self.request.recv(2000)
        a = answer(q[2:])
        self.request.sendall(struct.pack('!H', len(a)) + a)
family = socket.AF_INET6 if ':' in address else socket.AF_INET
class Server(socketserver.ThreadingTCPServer):
    address_family = family
import threading
threading.Thread(target=Server((address, 53), Tcp).serve_forever, daemon=True).start()
udp = socket.socket(family, socket.SOCK_DGRAM)
udp.bind((address, 53))
while True:
    q, peer = udp.recvfrom(4096)
    udp.sendto(answer(q), peer)
"#;

struct Server(Child);

impl Server {
    fn at(network: &Namespace, address: &str, known: &str) -> Self {
        let child = network
            .command("python3")
            .args(["-c", SERVER, address, known])
            .stdin(Stdio::null())
            .spawn()
            .expect("python3 is installed");
        let there = format!("busybox nslookup x.example {address}");
        eventually("the name server answers", 20, || {
            network.try_shell(&there).ok()
        });
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended with its test.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn docker(engine: &Engine, line: &str) -> Done {
    engine.docker(&line.split_whitespace().collect::<Vec<_>>())
}

fn sh(engine: &Engine, name: &str, script: &str) -> Done {
    engine.docker(&["exec", name, "sh", "-c", script])
}

/// An engine on the first host, which has this resolv.conf: a file of the test's own, to be written to.
fn engine(hosts: &Hosts, resolv: &str) -> Engine {
    let engine = Engine::with(Options {
        namespace: Some(hosts.host(1).namespace.path()),
        files: vec![("/etc/resolv.conf", resolv.to_owned())],
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    engine
}

/// The file that the engine finds as the host's.
fn host_file(engine: &Engine) -> std::path::PathBuf {
    engine.dir().join("file0")
}

/// A question by hand, from inside a container: what comes back, whole.
fn ask(network: &Namespace, name: &str, kind: u16, edns: bool) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend(1_u16.to_be_bytes());
    if edns {
        query.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    }
    let socket = network.enter(|| {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
        Ok(socket)
    });
    let socket = socket.expect("loopback is up");
    socket
        .send_to(&query, "127.0.0.11:53")
        .expect("it is local");
    let mut reply = vec![0; 4096];
    let length = socket.recv(&mut reply).expect("an answer comes");
    reply.truncate(length);
    reply
}

/// Code, and how many answers.
fn outcome(reply: &[u8]) -> (u8, u8) {
    (reply[3] & 0x0f, reply[7])
}

const A: u16 = 1;
const PTR: u16 = 12;
const MX: u16 = 15;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const SRV: u16 = 33;

#[test]
fn every_kind_of_question() {
    let hosts = Hosts::new(2);
    let _server = Server::at(
        &hosts.host(2).namespace,
        &hosts.host(2).address.to_string(),
        "198.51.100.7",
    );
    let engine = engine(&hosts, &format!("nameserver {}\n", hosts.host(2).address));
    docker(
        &engine,
        "network create --ipv6 --subnet 10.231.1.0/24 --subnet fd31:1::/64 app",
    )
    .ok();
    let run = "run -d --network app --network-alias db";
    docker(
        &engine,
        &format!("{run} --name one --ip 10.231.1.11 --ip6 fd31:1::11 busybox sleep 600"),
    )
    .ok();
    docker(
        &engine,
        &format!("{run} --name two --ip 10.231.1.12 --ip6 fd31:1::12 busybox sleep 600"),
    )
    .ok();
    let pid = docker(&engine, "inspect -f {{.State.Pid}} one").ok();
    let inside = Namespace::of_process(pid.parse().unwrap());
    let id = docker(&engine, "inspect -f {{.Id}} two").ok();
    for (name, kind, wanted) in [
        ("two", A, (0, 1)),
        ("TWO.app", A, (0, 1)),
        ("two", AAAA, (0, 1)),
        (&id[..12], A, (0, 1)),
        ("db", A, (0, 2)),
        ("12.1.231.10.in-addr.arpa", PTR, (0, 1)),
        (
            "2.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.1.3.d.f.ip6.arpa",
            PTR,
            (0, 1),
        ),
        // Upstream.
        ("www.example", A, (0, 1)),
        ("www.example", AAAA, (0, 0)),
        ("missing.example", A, (3, 0)),
        ("fails.example", A, (2, 0)),
        ("_sip._tcp.example", SRV, (0, 1)),
        ("www.example", TXT, (0, 1)),
        ("www.example", MX, (0, 1)),
    ] {
        for edns in [false, true] {
            assert_eq!(
                outcome(&ask(&inside, name, kind, edns)),
                wanted,
                "{name} {kind} {edns}"
            );
        }
    }
    assert_eq!(
        ask(&inside, "two", A, true)[11],
        1,
        "who speaks EDNS is answered in it"
    );
    let firsts: std::collections::BTreeSet<_> = (0..8)
        .map(|_| ask(&inside, "db", A, false))
        .map(|reply| reply[reply.len() - 17])
        .collect();
    assert_eq!(
        firsts.into_iter().collect::<Vec<_>>(),
        [11, 12],
        "they take turns"
    );
    // Over TCP, as a resolver of the C library does when it is told to.
    let tcp = "import socket,struct; s=socket.create_connection(('127.0.0.11',53)); \
               q=bytes.fromhex('abcd01000001000000000000')+b'\\x03two\\x00\\x00\\x01\\x00\\x01'; \
               s.sendall(struct.pack('!H',len(q))+q); n=struct.unpack('!H',s.recv(2))[0]; print(s.recv(n)[-4:].hex())";
    assert_eq!(inside.shell(&format!("python3 -c \"{tcp}\"")), "0ae7010c");
    // On the default network there are no names, and the host's servers are asked as they are.
    docker(&engine, "run -d --name alone busybox sleep 600").ok();
    let one = sh(&engine, "alone", "nslookup -type=a one");
    assert!(!one.out.contains("10.231.1.11"), "{}", one.out);
    let own = sh(&engine, "alone", "cat /etc/resolv.conf").ok();
    assert!(
        own.contains(&format!("nameserver {}", hosts.host(2).address)),
        "{own}"
    );
    assert!(
        sh(&engine, "alone", "nslookup -type=a www.example")
            .ok()
            .contains("198.51.100.7")
    );
    // It would keep the container's network alive.
    drop(inside);
    docker(&engine, "rm -f one two alone").ok();
    docker(&engine, "network rm app").ok();
    engine.finish();
}

#[test]
fn a_server_on_a_link_of_the_hosts_is_asked_through_it() {
    let hosts = Hosts::new(2);
    for (host, address) in [(1, "fe80::51"), (2, "fe80::53")] {
        hosts.host(host).namespace.shell(&format!(
            "ip addr flush dev eth0 scope link; ip addr add {address}/64 dev eth0 nodad"
        ));
    }
    let _server = Server::at(&hosts.host(2).namespace, "::", "198.51.100.7");
    let engine = engine(&hosts, "nameserver fe80::53%eth0\n");
    docker(&engine, "network create app").ok();
    let start = |name: &str, network: &str| {
        let line = format!("run -d --network {network} --name {name} busybox sleep 600");
        docker(&engine, &line).ok();
        sh(&engine, name, "cat /etc/resolv.conf").ok()
    };
    let inside = start("inside", "app");
    assert!(inside.contains("ExtServers: [fe80::53%eth0]"), "{inside}");
    let there = start("there", "host");
    assert!(there.contains("nameserver fe80::53%eth0"), "{there}");
    // A container has no such link.
    let apart = start("apart", "bridge");
    assert!(apart.contains("nameserver 8.8.8.8"), "{apart}");
    let pid = docker(&engine, "inspect -f {{.State.Pid}} inside").ok();
    let inside = Namespace::of_process(pid.parse().unwrap());
    let asked = || outcome(&ask(&inside, "www.example", A, false));
    assert_eq!(asked(), (0, 1));
    // While it is being written anew, all is as before.
    std::fs::write(host_file(&engine), "").unwrap();
    assert_eq!(asked(), (0, 1));
    // A link that is not there has no server.
    std::fs::write(host_file(&engine), "nameserver fe80::53%gone\n").unwrap();
    assert_eq!(asked(), (2, 0));
    drop(inside);
    docker(&engine, "rm -f inside there apart").ok();
    docker(&engine, "network rm app").ok();
    engine.finish();
}

#[test]
fn search_domains_options_and_servers_of_a_containers_own() {
    let hosts = Hosts::new(2);
    let (v4, v6) = (
        hosts.host(2).address.to_string(),
        hosts.host(2).address_v6.to_string(),
    );
    let _first = Server::at(&hosts.host(2).namespace, &v4, "198.51.100.7");
    let _second = Server::at(&hosts.host(2).namespace, &v6, "198.51.100.8");
    let engine = engine(
        &hosts,
        &format!("nameserver {v4}\nsearch corp.example\noptions timeout:2\n"),
    );
    docker(&engine, "network create app").ok();
    let start = |name: &str, options: &str| {
        docker(
            &engine,
            &format!("run -d --network app --name {name} {options} busybox sleep 600"),
        )
        .ok();
        sh(&engine, name, "cat /etc/resolv.conf").ok()
    };
    let plain = start("plain", "");
    for line in [
        "nameserver 127.0.0.11",
        "search corp.example",
        "options timeout:2 ndots:0",
    ] {
        assert!(plain.contains(line), "{plain}");
    }
    let own = start(
        "own",
        &format!("--dns {v6} --dns-search a.example --dns-search b.example --dns-option ndots:2"),
    );
    for line in ["search a.example b.example", "options ndots:2"] {
        assert!(own.contains(line), "{own}");
    }
    let pid = |name: &str| docker(&engine, &format!("inspect -f {{{{.State.Pid}}}} {name}")).ok();
    let [plain, own] =
        ["plain", "own"].map(|name| Namespace::of_process(pid(name).parse().unwrap()));
    let last = |reply: Vec<u8>| reply[reply.len() - 1];
    assert_eq!(last(ask(&plain, "www.example", A, false)), 7);
    assert_eq!(
        last(ask(&own, "www.example", A, false)),
        8,
        "its server is asked over IPv6"
    );
    // Who wishes for dots asks for bare names with search domains only.
    assert_eq!(outcome(&ask(&plain, "intranet", A, false)), (0, 1));
    assert_eq!(outcome(&ask(&own, "intranet", A, false)), (0, 0));
    assert_eq!(outcome(&ask(&own, "plain", A, false)), (0, 1));
    // A server that fails is not the last word.
    start("second", &format!("--dns {v4} --dns {v6}"));
    let second = Namespace::of_process(pid("second").parse().unwrap());
    assert_eq!(outcome(&ask(&second, "fails.example", A, false)), (2, 0));
    drop((plain, own, second));
    docker(&engine, "rm -f plain own second").ok();
    docker(&engine, "network rm app").ok();
    engine.finish();
}

/// Writes a file as it is: another program holds it mounted.
fn write(file: &Path, text: &str) {
    std::fs::write(file, text).expect("the file is the test's");
}

#[test]
fn the_hosts_servers_are_followed_with_and_without_a_daemon() {
    let hosts = Hosts::new(3);
    let address = |number| hosts.host(number).address.to_string();
    let _first = Server::at(&hosts.host(2).namespace, &address(2), "198.51.100.2");
    let _second = Server::at(&hosts.host(3).namespace, &address(3), "198.51.100.3");
    let mut engine = engine(&hosts, &format!("nameserver {}\n", address(2)));
    docker(&engine, "network create app").ok();
    docker(&engine, "run -d --network app --name box busybox sleep 600").ok();
    let pid = docker(&engine, "inspect -f {{.State.Pid}} box").ok();
    let inside = Namespace::of_process(pid.parse().unwrap());
    let told = || {
        let reply = ask(&inside, "www.example", A, false);
        reply[reply.len() - 1]
    };
    assert_eq!(told(), 2);
    write(&host_file(&engine), &format!("nameserver {}\n", address(3)));
    eventually("the new server is asked", 20, || {
        (told() == 3).then_some(())
    });
    engine.kill9();
    write(
        &host_file(&engine),
        &format!("# back\nnameserver {}\n", address(2)),
    );
    eventually("the old one is asked, without a daemon", 20, || {
        (told() == 2).then_some(())
    });
    engine.boot();
    eventually("it still is", 20, || (told() == 2).then_some(()));
    drop(inside);
    docker(&engine, "rm -f box").ok();
    docker(&engine, "network rm app").ok();
    engine.finish();
}
