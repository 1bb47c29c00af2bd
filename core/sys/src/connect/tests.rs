use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use rustix::net::{AddressFamily, SocketType, bind, connect, getpeername, socket};

use super::*;
use crate::cgroup::Cgroups;
use crate::netlink::{Change, RouteSocket};
use crate::netns;

fn at(ip: [u8; 4], port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(ip), port)
}

const HERE: [u8; 4] = [127, 0, 0, 1];

fn begin() -> io::Result<Led> {
    let groups = Cgroups::detect("/sys/fs/cgroup".as_ref(), "/proc".as_ref())?;
    let Some(group) = groups.unified() else {
        panic!("no unified hierarchy is mounted");
    };
    Led::begin(group, "gantry_test")
}

/// Runs a test in a namespace whose loopback link is up.
fn on_a_host(test: impl FnOnce() + Send) {
    netns::create(|| {
        RouteSocket::open()?.apply(vec![Change::up(1)])?;
        test();
        Ok(())
    })
    .unwrap();
}

/// A server that says one word to everybody, and where it is.
fn server(word: &'static str) -> SocketAddrV4 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let SocketAddr::V4(at) = listener.local_addr().unwrap() else {
        panic!("it is of IPv4");
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = io::Write::write_all(&mut &stream, word.as_bytes());
        }
    });
    at
}

fn heard(mut stream: TcpStream) -> String {
    let mut word = String::new();
    stream.read_to_string(&mut word).unwrap();
    word
}

fn ask(at: SocketAddrV4) -> io::Result<String> {
    let stream = TcpStream::connect(at)?;
    assert_eq!(stream.peer_addr()?, at.into(), "as it was connected");
    Ok(heard(stream))
}

fn refused(at: SocketAddrV4) {
    let error = ask(at).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{at}");
}

#[test]
fn connections_to_loopback_addresses_are_led() {
    on_a_host(|| {
        let (one, two) = (server("one"), server("two"));
        let led = begin().unwrap();
        let (any, sure) = (at([0; 4], 1), at(HERE, 2));
        led.set(any, one).unwrap();
        led.set(sure, one).unwrap();
        for at in [at(HERE, 1), at([127, 9, 9, 9], 1), sure] {
            assert_eq!(ask(at).unwrap(), "one");
        }
        refused(at([127, 0, 0, 2], 2));
        refused(at(HERE, 3));
        // A certain address before any.
        led.set(at(HERE, 1), two).unwrap();
        assert_eq!(ask(at(HERE, 1)).unwrap(), "two");
        assert_eq!(ask(at([127, 0, 0, 2], 1)).unwrap(), "one");
        led.set(sure, two).unwrap();
        assert_eq!(ask(sure).unwrap(), "two");
        led.remove(sure).unwrap();
        led.remove(sure).unwrap();
        refused(sure);
        // Nobody holds it any more.
        drop(led);
        refused(at(HERE, 1));
    });
}

#[test]
fn there_are_so_many_places_at_most() {
    on_a_host(|| {
        let one = server("one");
        let led = begin().unwrap();
        let most = u16::try_from(MOST).unwrap();
        (1..=most).for_each(|port| led.set(at(HERE, port), one).unwrap());
        let error = led.set(at(HERE, most + 1), one).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::E2BIG));
        refused(at(HERE, most + 1));
        led.remove(at(HERE, 1)).unwrap();
        led.set(at(HERE, most + 1), one).unwrap();
        for port in [2, most, most + 1] {
            assert_eq!(ask(at(HERE, port)).unwrap(), "one");
        }
    });
}

#[test]
fn it_goes_on_as_long_as_somebody_holds_it() {
    on_a_host(|| {
        let one = server("one");
        let led = begin().unwrap();
        led.set(at(HERE, 1), one).unwrap();
        let held = led.links().each_ref().map(|link| link.try_clone().unwrap());
        drop(led);
        assert_eq!(ask(at(HERE, 1)).unwrap(), "one");
        drop(held);
        refused(at(HERE, 1));
    });
}

#[test]
fn others_are_not_led() {
    on_a_host(|| {
        let one = server("one");
        let led = begin().unwrap();
        led.set(at([0; 4], 1), one).unwrap();
        let new = |kind| socket(AddressFamily::INET, kind, None).unwrap();
        // With an address of its own.
        let bound = new(SocketType::STREAM);
        bind(&bound, &at(HERE, 0)).unwrap();
        assert!(connect(&bound, &at(HERE, 1)).is_err());
        let free = new(SocketType::STREAM);
        connect(&free, &at(HERE, 1)).unwrap();
        // Datagrams.
        let datagrams = new(SocketType::DGRAM);
        connect(&datagrams, &at(HERE, 1)).unwrap();
        assert!(rustix::io::write(&datagrams, b"?").is_ok());
        assert!(rustix::io::write(&datagrams, b"?").is_err(), "refused");
        // Another host.
        on_a_host(|| refused(at(HERE, 1)));
    });
}

#[test]
fn a_socket_that_is_connected_again_tells_the_truth() {
    on_a_host(|| {
        let (one, two) = (server("one"), server("two"));
        let led = begin().unwrap();
        led.set(at(HERE, 1), one).unwrap();
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        for (to, word) in [(at(HERE, 1), "one"), (two, "two"), (at(HERE, 1), "one")] {
            connect(&socket, &to).unwrap();
            let peer = getpeername(&socket).unwrap();
            assert_eq!(SocketAddrV4::try_from(peer.unwrap()).unwrap(), to);
            assert_eq!(heard(socket.try_clone().unwrap().into()), word);
            rustix::net::connect_unspec(&socket).unwrap();
        }
    });
}
