use std::net::UdpSocket as Datagrams;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::*;

/// A port that is free for both transports.
fn free() -> u16 {
    let tries = std::iter::repeat_with(|| {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").ok()?;
        let at = tcp.local_addr().ok()?;
        Datagrams::bind(at).ok().map(|_| at.port())
    });
    tries.flatten().next().unwrap()
}

fn relay(udp: bool, port: u16, target: SocketAddr, more: u16) -> Relay {
    Relay {
        udp,
        host: SocketAddr::from(([127, 0, 0, 1], port)),
        target,
        more,
        listen: true,
    }
}

/// Servers of both transports that say what they hear.
async fn echo() -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(at).await.unwrap();
    spawn_local(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    });
    spawn_local(async move {
        let mut buffer = [0; 100];
        while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
            let _ = udp.send_to(&buffer[..length], from).await;
        }
    });
    at
}

async fn said(at: SocketAddr, udp: bool) -> io::Result<Vec<u8>> {
    let mut back = [0; 5];
    if udp {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        socket.connect(at).await?;
        socket.send(b"hello").await?;
        socket.recv(&mut back).await?;
    } else {
        let mut stream = TcpStream::connect(at).await?;
        stream.write_all(b"hello").await?;
        stream.read_exact(&mut back).await?;
    }
    Ok(back.to_vec())
}

#[tokio::test]
async fn ports_are_listened_on_as_long_as_they_are_relayed() {
    let work = async {
        let relays = Rc::new(Relays::default());
        let (target, port) = (echo().await, free());
        let host = SocketAddr::from(([127, 0, 0, 1], port));
        let both = [false, true].map(|udp| relay(udp, port, target, 0));
        for _ in 0..2 {
            // To say it again changes nothing.
            let put = relays.put("a".into(), both.to_vec(), [true; 2], false);
            put.await.unwrap();
        }
        for udp in [false, true] {
            assert_eq!(said(host, udp).await.unwrap(), b"hello", "{udp}");
            let seen = bind(udp, host).unwrap_err();
            assert_eq!(seen.kind(), io::ErrorKind::AddrInUse, "{udp}");
        }
        let put = relays.put("a".into(), both[..1].to_vec(), [true; 2], false);
        put.await.unwrap();
        bind(true, host).unwrap();
        assert_eq!(said(host, false).await.unwrap(), b"hello");
        relays.remove("a").await;
        bind(false, host).unwrap();
        assert!(relays.own.open.borrow().is_empty());
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn new_clients_are_heard_however_many_there_were() {
    let work = async {
        let mut files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        files.current = files.maximum;
        rustix::process::setrlimit(rustix::process::Resource::Nofile, files).unwrap();
        let relays = Rc::new(Relays::default());
        let (target, port) = (echo().await, free());
        let put = relays.put(
            "a".into(),
            vec![relay(true, port, target, 0)],
            [true; 2],
            false,
        );
        put.await.unwrap();
        let host = SocketAddr::from(([127, 0, 0, 1], port));
        let first = Datagrams::bind("127.0.0.1:0").unwrap();
        first.send_to(b"first", host).unwrap();
        for client in 0..1100 {
            // Each has a socket, and a flow, of its own.
            let heard = tokio::time::timeout(Duration::from_secs(60), said(host, true)).await;
            assert_eq!(heard.expect("an answer").unwrap(), b"hello", "{client}");
        }
        assert_eq!(relays.flow_count.get(), 1024);
        relays.remove("a").await;
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_port_that_is_taken_changes_nothing() {
    let work = async {
        let relays = Rc::new(Relays::default());
        let (target, before, free) = (echo().await, free(), free());
        let taken = Datagrams::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let put = |all: Vec<Relay>| relays.put("a".into(), all, [true; 2], false);
        put(vec![relay(true, before, target, 0)]).await.unwrap();
        let wanted = vec![relay(true, free, target, 0), relay(true, port, target, 0)];
        assert_eq!(
            put(wanted).await.unwrap_err(),
            format!(
                "failed to bind host port for 127.0.0.1:{port}:{target}/udp: address already in use"
            )
        );
        let host = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(said(host(before), true).await.unwrap(), b"hello");
        bind(true, host(free)).unwrap();
        // More than there may be.
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let few = rustix::process::Rlimit {
            current: Some(100),
            ..files
        };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, few).unwrap();
        let refused = put(vec![relay(true, 20_000, target, 25)])
            .await
            .unwrap_err();
        assert!(
            refused.starts_with("too many published ports:"),
            "{refused}"
        );
        rustix::process::setrlimit(rustix::process::Resource::Nofile, files).unwrap();
        assert_eq!(said(host(before), true).await.unwrap(), b"hello");
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_listened_on_when_it_is_free() {
    let work = async {
        let relays = Rc::new(Relays::default());
        let (target, open) = (echo().await, free());
        let taken: [_; 3] = std::array::from_fn(|_| Datagrams::bind("127.0.0.1:0").unwrap());
        let [first, second, third] = taken.each_ref().map(|s| s.local_addr().unwrap().port());
        let put = |ports: &[u16], patient| {
            let all = ports.iter().map(|port| relay(true, *port, target, 0));
            relays.put("a".into(), all.collect(), [true; 2], patient)
        };
        put(&[open, first, second], true).await.unwrap();
        let host = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(said(host(open), true).await.unwrap(), b"hello");
        // What is wanted already is no reason to refuse a change; what is new is.
        put(&[open, first, second, third], false).await.unwrap_err();
        put(&[open, first], false).await.unwrap();
        drop(taken);
        let end = std::time::Instant::now() + 15 * AGAIN;
        while !is_open(&relays, &(true, host(first))) {
            assert!(std::time::Instant::now() < end, "it is not tried again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(said(host(first), true).await.unwrap(), b"hello");
        bind(true, host(second)).unwrap();
        tokio::time::sleep(AGAIN).await;
        assert!(!relays.own.pursued.get(), "nothing is missing");
        relays.remove("a").await;
        assert!(relays.own.open.borrow().is_empty());
    };
    LocalSet::new().run_until(work).await;
}
