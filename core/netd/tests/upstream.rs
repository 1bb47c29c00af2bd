//! Name servers that misbehave, and ones that only a container reaches, with the real program on a host of its own.

mod asking;
#[path = "../../network/tests/rig/mod.rs"]
mod rig;

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use asking::{over_udp, reply_to};
use gantry_network::*;
use gantry_sys::netns;
use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rig::*;

const NETD: Option<&str> = Some(env!("CARGO_BIN_EXE_gantry-netd"));

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A container with servers of its own.
fn with_dns(rig: &Rig, name: &str, network: &str, servers: &[&str]) -> (Container, EndpointInfo) {
    let mut spec = rig.spec(name);
    spec.dns = servers.iter().map(|server| ip(server)).collect();
    let container = rig.start(spec);
    let endpoint = rig.connect(&container, network, EndpointConfig::default());
    (container, endpoint.unwrap())
}

/// What a container is told of a name: code and last part of the address.
fn resolve(container: &Container, name: &str) -> (ResponseCode, Option<u8>) {
    let query = question(name);
    let reply = netns::inside(&container.netns, || {
        over_udp(&query, Duration::from_secs(20))
    });
    told(&reply.unwrap())
}

fn resolve_over_tcp(container: &Container, name: &str) -> (ResponseCode, Option<u8>) {
    let query = question(name);
    let reply = netns::inside(&container.netns, || {
        let mut stream = TcpStream::connect("127.0.0.11:53")?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        write_framed(&mut stream, &query)?;
        read_framed(&mut stream)
    });
    told(&reply.unwrap())
}

fn question(name: &str) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 7;
    message.add_query(Query::query(Name::from_utf8(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn told(reply: &[u8]) -> (ResponseCode, Option<u8>) {
    let reply = Message::from_vec(reply).unwrap();
    assert_eq!(reply.metadata.id, 7, "the asker's own identifier");
    let address = reply.answers.iter().find_map(|r| match r.data.ip_addr()? {
        IpAddr::V4(ip) => Some(ip.octets()[3]),
        IpAddr::V6(_) => None,
    });
    (reply.metadata.response_code, address)
}

const FOUND: ResponseCode = ResponseCode::NoError;
/// How long a server is waited for before the next is asked: the most impatient of clients wait for two seconds.
const TURN: Duration = Duration::from_millis(1500);

fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes(), message].concat())
}

fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// An answer to a query that has one address.
fn answer(query: &[u8], last: u8) -> Message {
    let query = Message::from_vec(query).unwrap();
    let mut reply = reply_to(&query);
    let name = query.queries[0].name().clone();
    let data = RData::A(Ipv4Addr::new(198, 51, 100, last).into());
    reply.add_answer(Record::from_rdata(name, 60, data));
    reply
}

/// A server that ends when it is dropped: its socket would keep a container's namespace.
struct Server(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let ended = self.1.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking());
    }
}

/// A server inside a namespace, or on the host, that does with each query what it is told.
fn scripted(
    netns: Option<&OwnedFd>,
    at: &str,
    script: impl Fn(&UdpSocket, &[u8], SocketAddr) + Send + 'static,
) -> Server {
    let at = format!("{at}:53");
    let socket = match netns {
        Some(netns) => netns::inside(netns, || UdpSocket::bind(&at)),
        None => UdpSocket::bind(&at),
    };
    let socket = socket.unwrap();
    let short = Some(Duration::from_millis(50));
    socket.set_read_timeout(short).unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    let serving = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while !told.load(Ordering::Relaxed) {
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                script(&socket, &buffer[..length], from);
            }
        }
    });
    Server(ended, Some(serving))
}

fn honest(last: u8) -> impl Fn(&UdpSocket, &[u8], SocketAddr) + Send + 'static {
    move |socket, query, from| {
        let reply = answer(query, last).to_vec().unwrap();
        socket.send_to(&reply, from).unwrap();
    }
}

#[test]
fn an_answer_is_believed_from_the_server_to_the_question_alone() {
    Rig::run(NETD, |rig| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let _server = scripted(None, "127.0.0.1", move |socket, query, from| {
            noted
                .lock()
                .unwrap()
                .push((u16::from_be_bytes([query[0], query[1]]), from.port()));
            let send = |change: &dyn Fn(&mut Message)| {
                let mut reply = answer(query, 66);
                change(&mut reply);
                socket.send_to(&reply.to_vec().unwrap(), from).unwrap();
            };
            let asking = |name: &str, kind| Query::query(Name::from_utf8(name).unwrap(), kind);
            send(&|reply| reply.metadata.id = reply.metadata.id.wrapping_add(1));
            send(&|reply| reply.queries[0] = asking("evil.example.", RecordType::A));
            send(&|reply| reply.queries[0] = asking("www.example.", RecordType::AAAA));
            send(&|reply| reply.queries.push(asking("www.example.", RecordType::A)));
            send(&|reply| reply.queries.clear());
            send(&|reply| reply.metadata.message_type = MessageType::Query);
            // From another port, and from another address.
            for other in ["127.0.0.1:0", "127.0.0.2:53"] {
                let other = UdpSocket::bind(other).unwrap();
                let reply = answer(query, 66).to_vec().unwrap();
                other.send_to(&reply, from).unwrap();
            }
            socket.send_to(&[], from).unwrap();
            socket.send_to(&query[..5], from).unwrap();
            let right = answer(query, 7).to_vec().unwrap();
            socket.send_to(&right, from).unwrap();
        });
        rig.network("net", |_| {}).unwrap();
        let (a, _) = with_dns(rig, "a", "net", &["127.0.0.1"]);
        for _ in 0..16 {
            assert_eq!(resolve(&a, "www.example."), (FOUND, Some(7)));
        }
        let seen = seen.lock().unwrap();
        let ids: HashSet<u16> = seen.iter().map(|(id, _)| *id).collect();
        let ports: HashSet<u16> = seen.iter().map(|(_, port)| *port).collect();
        assert!(ids.len() > 12 && ports.len() > 12, "{seen:?}");
        rig.end(a);
    });
}

#[test]
fn a_containers_own_servers_are_asked_from_inside_it() {
    Rig::run(NETD, |rig| {
        let _host = scripted(None, "127.0.0.1", honest(7));
        rig.network("net", |_| {}).unwrap();
        rig.network("inside", |n| n.internal = true).unwrap();
        // On its own loopback.
        let (a, _) = with_dns(rig, "a", "net", &["127.0.0.1"]);
        let own = scripted(Some(&a.netns), "127.0.0.1", honest(1));
        let listener = netns::inside(&a.netns, || TcpListener::bind("127.0.0.1:53")).unwrap();
        let once = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let query = read_framed(&mut stream).unwrap();
            let reply = answer(&query, 11).to_vec().unwrap();
            write_framed(&mut stream, &reply).unwrap();
        });
        assert_eq!(resolve(&a, "www.example."), (FOUND, Some(1)));
        assert_eq!(resolve_over_tcp(&a, "www.example."), (FOUND, Some(11)));
        once.join().unwrap();
        // Where nobody is there, the host's.
        let (b, _) = with_dns(rig, "b", "net", &["127.0.0.1"]);
        assert_eq!(resolve(&b, "www.example."), (FOUND, Some(7)));
        // Its own server is not asked by itself for ever.
        let (c, _) = with_dns(rig, "c", "net", &["127.0.0.11"]);
        assert_eq!(resolve(&c, "www.example.").1, None);
        // A neighbour where networks lead nowhere; the host is not asked for what it does not know.
        let (d, at_d) = with_dns(rig, "d", "inside", &[]);
        let other = scripted(Some(&d.netns), "0.0.0.0", honest(4));
        let neighbour = at_d.ipv4.unwrap().to_string();
        let (e, _) = with_dns(rig, "e", "inside", &[&neighbour]);
        assert_eq!(resolve(&e, "www.example."), (FOUND, Some(4)));
        let (f, _) = with_dns(rig, "f", "inside", &["127.0.0.1", "192.0.2.2"]);
        let nowhere = (ResponseCode::NXDomain, None);
        assert_eq!(resolve(&f, "www.example."), nowhere);
        assert_eq!(resolve(&d, "www.example."), nowhere);
        // What a confined container hears inside opens no ways.
        let mut spec = rig.spec("g");
        spec.dns = vec![ip("127.0.0.1")];
        spec.egress = Some(EgressList::parse(&["www.example".to_owned()]).unwrap());
        let g = rig.start(spec);
        rig.connect(&g, "net", EndpointConfig::default()).unwrap();
        let liar = scripted(Some(&g.netns), "127.0.0.1", honest(66));
        assert_eq!(resolve(&g, "www.example."), (FOUND, Some(7)));
        drop((own, other, liar));
        for container in [a, b, c, d, e, f, g] {
            rig.end(container);
        }
    });
}

/// Code of the answer to a question of some kind, and how many records.
fn kind(container: &Container, name: &str, kind: RecordType) -> (ResponseCode, usize) {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_utf8(name).unwrap(), kind));
    let query = message.to_vec().unwrap();
    let reply = netns::inside(&container.netns, || {
        over_udp(&query, Duration::from_secs(20))
    });
    let reply = Message::from_vec(&reply.unwrap()).unwrap();
    (reply.metadata.response_code, reply.answers.len())
}

#[test]
fn a_containers_name_is_not_denied_whatever_it_is_asked_for() {
    Rig::run(NETD, |rig| {
        let asked = Arc::new(Mutex::new(HashSet::new()));
        let noted = Arc::clone(&asked);
        let _server = scripted(None, "127.0.0.1", move |socket, query, from| {
            let mut reply = answer(query, 66);
            noted.lock().unwrap().insert(reply.queries[0].query_type());
            reply.answers.clear();
            reply.metadata.response_code = ResponseCode::NXDomain;
            socket.send_to(&reply.to_vec().unwrap(), from).unwrap();
        });
        rig.network("net", |_| {}).unwrap();
        rig.network("inside", |n| n.internal = true).unwrap();
        for network in ["net", "inside"] {
            let (a, _) = with_dns(rig, "a", network, &["127.0.0.1"]);
            let (b, _) = with_dns(rig, "b", network, &[]);
            for of in [RecordType::MX, RecordType::TXT, RecordType::HTTPS] {
                assert_eq!(kind(&a, "B.", of), (FOUND, 0), "{of} on {network}");
                let nobody = kind(&a, "c.", of);
                assert_eq!(nobody, (ResponseCode::NXDomain, 0), "{of} on {network}");
            }
            assert_eq!(kind(&a, "b.", RecordType::AAAA), (FOUND, 0));
            rig.end(a);
            rig.end(b);
        }
        // Other kinds may be known elsewhere.
        assert!(asked.lock().unwrap().contains(&RecordType::TXT));
    });
}

#[test]
fn a_lost_datagram_is_sent_again_and_a_silent_server_stops_nobody() {
    Rig::run(NETD, |rig| {
        let lost = Mutex::new(HashSet::new());
        let _lossy = scripted(None, "127.0.0.1", move |socket, query, from| {
            if !lost.lock().unwrap().insert(query.to_vec()) {
                honest(7)(socket, query, from);
            }
        });
        let _silent = scripted(None, "127.0.0.3", |_, _, _| {});
        rig.network("net", |_| {}).unwrap();
        let (a, _) = with_dns(rig, "a", "net", &["127.0.0.1"]);
        let (b, _) = with_dns(rig, "b", "net", &["127.0.0.3"]);
        assert_eq!(resolve(&a, "www.example."), (FOUND, Some(7)));
        // More questions to the silent server than one sandbox may have under way.
        let flood = netns::inside(&b.netns, || UdpSocket::bind("127.0.0.1:0")).unwrap();
        for n in 0..500 {
            let query = question(&format!("n{n}.example."));
            flood.send_to(&query, "127.0.0.11:53").unwrap();
        }
        let begun = Instant::now();
        assert_eq!(resolve(&a, "b").0, FOUND);
        assert_eq!(resolve(&b, "a").0, FOUND, "it has its names as well");
        // The silent one is given up after twice as long.
        assert!(begun.elapsed() < TURN);
        assert_eq!(resolve(&a, "other.example."), (FOUND, Some(7)));
        drop(flood);
        rig.end(a);
        rig.end(b);
    });
}

#[test]
fn a_dead_server_costs_one_turn_and_is_asked_last_then() {
    Rig::run(NETD, |rig| {
        rig.network("net", |n| n.internal = true).unwrap();
        let (one, at_one) = with_dns(rig, "one", "net", &[]);
        let (two, at_two) = with_dns(rig, "two", "net", &[]);
        let servers = [at_one, at_two].map(|at| at.ipv4.unwrap().to_string());
        let (a, _) = with_dns(rig, "a", "net", &[&servers[0], &servers[1]]);
        let timed = |name: &str| {
            let begun = Instant::now();
            (resolve(&a, name), begun.elapsed())
        };
        let serving =
            |container: &Container, last| scripted(Some(&container.netns), "0.0.0.0", honest(last));
        let dead = scripted(Some(&one.netns), "0.0.0.0", |_, _, _| {});
        let good = serving(&two, 2);
        let (answer, took) = timed("one.example.");
        assert_eq!(answer, (FOUND, Some(2)));
        // It is not given up yet, which takes another turn.
        assert!((TURN..2 * TURN).contains(&took), "{took:?}");
        for name in ["two.example.", "three.example."] {
            let (answer, took) = timed(name);
            assert_eq!(answer, (FOUND, Some(2)));
            assert!(took < TURN, "{took:?}");
        }
        // Last, but asked; and once it answers it is what it was.
        drop((dead, good));
        let back = serving(&one, 1);
        assert_eq!(timed("four.example.").0, (FOUND, Some(1)));
        let good = serving(&two, 2);
        assert_eq!(timed("five.example.").0, (FOUND, Some(1)));
        drop((back, good));
        for container in [one, two, a] {
            rig.end(container);
        }
    });
}

#[test]
fn a_slow_server_is_heard_while_others_are_asked() {
    Rig::run(NETD, |rig| {
        let _slow = scripted(Some(&rig.world), WORLD, |socket, query, from| {
            std::thread::sleep(Duration::from_secs(2));
            honest(9)(socket, query, from);
        });
        let _dead = scripted(None, HOST, |_, _, _| {});
        let _hosts = scripted(None, "127.0.0.1", honest(7));
        rig.network("net", |_| {}).unwrap();
        let (a, _) = with_dns(rig, "a", "net", &[WORLD, HOST]);
        let begun = Instant::now();
        assert_eq!(resolve(&a, "www.example."), (FOUND, Some(9)));
        // The dead one is given up half a second later.
        assert!(begun.elapsed() < 3 * TURN);
        // The host's loopback has nothing to say for a server of the container's own, be it ever so slow.
        let (b, _) = with_dns(rig, "b", "net", &["127.0.0.1"]);
        let own = scripted(Some(&b.netns), "127.0.0.1", |_, _, _| {});
        assert_eq!(resolve(&b, "www.example."), (ResponseCode::ServFail, None));
        drop(own);
        rig.end(a);
        rig.end(b);
    });
}
