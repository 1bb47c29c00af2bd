//! Egress lists: the firewall's part and netd's, with the real program on a host of its own.

mod asking;
#[path = "../../network/tests/rig/mod.rs"]
mod rig;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use asking::over_udp;
use gantry_network::*;
use gantry_sys::netlink::{Change, RouteSocket};
use gantry_sys::netns;
use gantry_sys::nft::{Batch, Family, NftSocket};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rig::*;

const NETD: Option<&str> = Some(env!("CARGO_BIN_EXE_gantry-netd"));
/// Names that the world's server knows, each with its address.
const KNOWN: [(&str, [u8; 4]); 4] = [
    ("listed.example.", [192, 0, 2, 12]),
    ("deep.below.example.", [192, 0, 2, 13]),
    ("other.example.", [192, 0, 2, 14]),
    ("evil.below.example.", [127, 0, 0, 1]),
];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// More addresses of the world, all of them serving.
fn widen(rig: &Rig) {
    netns::inside(&rig.world, || {
        let mut socket = RouteSocket::open()?;
        let link = socket.link("wan")?.unwrap().index;
        let more =
            (11..15).map(|n| Change::address(link, format!("192.0.2.{n}/24").parse().unwrap()));
        socket.apply(more.collect()).map_err(|e| e.error)
    })
    .unwrap();
    serve(&rig.world, 80);
}

fn list(entries: &[&str]) -> Option<EgressList> {
    let entries: Vec<String> = entries.iter().map(|e| (*e).to_owned()).collect();
    Some(EgressList::parse(&entries).unwrap())
}

fn confined(rig: &Rig, name: &str, network: &str, entries: &[&str]) -> (Container, EndpointInfo) {
    let mut spec = rig.spec(name);
    spec.egress = list(entries);
    spec.dns = vec![ip("127.0.0.1")];
    let container = rig.start(spec);
    let endpoint = rig
        .connect(&container, network, EndpointConfig::default())
        .unwrap();
    (container, endpoint)
}

#[test]
fn a_list_of_networks_rules_what_leaves() {
    Rig::run(NETD, |rig| {
        widen(rig);
        rig.network("second", |_| {}).unwrap();
        let (a, at_a) = confined(rig, "a", "bridge", &["192.0.2.11", "192.0.2.8/30"]);
        let (b, at_b) = rig.container("b", "bridge");
        let (c, _) = rig.container("c", "second");
        serve(&a.netns, 80);
        serve(&b.netns, 80);
        serve(&c.netns, 80);
        serve_on(std::net::TcpListener::bind("0.0.0.0:90").unwrap());
        rig.publish(&a, 8080, 80).unwrap();
        rig.publish(&c, 8081, 80).unwrap();
        let from = |who: &Container, address: &str| ask_from(&who.netns, address);
        from(&a, "192.0.2.11:80").expect("it is on the list");
        for (what, address) in [
            ("the world", "192.0.2.12:80"),
            ("the host", &format!("{HOST}:90")),
            ("the gateway", "172.17.0.1:90"),
            ("another's port on the host", &format!("{HOST}:8081")),
            ("another's port on the gateway", "172.17.0.1:8081"),
        ] {
            let told = from(&a, address).expect_err(what);
            assert_ne!(told.kind(), ErrorKind::TimedOut, "{what}: told at once");
            from(&b, address).unwrap_or_else(|e| panic!("{what} from a free one: {e}"));
        }
        let neighbour = format!("{}:80", at_b.ipv4.unwrap());
        from(&a, &neighbour).expect("a neighbour");
        let published = format!("{HOST}:8080");
        ask_from(&rig.world, &published).expect("answers to the world go out");
        ask(&format!("{}:80", at_a.ipv4.unwrap())).expect("answers to the host as well");
        // Another list while it runs; one without entries, and none at all.
        let change = |list| rig.block(rig.service.change_egress(&b.id, list)).unwrap();
        let resolv = || std::fs::read_to_string(&b.files.resolv_conf).unwrap();
        let before = resolv();
        change(list(&[]));
        assert!(from(&b, "192.0.2.12:80").is_err());
        assert!(resolv().contains("nameserver 127.0.0.11\n"));
        change(list(&["192.0.2.12"]));
        from(&b, "192.0.2.12:80").expect("listed by now");
        change(None);
        from(&b, "192.0.2.13:80").expect("free again");
        assert_eq!(resolv(), before);
        // Another network's members are reached once the container is one of them.
        rig.connect(&a, "second", EndpointConfig::default())
            .unwrap();
        from(&a, "172.18.0.2:80").expect("a neighbour on the second network");
        assert!(from(&a, "192.0.2.12:80").is_err());
        rig.block(rig.service.disconnect(&a.id, "second")).unwrap();
        assert!(from(&a, "172.18.0.2:80").is_err());
        for container in [a, b, c] {
            rig.end(container);
        }
    });
}

#[test]
fn no_other_address_helps() {
    Rig::run(NETD, |rig| {
        widen(rig);
        let (a, _) = confined(rig, "a", "bridge", &["192.0.2.11"]);
        let (b, _) = rig.container("b", "bridge");
        let server = netns::inside(&rig.world, || UdpSocket::bind("0.0.0.0:7000")).unwrap();
        server
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let send = |who: &Container, source: &str, to: &str| {
            netns::inside(&who.netns, || {
                let mut socket = RouteSocket::open()?;
                let link = socket.link("eth0")?.unwrap().index;
                // It may be there.
                let _ = socket.apply(vec![Change::address(
                    link,
                    format!("{source}/16").parse().unwrap(),
                )]);
                UdpSocket::bind((ip(source), 0))?.send_to(source.as_bytes(), to)
            })
            .unwrap();
        };
        let mut buffer = [0; 32];
        let mut next = || {
            let (length, _) = server.recv_from(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        send(&b, "172.17.0.77", "192.0.2.12:7000");
        assert_eq!(next(), "172.17.0.77", "a free one does as it likes");
        // The way is known to the container by now: nothing that it sends is overtaken.
        send(&a, "172.17.0.2", "192.0.2.11:7000");
        assert_eq!(next(), "172.17.0.2");
        send(&a, "172.17.0.78", "192.0.2.12:7000");
        send(&a, "172.17.0.78", "192.0.2.11:7000");
        send(&a, "172.17.0.2", "192.0.2.11:7000");
        assert_eq!(next(), "172.17.0.2", "what has another source went nowhere");
        rig.end(a);
        rig.end(b);
    });
}

#[test]
fn addresses_of_six_words_are_ruled_as_well() {
    Rig::run(NETD, |rig| {
        rig.network("six", |n| n.enable_ipv6 = true).unwrap();
        let mut socket = RouteSocket::open().unwrap();
        let wan = socket.link("wan").unwrap().unwrap().index;
        let more = ["2001:db8::1/128", "2001:db8::2/128"];
        let changes = more.map(|net| Change::address(wan, net.parse().unwrap()));
        socket.apply(changes.into()).unwrap();
        serve_on(std::net::TcpListener::bind("[::]:90").unwrap());
        let (a, at_a) = confined(rig, "a", "six", &["2001:db8::2"]);
        let (b, _) = rig.container("b", "six");
        serve_on(netns::inside(&a.netns, || std::net::TcpListener::bind("[::]:80")).unwrap());
        let at_a = format!("[{}]:80", at_a.ipv6.unwrap());
        // Duplicate address detection takes its time.
        let reached = |who: &Container, address: &str| {
            (0..300).any(|_| {
                let done = ask_from(&who.netns, address).is_ok();
                if !done {
                    std::thread::sleep(Duration::from_millis(100));
                }
                done
            })
        };
        assert!(reached(&b, "[2001:db8::1]:90"));
        assert!(reached(&a, "[2001:db8::2]:90"));
        assert!(reached(&b, &at_a), "neighbours find it");
        assert!(ask_from(&a.netns, "[2001:db8::1]:90").is_err());
        rig.end(a);
        rig.end(b);
    });
}

/// A server on the host that knows some names, for a second each.
fn upstream() {
    asking::upstream(|query, reply| {
        let name = query.name().clone();
        match KNOWN.iter().find(|(known, _)| *known == name.to_utf8()) {
            Some((_, address)) => {
                let data = RData::A(Ipv4Addr::from(*address).into());
                reply.add_answer(Record::from_rdata(name, 1, data));
            }
            None => reply.metadata.response_code = ResponseCode::NXDomain,
        }
    });
}

fn resolve(container: &Container, name: &str) -> (ResponseCode, usize) {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_utf8(name).unwrap(), RecordType::A));
    let query = message.to_vec().unwrap();
    let reply = netns::inside(&container.netns, || {
        over_udp(&query, Duration::from_secs(30))
    });
    let reply = Message::from_vec(&reply.unwrap()).unwrap();
    (reply.metadata.response_code, reply.answers.len())
}

#[test]
fn a_name_opens_the_way_to_its_addresses() {
    const FOUND: (ResponseCode, usize) = (ResponseCode::NoError, 1);
    const HIDDEN: (ResponseCode, usize) = (ResponseCode::NXDomain, 0);
    Rig::run(NETD, |rig| {
        upstream();
        widen(rig);
        let (a, at_a) = confined(rig, "a", "bridge", &["listed.example", "*.below.example"]);
        let (b, _) = confined(rig, "b", "bridge", &["192.0.2.14"]);
        let reached =
            |who: &Container, n: u8| ask_from(&who.netns, &format!("192.0.2.{n}:80")).is_ok();
        let resolv = std::fs::read_to_string(&a.files.resolv_conf).unwrap();
        assert!(resolv.contains("nameserver 127.0.0.11\n"), "{resolv}");
        assert!(!reached(&a, 12), "nobody has asked yet");
        assert_eq!(resolve(&a, "Listed.Example."), FOUND);
        assert!(reached(&a, 12) && !reached(&a, 13));
        assert_eq!(resolve(&a, "deep.below.example."), FOUND);
        assert!(reached(&a, 13));
        assert_eq!(resolve(&a, "other.example."), HIDDEN);
        assert!(!reached(&a, 14));
        // Where networks are listed a name may lead there, and is asked for.
        assert_eq!(resolve(&b, "other.example."), FOUND);
        assert_eq!(resolve(&b, "listed.example."), FOUND);
        assert!(reached(&b, 14) && !reached(&b, 12));
        // Asked again, it stays open; a name that leads to the host itself opens nothing.
        assert_eq!(resolve(&a, "listed.example."), FOUND);
        assert_eq!(resolve(&a, "evil.below.example."), FOUND);
        let table = format!("gantry-{TAG}-egress");
        let names =
            |socket: &mut NftSocket| socket.elements(Family::Inet, &table, "names4").unwrap();
        let mut socket = NftSocket::open().unwrap();
        assert_eq!(names(&mut socket).len(), 2);

        rig.restart(&[&a, &b]);
        assert!(
            reached(&a, 12) && !reached(&a, 14),
            "the next daemon changes nothing"
        );
        assert_eq!(names(&mut socket).len(), 2);

        // Somebody else's flush: made again, with what names had opened.
        for family in [Family::Inet, Family::Bridge] {
            let mut flush = Batch::new(family, &table);
            flush.remove_table();
            socket.commit(flush).unwrap();
        }
        at_last(|| {
            let chains = socket.chains().unwrap();
            let there = chains.iter().filter(|c| c.table == table).count() == 2;
            (there && names(&mut socket).len() == 2).then_some(())
        });
        assert!(reached(&a, 12) && !reached(&a, 14));

        // What was open for one is not for the next on its address.
        rig.end(a);
        assert_eq!(names(&mut socket), Vec::new());
        let mut spec = rig.spec("c");
        spec.egress = list(&[]);
        let c = rig.start(spec);
        let config = EndpointConfig::default();
        let at_c = rig.connect(&c, "bridge", config).unwrap();
        assert!(at_c.ipv4 != at_a.ipv4 || !reached(&c, 12));
        assert_eq!(resolve(&c, "listed.example."), HIDDEN);
        assert!(!reached(&c, 12));
        rig.end(c);
        rig.end(b);
    });
}

#[test]
fn more_open_ways_than_a_sandbox_may_have_close_the_oldest() {
    Rig::run(NETD, |rig| {
        // Each name has 250 addresses, for a day.
        asking::upstream(|query, reply| {
            let name = query.name().clone();
            let number: u8 = name.iter().next().unwrap()[1..]
                .iter()
                .fold(0, |sum, digit| sum * 10 + (digit - b'0'));
            for last in 1..=250 {
                let data = RData::A(Ipv4Addr::new(198, 18, number, last).into());
                reply.add_answer(Record::from_rdata(name.clone(), 86_400, data));
            }
        });
        let (a, _) = confined(rig, "a", "bridge", &["*.below.example"]);
        for n in 0..20 {
            let name = format!("n{n}.below.example.");
            assert_eq!(resolve(&a, &name).0, ResponseCode::NoError);
        }
        let table = format!("gantry-{TAG}-egress");
        let mut nft = NftSocket::open().unwrap();
        let open = nft.elements(Family::Inet, &table, "names4").unwrap();
        assert_eq!(open.len(), 4096);
        let has = |number: u8| open.iter().any(|(key, _)| key[4..7] == [198, 18, number]);
        assert!(has(19) && !has(0));
        rig.end(a);
    });
}

#[test]
fn what_others_take_out_of_the_tables_is_put_back() {
    Rig::run(NETD, |rig| {
        upstream();
        widen(rig);
        let (a, _) = confined(rig, "a", "bridge", &["192.0.2.11", "listed.example"]);
        let reached = |n: u8| ask_from(&a.netns, &format!("192.0.2.{n}:80")).is_ok();
        assert_eq!(resolve(&a, "listed.example.").1, 1);
        assert!(reached(11) && reached(12) && !reached(13));
        let table = format!("gantry-{TAG}-egress");
        let mut socket = NftSocket::open().unwrap();
        for (family, damage) in [
            (Family::Inet, "chain egress"),
            (Family::Inet, "set sources4"),
            (Family::Inet, "set ranges4"),
            (Family::Bridge, "set own4"),
        ] {
            let mut batch = Batch::new(family, &table);
            match damage.split_once(' ').unwrap() {
                ("chain", chain) => batch.flush_chain(chain),
                (_, set) => batch.flush_set(set),
            }
            socket.commit(batch).unwrap();
            at_last(|| (reached(11) && reached(12) && !reached(13)).then_some(()));
        }
        // Once more, long after: nothing is still being made.
        std::thread::sleep(Duration::from_millis(300));
        assert!(reached(11) && reached(12) && !reached(13));
        rig.end(a);
    });
}

#[test]
fn where_there_is_no_place_for_a_list() {
    Rig::run(NETD, |rig| {
        let mut spec = rig.spec("a");
        spec.mode = SandboxMode::Host;
        spec.egress = list(&[]);
        let error = rig.block(rig.service.sandbox(spec)).unwrap_err();
        assert_eq!(
            error.message,
            "egress allow-list: the container has no network namespace of its own"
        );
    });
    Rig::run(None, |rig| {
        let mut spec = rig.spec("a");
        spec.egress = list(&[]);
        assert!(rig.block(rig.service.sandbox(spec)).is_err());
    });
}
