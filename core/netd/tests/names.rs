//! netd, the real program, with the network service on a host of its own.

mod asking;
#[path = "../../network/tests/rig/mod.rs"]
mod rig;

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use asking::{SERVER, over_udp};
use gantry_network::*;
use gantry_sys::netns;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rig::shared::{host, host_again};
use rig::*;
use rustix::process::Signal;

const NETD: Option<&str> = Some(env!("CARGO_BIN_EXE_gantry-netd"));
const PATIENCE: Duration = Duration::from_secs(30);

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_utf8(name).unwrap(), kind));
    message.metadata.recursion_desired = true;
    message.to_vec().unwrap()
}

fn over_tcp(query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(SERVER)?;
    let mut framed = (query.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(query);
    stream.write_all(&framed)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply)?;
    Ok(reply)
}

fn ask(netns: &OwnedFd, name: &str, kind: RecordType) -> Message {
    let query = query(name, kind);
    Message::from_vec(&netns::inside(netns, || over_udp(&query, PATIENCE)).unwrap()).unwrap()
}

fn addresses(reply: &Message) -> Vec<IpAddr> {
    reply
        .answers
        .iter()
        .filter_map(|record| record.data.ip_addr())
        .collect()
}

fn resolve(container: &Container, name: &str) -> Vec<IpAddr> {
    addresses(&ask(&container.netns, name, RecordType::A))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn netd_pid(rig: &Rig) -> u32 {
    pid_in(rig.dir.path())
}

/// The netd of the engine whose roots are below `dir`.
fn pid_in(dir: &std::path::Path) -> u32 {
    let socket = dir.join("run/network/netd.sock");
    gantry_netd::Client::connect(&socket).unwrap().pid()
}

fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

fn signal(pid: u32, signal: Signal) {
    let process = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(process, signal).unwrap();
}

#[test]
fn containers_of_a_network_find_each_other() {
    Rig::run(NETD, |rig| {
        rig.network("net", |_| {}).unwrap();
        let (a, _) = rig.container("web", "net");
        let b = rig.start(rig.spec("db"));
        let config = EndpointConfig {
            aliases: vec!["store".into()],
            ..EndpointConfig::default()
        };
        let at_b = rig.connect(&b, "net", config).unwrap();
        assert_eq!(at_b.dns_names, ["db", "store", b.id.short()]);
        for name in ["db", "DB.", "store", b.id.short(), "db.net"] {
            assert_eq!(resolve(&a, name), [ip("172.18.0.3")], "{name}");
        }
        let six = ask(&a.netns, "db", RecordType::AAAA);
        assert_eq!(
            (six.metadata.response_code, six.answers.len()),
            (ResponseCode::NoError, 0)
        );
        let reverse = ask(&a.netns, "3.0.18.172.in-addr.arpa.", RecordType::PTR);
        assert_eq!(reverse.answers[0].data.to_string(), "db.net.");
        let tcp = netns::inside(&a.netns, || over_tcp(&query("db", RecordType::A))).unwrap();
        assert_eq!(
            addresses(&Message::from_vec(&tcp).unwrap()),
            [ip("172.18.0.3")]
        );
        let resolv = std::fs::read_to_string(&a.files.resolv_conf).unwrap();
        assert!(resolv.contains("nameserver 127.0.0.11\n"), "{resolv}");
        // Port 53 stays the container's own, whatever it binds there.
        let udp = netns::inside(&a.netns, || UdpSocket::bind("0.0.0.0:53")).unwrap();
        let tcp = netns::inside(&a.netns, || TcpListener::bind("0.0.0.0:53")).unwrap();
        assert_eq!(resolve(&a, "db"), [ip("172.18.0.3")]);
        let answer = netns::inside(&a.netns, || over_tcp(&query("db", RecordType::A)));
        assert!(!answer.unwrap().is_empty());
        drop((udp, tcp));
        // Tracking connections costs throughput.
        let tracked = "/proc/thread-self/net/nf_conntrack";
        let tracked = netns::inside(&a.netns, || std::fs::read_to_string(tracked));
        assert_eq!(tracked.unwrap_or_default(), "");
        rig.block(rig.service.rename(&b.id, "data")).unwrap();
        assert_eq!(resolve(&a, "data"), [ip("172.18.0.3")]);
        let (c, _) = rig.container("c", "bridge");
        let resolv = std::fs::read_to_string(&c.files.resolv_conf).unwrap();
        assert!(
            !resolv.contains("127.0.0.11"),
            "there are no names on the default network: {resolv}"
        );
        rig.connect(&c, "net", EndpointConfig::default()).unwrap();
        assert_eq!(
            resolve(&c, "web"),
            [ip("172.18.0.2")],
            "a container that joins later asks as well"
        );
        for container in [a, b, c] {
            rig.end(container);
        }
        rig.block(rig.service.remove("net")).unwrap();
    });
}

/// A server on the host that knows everything.
fn upstream() {
    asking::upstream(|query, reply| {
        let data = RData::A("198.51.100.7".parse().unwrap());
        reply.add_answer(Record::from_rdata(query.name().clone(), 60, data));
    });
}

#[test]
fn other_names_are_asked_upstream_unless_the_network_leads_nowhere() {
    Rig::run(NETD, |rig| {
        upstream();
        rig.network("net", |_| {}).unwrap();
        rig.network("inside", |n| n.internal = true).unwrap();
        let start = |name: &str, network: &str| {
            let mut spec = rig.spec(name);
            spec.dns = vec![ip("127.0.0.1")];
            let container = rig.start(spec);
            rig.connect(&container, network, EndpointConfig::default())
                .unwrap();
            container
        };
        let (a, b) = (start("a", "net"), start("b", "inside"));
        assert_eq!(resolve(&a, "example.com"), [ip("198.51.100.7")]);
        let inside = ask(&b.netns, "example.com", RecordType::A);
        assert_eq!(inside.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(resolve(&b, "b"), [ip("172.19.0.2")]);
        rig.end(a);
        rig.end(b);
    });
}

#[test]
fn a_burst_waits_for_netd() {
    const BURST: usize = 1000;
    Rig::run(NETD, |rig| {
        rig.network("net", |_| {}).unwrap();
        let (a, _) = rig.container("a", "net");
        let socket = netns::inside(&a.netns, || UdpSocket::bind("127.0.0.1:0")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let asker = rustix::net::sockopt::set_socket_recv_buffer_size_force;
        asker(&socket, 1 << 20).unwrap();
        let (netd, query) = (netd_pid(rig), query("a", RecordType::A));
        signal(netd, Signal::STOP);
        let sent = (0..BURST).try_for_each(|_| socket.send_to(&query, SERVER).map(drop));
        signal(netd, Signal::CONT);
        sent.unwrap();
        let answers = (0..BURST).take_while(|_| socket.recv(&mut [0; 512]).is_ok());
        assert_eq!(answers.count(), BURST);
        rig.end(a);
    });
}

#[test]
fn names_survive_the_daemon_and_netds_death() {
    Rig::run(NETD, |rig| {
        rig.network("net", |_| {}).unwrap();
        let (a, _) = rig.container("a", "net");
        let (b, _) = rig.container("b", "net");
        let pid = netd_pid(rig);
        rig.restart(&[&a, &b]);
        assert_eq!(netd_pid(rig), pid, "it is found again");
        assert_eq!(resolve(&a, "b"), [ip("172.18.0.3")]);
        kill(pid);
        // The daemon notices by itself.
        let next = at_last(|| {
            let socket = rig.dir.path().join("run/network/netd.sock");
            let mut client = gantry_netd::Client::connect(&socket).ok()?;
            (client.list().ok()?.len() == 2).then_some(client)
        });
        assert_ne!(next.pid(), pid, "another is started");
        assert_eq!(resolve(&a, "b"), [ip("172.18.0.3")]);
        let (c, _) = rig.container("c", "net");
        assert_eq!(
            resolve(&a, "c"),
            [ip("172.18.0.4")],
            "a new one knows what the old one knew"
        );
        assert_eq!(resolve(&c, "b"), [ip("172.18.0.3")]);
        for container in [a, b, c] {
            rig.end(container);
        }
    });
}

#[test]
fn members_on_other_hosts_are_found_also_without_the_daemon_and_the_store() {
    Rig::run(NETD, |rig| {
        let dir = rig.dir.path();
        let (a, b) = (host(dir, "a", NETD), host(dir, "b", NETD));
        a.create("net", |n| n.enable_ipv6 = true).unwrap();
        at_last(|| b.service.get("net").ok());
        let one = a.sandbox(dir, "one");
        let alias = || EndpointConfig {
            aliases: vec!["web".into()],
            ..EndpointConfig::default()
        };
        a.join(&one, "net", alias()).unwrap();
        let two = b.sandbox(dir, "two");
        b.join(&two, "net", alias()).unwrap();
        let at_one = |name: &str| sorted(addresses(&ask(netns_of(&one), name, RecordType::A)));
        let at_two = |name: &str| sorted(addresses(&ask(netns_of(&two), name, RecordType::A)));
        let (first, second) = (ip("10.99.1.2"), ip("10.99.1.3"));
        at_last(|| (at_one("two") == [second]).then_some(()));
        at_last(|| (at_two("one") == [first]).then_some(()));
        assert_eq!(at_one(two.container.short()), [second]);
        assert_eq!(at_one("two.net"), [second]);
        assert_eq!(at_one("web"), [first, second]);
        let six = addresses(&ask(netns_of(&one), "two", RecordType::AAAA));
        assert_eq!(six, [ip("fd99:1::2")]);
        let reverse = ask(netns_of(&one), "3.1.99.10.in-addr.arpa.", RecordType::PTR);
        assert_eq!(reverse.answers[0].data.to_string(), "two.net.");
        b.block(b.service.rename(&two.container, "zwei")).unwrap();
        at_last(|| (at_one("zwei") == [second]).then_some(()));
        assert!(at_one("two").is_empty());
        // A member of this host that comes later asks at once.
        let (three, joined) = a.run(dir, "three", "net");
        assert_eq!(joined.unwrap().ipv4, Some(ip("10.99.1.4")));
        assert_eq!(resolve_in(&three, "zwei"), [second]);
        std::fs::write(dir.join("store.away"), "").unwrap();
        let old = pid_in(&dir.join("a"));
        drop(a);
        assert_eq!(at_one("zwei"), [second], "without daemon and store");
        let a = host_again(dir, "a", NETD, &[&one, &three]);
        assert_eq!(
            at_one("zwei"),
            [second],
            "the next daemon knows nothing, and takes nothing away"
        );
        std::fs::remove_file(dir.join("store.away")).unwrap();
        let (four, joined) = b.run(dir, "four", "net");
        let four_is = joined.unwrap().ipv4.unwrap();
        at_last(|| (at_one("four") == [four_is]).then_some(()));
        assert_eq!(pid_in(&dir.join("a")), old);
        kill(old);
        at_last(|| (resolve_if(&one, "four") == [four_is]).then_some(()));
        assert_eq!(at_one("zwei"), [second], "the next netd is told all");
        b.end_container(two);
        at_last(|| at_one("zwei").is_empty().then_some(()));
        assert_eq!(at_one("web"), [first]);
        b.end_container(four);
        a.end_container(one);
        a.end_container(three);
        a.remove("net").unwrap();
        a.end();
        b.end();
    });
}

fn netns_of(sandbox: &Sandbox) -> &OwnedFd {
    sandbox.netns.as_ref().unwrap()
}

fn resolve_in(sandbox: &Sandbox, name: &str) -> Vec<IpAddr> {
    addresses(&ask(netns_of(sandbox), name, RecordType::A))
}

/// The same, while there may be nobody to ask.
fn resolve_if(sandbox: &Sandbox, name: &str) -> Vec<IpAddr> {
    let query = query(name, RecordType::A);
    let reply = netns::inside(netns_of(sandbox), || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.send_to(&query, SERVER)?;
        let mut reply = vec![0; 4096];
        let length = socket.recv(&mut reply)?;
        reply.truncate(length);
        Ok(reply)
    });
    reply.map_or(Vec::new(), |reply| {
        addresses(&Message::from_vec(&reply).unwrap())
    })
}

fn sorted(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort();
    addresses
}

#[test]
fn a_container_that_left_its_networks_is_told_no_more_of_them() {
    Rig::run(NETD, |rig| {
        rig.network("net", |_| {}).unwrap();
        // Nobody answers for other names.
        let silent = |name| {
            let mut spec = rig.spec(name);
            spec.dns = vec![ip("127.0.0.1")];
            rig.start(spec)
        };
        let (a, b) = (silent("a"), silent("b"));
        let join = |container, network| {
            rig.connect(container, network, EndpointConfig::default())
                .unwrap()
        };
        join(&a, "net");
        join(&b, "net");
        join(&b, "bridge");
        assert_eq!(resolve(&a, "b"), [ip("172.18.0.3")]);
        let sockets = || {
            let read = || std::fs::read_to_string("/proc/thread-self/net/udp");
            let text = netns::inside(&b.netns, read).unwrap();
            let inode = |line: &str| line.split_whitespace().nth(9).map(str::to_owned);
            text.lines().skip(1).map(inode).collect::<Vec<_>>()
        };
        let before = sockets();
        assert_eq!(before.len(), 1);
        rig.block(rig.service.disconnect(&b.id, "net")).unwrap();
        assert!(resolve(&a, "b").is_empty() && resolve(&b, "a").is_empty());
        let own = std::fs::read_to_string(&b.files.resolv_conf).unwrap();
        assert!(!own.contains("127.0.0.11"), "{own}");
        join(&b, "net");
        assert_eq!(resolve(&a, "b").len(), 1);
        assert_eq!(resolve(&b, "a"), [ip("172.18.0.2")]);
        assert_eq!(sockets(), before, "they are not made again");
        rig.block(rig.service.disconnect(&b.id, "net")).unwrap();
        rig.restart(&[&a, &b]);
        let known = || {
            let socket = rig.dir.path().join("run/network/netd.sock");
            let listed = gantry_netd::Client::connect(&socket).unwrap().list();
            listed.unwrap()
        };
        assert_eq!(known(), [a.id.to_string()]);
        rig.connect(&b, "net", EndpointConfig::default()).unwrap();
        assert_eq!(resolve(&b, "a"), [ip("172.18.0.2")]);
        let left = a.id.to_string();
        rig.end(b);
        assert_eq!(known(), [left]);
        rig.end(a);
    });
}

#[test]
fn thousands_of_names_are_told_at_once_or_not_at_all() {
    Rig::run(NETD, |rig| {
        rig.network("net", |_| {}).unwrap();
        let alias = |n: usize| format!("alias-{n:05}-{}", "x".repeat(40));
        let with = |aliases: Vec<String>| EndpointConfig {
            aliases,
            ..EndpointConfig::default()
        };
        let (a, _) = rig.container("a", "net");
        let mut spec = rig.spec("b");
        let entries = (0..4000).flat_map(|n| {
            let name = format!("host-{n:05}.{}.example", "y".repeat(40));
            [name, format!("10.{}.{}.0/25", n / 250, n % 250)]
        });
        spec.egress = Some(EgressList::parse(&entries.collect::<Vec<_>>()).unwrap());
        let b = rig.start(spec);
        let many = with((0..5000).map(alias).collect());
        rig.connect(&b, "net", many).unwrap();
        for n in [0, 4999] {
            assert_eq!(resolve(&a, &alias(n)), [ip("172.18.0.3")]);
        }
        rig.network("other", |_| {}).unwrap();
        rig.connect(&a, "other", EndpointConfig::default()).unwrap();
        let long = (0..4000).map(|n| alias(n).repeat(100)).collect();
        let error = rig.connect(&b, "other", with(long)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
        assert!(resolve(&a, "b.other").is_empty());
        assert_eq!(resolve(&a, &alias(4999)), [ip("172.18.0.3")]);
        let pid = netd_pid(rig);
        rig.restart(&[&a, &b]);
        assert_eq!(netd_pid(rig), pid);
        assert_eq!(resolve(&a, &alias(4999)), [ip("172.18.0.3")]);
        rig.end(a);
        rig.end(b);
    });
}
