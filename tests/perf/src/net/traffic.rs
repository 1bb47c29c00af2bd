//! Throughput of one TCP connection.
//!
//! Connections that are compared take turns of some 50 ms: what else happens to the machine lasts longer, and reaches all of
//! them. Each round has new ones: where the kernel puts what belongs to one makes it some percent faster or slower for its life. Sender and receiver have a processor each: whether the scheduler puts both on one or not makes more
//! of a difference than all that is compared here.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::place::{Handmade, Pair, Place};
use crate::cost::{quantile, verdict};
use crate::peers::Bench;

/// Turns for each round that is asked for, not counting the one in which a connection finds its speed.
const TURNS: usize = 10;
/// Bytes of a turn.
const TURN: usize = 64 << 20;
/// Bytes of a write, and of a read: those of iperf3.
const AT_ONCE: usize = 128 << 10;
/// Milliseconds of a tick of `/proc/stat` (`USER_HZ`).
const TICK: f64 = 10.0;
const SENDER: usize = 0;
const RECEIVER: usize = 1;
const PATIENCE: Duration = Duration::from_secs(20);

fn pin(processor: usize) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(processor);
    rustix::thread::sched_setaffinity(None, &set).context("two processors are needed")
}

/// Receives what the rows send to port 5201 of a place, and ends with its owner.
pub(super) struct Server {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// `arrived` is told of the end of each turn.
    pub(super) fn start(place: &Place, arrived: &Arrived) -> Result<Self> {
        let listener = place
            .namespace
            .enter(|| TcpListener::bind("0.0.0.0:5201"))?;
        let (accepting, done) = (listener.try_clone()?, arrived.0.clone());
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let done = done.clone();
                std::thread::spawn(move || receive(stream, &done));
            }
        });
        Ok(Self {
            listener,
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ends the waiting for the next connection.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Where the servers tell the time at which a turn's last byte arrived.
pub(super) struct Arrived(Sender<Instant>, Receiver<Instant>);

impl Arrived {
    pub(super) fn new() -> Self {
        let (told, heard) = mpsc::channel();
        Self(told, heard)
    }
}

fn receive(mut stream: TcpStream, done: &Sender<Instant>) {
    let (mut buffer, mut turn) = (vec![0; AT_ONCE], 0);
    if pin(RECEIVER).is_err() {
        return;
    }
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        turn += read;
        if turn >= TURN {
            turn -= TURN;
            let _ = done.send(Instant::now());
        }
    }
}

/// A connection to be measured.
pub(super) struct Row {
    name: String,
    from: Place,
    to: (String, u16),
    stream: TcpStream,
    /// Gbit/s.
    rates: Vec<f64>,
    /// Processor time that the machine spent, in clock ticks.
    busy: u64,
}

impl Row {
    pub(super) fn new(name: impl Into<String>, from: &Place, to: &str, port: u16) -> Result<Self> {
        let (name, to) = (name.into(), (to.to_owned(), port));
        let stream = open(from, &to).with_context(|| name.clone())?;
        Ok(Self {
            name,
            from: from.clone(),
            to,
            stream,
            rates: Vec::new(),
            busy: 0,
        })
    }

    fn reopen(&mut self) -> Result<()> {
        self.stream = open(&self.from, &self.to).with_context(|| self.name.clone())?;
        Ok(())
    }

    fn send(&mut self, arrived: &Receiver<Instant>) -> Result<Duration> {
        let data = [0; AT_ONCE];
        let start = Instant::now();
        for _ in 0..TURN / AT_ONCE {
            self.stream.write_all(&data)?;
        }
        let end = arrived.recv_timeout(PATIENCE);
        Ok(end.with_context(|| self.name.clone())? - start)
    }

    fn turn(&mut self, arrived: &Receiver<Instant>) -> Result<()> {
        let before = busy_ticks()?;
        let took = self.send(arrived)?;
        self.busy += busy_ticks()? - before;
        self.rates.push(gbit(TURN) / took.as_secs_f64());
        Ok(())
    }

    fn median(&self) -> f64 {
        quantile(&mut self.rates.clone(), 0.5)
    }

    /// Milliseconds of processor time for a Gbit.
    fn cost(&self) -> f64 {
        self.busy as f64 * TICK / (gbit(TURN) * self.rates.len() as f64)
    }
}

fn open(from: &Place, (to, port): &(String, u16)) -> std::io::Result<TcpStream> {
    from.namespace
        .enter(|| TcpStream::connect((to.as_str(), *port)))
}

fn gbit(bytes: usize) -> f64 {
    bytes as f64 * 8.0 / 1e9
}

/// The time that all processors together were not idle.
fn busy_ticks() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let fields = line.split_whitespace().skip(1).map(str::parse::<u64>);
    let fields = fields.collect::<std::result::Result<Vec<_>, _>>()?;
    // Without "idle" and "iowait".
    Ok(fields.iter().take(8).sum::<u64>() - fields[3] - fields[4])
}

/// Connections between containers and to published ports, beside such that are made by hand.
pub(crate) fn traffic(bench: &Bench, rounds: usize) -> Result<()> {
    let hand = Handmade::new()?;
    let host = Place::host("127.0.0.1");
    let mut arrived = Arrived::new();
    let mut servers = vec![Server::start(&hand.pair[1], &arrived)?];
    let mut rows = vec![
        Row::new("by hand", &hand.pair[0], &hand.pair[1].address, 5201)?,
        Row::new(
            "by hand, from outside",
            &hand.outside,
            &hand.pair[1].address,
            5201,
        )?,
    ];
    let mut pairs = Vec::new();
    for (engine, port) in bench.engines().iter().zip([5401, 5402]) {
        let pair = Pair::new(engine, port)?;
        let [one, two] = &pair.places;
        servers.push(Server::start(two, &arrived)?);
        let name = engine.name;
        rows.push(Row::new(name, one, &two.address, 5201)?);
        rows.push(Row::new(
            format!("{name}, from the host"),
            &host,
            &two.address,
            5201,
        )?);
        rows.push(Row::new(
            format!("{name}, -p, loopback"),
            &host,
            "127.0.0.1",
            port,
        )?);
        rows.push(Row::new(
            format!("{name}, -p, from outside"),
            &hand.outside,
            Handmade::HOST,
            port,
        )?);
        pairs.push(pair);
    }
    measure("one TCP connection", &mut rows, &mut arrived, rounds)?;
    goal(&rows, "gantryd", "by hand", 0.98);
    goal(
        &rows,
        "gantryd, -p, loopback",
        "gantryd, from the host",
        0.95,
    );
    goal(
        &rows,
        "gantryd, -p, from outside",
        "by hand, from outside",
        0.95,
    );
    Ok(())
}

fn take_turns(rows: &mut [Row], arrived: &mut Arrived, rounds: usize) -> Result<()> {
    pin(SENDER)?;
    for _ in 0..rounds {
        for row in &mut *rows {
            row.reopen()?;
            row.send(&arrived.1)?;
        }
        for _ in 0..TURNS {
            rows.iter_mut().try_for_each(|row| row.turn(&arrived.1))?;
        }
    }
    Ok(())
}

/// Measures the rows in turn and prints them.
pub(super) fn measure(
    title: &str,
    rows: &mut [Row],
    arrived: &mut Arrived,
    rounds: usize,
) -> Result<()> {
    // On a thread of its own: what is measured next has all processors.
    let done = std::thread::scope(|scope| {
        let sender = scope.spawn(|| take_turns(rows, arrived, rounds));
        sender.join()
    });
    done.map_err(|_| anyhow!("the sender panicked"))??;
    println!("\n{title}: Gbit/s, and what a Gbit costs both ends");
    println!(
        "  {:<28} {:>10} {:>10} {:>10}",
        "", "best 10 %", "median", "ms"
    );
    for row in rows {
        let best = quantile(&mut row.rates.clone(), 0.9);
        println!(
            "  {:<28} {best:>10.2} {:>10.2} {:>10.1}",
            row.name,
            row.median(),
            row.cost()
        );
    }
    Ok(())
}

/// Prints the ratio of two rows, which is that of most rounds, and whether it is at least the goal.
pub(super) fn goal(rows: &[Row], name: &str, peer: &str, at_least: f64) {
    let find = |name: &str| rows.iter().find(|row| row.name == name);
    if let (Some(row), Some(other)) = (find(name), find(peer)) {
        let rounds = row.rates.iter().zip(&other.rates);
        let ratio = quantile(&mut rounds.map(|(a, b)| a / b).collect::<Vec<_>>(), 0.5);
        let verdict = verdict(ratio >= at_least);
        println!("  {name} / {peer} = {ratio:.3}, goal {at_least:.3} at least: {verdict}");
    }
}
