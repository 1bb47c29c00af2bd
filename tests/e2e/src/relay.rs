//! A TCP relay in front of a server, which cuts and holds connections at the byte that a test says.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::run::eventually;

/// A held connection goes on after this at the latest, so that a failing test ends.
const MAX_HOLD: Duration = Duration::from_secs(60);

/// The relay; it listens until the test process ends.
pub struct Relay {
    port: u16,
    /// From the server to clients.
    pub down: Arc<Direction>,
    /// From clients to the server.
    pub up: Arc<Direction>,
}

/// One direction of all connections together.
#[derive(Default)]
pub struct Direction {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    total: u64,
    cuts: VecDeque<u64>,
    hold: Option<u64>,
    holding: bool,
}

impl Relay {
    /// Starts one in front of the server on a loopback port.
    ///
    /// # Panics
    /// When the loopback device does not work.
    pub fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback works");
        let port = listener.local_addr().expect("it is bound").port();
        let relay = Self {
            port,
            down: Arc::default(),
            up: Arc::default(),
        };
        let (down, up) = (relay.down.clone(), relay.up.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is away shows as a connection that ends at once.
                if let Ok(server) = TcpStream::connect(("127.0.0.1", to)) {
                    connect(client, server, &down, &up);
                }
            }
        });
        relay
    }

    /// `127.0.0.1:PORT`.
    pub fn domain(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Direction {
    /// Cuts the connection that carries the byte of each of these numbers, counted over all connections from the first
    /// on, in rising order.
    pub fn cut_at(&self, bytes: &[u64]) {
        self.lock().cuts = bytes.iter().copied().collect();
    }

    /// Holds the connection that carries the byte of this number until [`Direction::release`].
    pub fn hold_at(&self, byte: u64) {
        self.lock().hold = Some(byte);
    }

    /// Waits until a connection is held.
    #[track_caller]
    pub fn await_hold(&self) {
        eventually("a connection is held", 60, || {
            self.lock().holding.then_some(())
        });
    }

    /// Lets what is held go on.
    pub fn release(&self) {
        let mut state = self.lock();
        (state.hold, state.holding) = (None, false);
        self.changed.notify_all();
    }

    /// Bytes passed on so far.
    pub fn total(&self) -> u64 {
        self.lock().total
    }

    /// How many cuts are still to come.
    pub fn cuts_left(&self) -> usize {
        self.lock().cuts.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of `count` bytes may pass, and whether the connection is cut after them. Waits while it is held.
    fn admit(&self, count: usize) -> (usize, bool) {
        let mut state = self.lock();
        let end = state.total + count as u64;
        if state.hold.is_some_and(|at| at <= end) {
            state.holding = true;
            let held = self
                .changed
                .wait_timeout_while(state, MAX_HOLD, |state| state.hold.is_some());
            state = held.unwrap_or_else(PoisonError::into_inner).0;
        }
        // Other connections may have got on meanwhile.
        let end = state.total + count as u64;
        let cut = state.cuts.front().copied().filter(|at| *at <= end);
        let pass = cut.map_or(count, |at| {
            usize::try_from(at.saturating_sub(state.total)).unwrap_or(count)
        });
        if cut.is_some() {
            state.cuts.pop_front();
        }
        state.total += pass as u64;
        (pass, cut.is_some())
    }
}

/// Passes bytes both ways on threads that end with the connection.
fn connect(client: TcpStream, server: TcpStream, down: &Arc<Direction>, up: &Arc<Direction>) {
    let (Ok(client2), Ok(server2)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    let (down, up) = (down.clone(), up.clone());
    std::thread::spawn(move || pass(&client, &server, &up));
    std::thread::spawn(move || pass(&server2, &client2, &down));
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, direction: &Direction) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let (count, cut) = direction.admit(count);
        if to.write_all(&buffer[..count]).is_err() || cut {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
