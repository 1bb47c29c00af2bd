//! Names of containers, asked for by containers.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::place::Pair;
use crate::cost::{Cost, verdict};
use crate::peers::Bench;

/// Queries to each engine: enough for the clock of the control group, and not too many for dockerd.
const QUERIES: [usize; 2] = [64_000, 6_400];
/// Queries under way at once.
const WINDOW: usize = 32;
/// Answers a second that a core must give.
const GOAL: f64 = 20_000.0;
const SERVER: &str = "127.0.0.11:53";
/// Who is asked for.
const NAME: &str = "pair-two";

/// Answers of the engines' name servers by the processor time that they cost, the daemons' own included.
pub(crate) fn names(bench: &Bench) -> Result<()> {
    let mut rates = Vec::new();
    for (engine, (port, count)) in bench
        .engines()
        .iter()
        .zip([5401, 5402].into_iter().zip(QUERIES))
    {
        let pair = Pair::new(engine, port)?;
        let [asking, asked] = &pair.places;
        let socket = asking.namespace.enter(|| UdpSocket::bind("0.0.0.0:0"))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.connect(SERVER)?;
        let address: std::net::Ipv4Addr = asked.address.parse()?;
        let ask = |count| ask(&socket, count, address.octets());
        ask(WINDOW)?;
        let (cost, ()) = Cost::of(engine, || ask(count))?;
        rates.push((
            engine.name,
            count as f64 * 1e3 / cost.wall,
            count as f64 * 1e3 / cost.processor,
        ));
    }
    println!(
        "\nnames of containers\n  {:<28} {:>10} {:>13}",
        "", "answers/s", "a core"
    );
    for (name, wall, core) in &rates {
        println!("  {name:<28} {wall:>10.0} {core:>13.0}");
    }
    if let Some((name, _, core)) = rates.first() {
        println!(
            "  {name}: {core:.0} a core, goal {GOAL:.0}: {}",
            verdict(*core >= GOAL)
        );
    }
    Ok(())
}

fn ask(socket: &UdpSocket, count: usize, address: [u8; 4]) -> Result<()> {
    let mut answer = [0; 512];
    for round in 0..count / WINDOW {
        for at in 0..WINDOW {
            socket.send(&query((round * WINDOW + at) as u16))?;
        }
        for _ in 0..WINDOW {
            let length = socket.recv(&mut answer)?;
            let (code, answers) = (answer[3] & 0xf, answer[7]);
            ensure!(code == 0 && answers == 1, "code {code}, {answers} answers");
            ensure!(
                answer[..length].windows(4).any(|bytes| bytes == address),
                "another address"
            );
        }
    }
    Ok(())
}

/// A question for the IPv4 address of [`NAME`].
fn query(id: u16) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    // Recursion is wanted; one question.
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    query.push(NAME.len() as u8);
    query.extend(NAME.as_bytes());
    // The root; type A, class IN.
    query.extend([0, 0, 1, 0, 1]);
    query
}
