//! Round trips of small datagrams.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::place::{Handmade, Pair, Place};
use crate::cost::{self, quantile};
use crate::peers::Bench;

/// Datagrams of one block; blocks of the rows take turns.
const BLOCK: usize = 500;
const PORT: u16 = 7007;

/// Two sockets that wait for each other.
struct Row {
    name: &'static str,
    client: UdpSocket,
    /// Microseconds.
    times: Vec<f64>,
}

impl Row {
    fn new(name: &'static str, [from, to]: &[Place; 2]) -> Result<Self> {
        let server = to.namespace.enter(|| UdpSocket::bind(("0.0.0.0", PORT)))?;
        let client = from.namespace.enter(|| UdpSocket::bind("0.0.0.0:0"))?;
        client.connect((to.address.as_str(), PORT))?;
        client.set_read_timeout(Some(Duration::from_secs(5)))?;
        // It ends with the process, or when nobody asks any more.
        server.set_read_timeout(Some(Duration::from_secs(60)))?;
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((length, from)) = server.recv_from(&mut buffer) {
                let _ = server.send_to(&buffer[..length], from);
            }
        });
        Ok(Self {
            name,
            client,
            times: Vec::new(),
        })
    }

    fn block(&mut self) -> Result<()> {
        let mut buffer = [0; 64];
        for _ in 0..BLOCK {
            let begin = Instant::now();
            self.client.send(&[7; 32])?;
            let length = self.client.recv(&mut buffer)?;
            self.times.push(begin.elapsed().as_secs_f64() * 1e6);
            ensure!(length == 32, "another datagram came back");
        }
        Ok(())
    }
}

/// From one container to another and back, beside namespaces that are joined by hand.
pub(crate) fn round_trip(bench: &Bench, rounds: usize) -> Result<()> {
    let hand = Handmade::new()?;
    let mut rows = vec![Row::new("by hand", &hand.pair)?];
    let mut pairs = Vec::new();
    for (engine, port) in bench.engines().iter().zip([5401, 5402]) {
        let pair = Pair::new(engine, port)?;
        rows.push(Row::new(engine.name, &pair.places)?);
        pairs.push(pair);
    }
    for row in &mut rows {
        row.block()?;
        row.times.clear();
    }
    for _ in 0..rounds.max(1) {
        rows.iter_mut().try_for_each(Row::block)?;
    }
    println!(
        "\nround trip of a datagram\n  {:<28} {:>10} {:>10}",
        "", "p50 us", "p99 us"
    );
    for row in &mut rows {
        let (half, most) = (
            quantile(&mut row.times, 0.5),
            quantile(&mut row.times, 0.99),
        );
        println!("  {:<28} {half:>10.2} {most:>10.2}", row.name);
    }
    let of = |row: &Row| quantile(&mut row.times.clone(), 0.5);
    if let [hand, gantry, ..] = &rows[..] {
        cost::ratio("gantryd", "by hand", of(gantry) / of(hand), 1.05);
    }
    Ok(())
}
