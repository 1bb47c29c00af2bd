use std::net::UdpSocket as Datagrams;
use std::sync::atomic::{AtomicBool, Ordering};

use gantry_sys::netlink::{Change, RouteSocket};
use gantry_sys::nft::{BaseChain, Batch, Expr, Family, Hook, NftSocket, Register};
use tokio::task::LocalSet;

use super::*;
use crate::Relay;

/// The published port.
const PORT: u16 = 5000;

/// Leads what is sent to the port to netd, and has connections tracked, as the daemon's table does. It is made anew in
/// one step.
fn lead(to: u16) -> Batch {
    let mut batch = Batch::new(Family::Inet, "t");
    batch.remove_table();
    batch.add_table();
    for (name, kind, priority) in [("relay", "filter", -150), ("nat", "nat", -100)] {
        batch.add_chain(&BaseChain {
            name,
            kind,
            hook: Hook::Prerouting,
            priority,
            drop: false,
        });
    }
    let rule = vec![
        Expr::network_protocol(Register::R0),
        Expr::equal(Register::R0, &[Family::Ipv6 as u8]),
        Expr::destination_port(Register::R0),
        Expr::equal(Register::R0, &PORT.to_be_bytes()),
        Expr::load(&Ipv6Addr::LOCALHOST.octets(), Register::R0),
        Expr::load(&to.to_be_bytes(), Register::R4),
        Expr::lead_to(Family::Ipv6, Register::R0, Register::R4),
    ];
    batch.add_rule("relay", rule, "");
    batch
}

/// A server that says what it hears.
fn echo() -> SocketAddr {
    let socket = Datagrams::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    at
}

/// Asks over one flow again and again; the longest time without an answer.
fn client(stop: &AtomicBool) -> Duration {
    let socket = Datagrams::bind("[::]:0").unwrap();
    socket.connect((Ipv6Addr::LOCALHOST, PORT)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let mut back = [0; 8];
        let asked = socket.send(&number.to_be_bytes());
        while asked.is_ok() && socket.recv(&mut back).is_ok() {
            if back == number.to_be_bytes() {
                longest = longest.max(last.elapsed());
                last = Instant::now();
                break;
            }
        }
    }
    longest.max(last.elapsed())
}

async fn relayed(seconds: u64, flows: usize) -> Vec<Duration> {
    let relays = Rc::new(Relays::default());
    let target = echo();
    let relay = Relay {
        udp: true,
        host: (Ipv6Addr::LOCALHOST, PORT).into(),
        target,
        more: 0,
        listen: false,
    };
    let put = || relays.put("a".into(), vec![relay], [true; 2], false);
    put().await.unwrap();
    let listeners = relays.listen().unwrap();
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    NftSocket::open()
        .unwrap()
        .commit(lead(listeners.udp6))
        .unwrap();
    let renewing = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                NftSocket::open()
                    .unwrap()
                    .commit(lead(listeners.udp6))
                    .unwrap();
                std::thread::sleep(Duration::from_millis(50));
            }
        })
    };
    let clients: Vec<_> = (0..flows)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || client(&stop))
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(100)).await;
        put().await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let ended = tokio::task::spawn_blocking(move || {
        renewing.join().unwrap();
        clients.into_iter().map(|c| c.join().unwrap()).collect()
    });
    let longest = ended.await.unwrap();
    assert_eq!(relays.flow_count.get(), relays.flows.0.borrow().len());
    relays.remove("a").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        (relays.flow_count.get(), relays.flows.0.borrow().len()),
        (0, 0)
    );
    longest
}

#[test]
fn flows_go_on_while_rules_are_renewed_and_the_machine_is_busy() {
    gantry_sys::netns::create(|| {
        RouteSocket::open()?.apply(vec![Change::up(1)])?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let longest = LocalSet::new().block_on(&runtime, relayed(3, 200));
        let worst = longest.iter().max().copied().unwrap_or_default();
        assert!(
            worst < Duration::from_secs(2),
            "{worst:?} without an answer"
        );
        Ok(())
    })
    .unwrap();
}
