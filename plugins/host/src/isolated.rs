//! A plugin in a child process of its own.
//!
//! One thread per driver watches the child: it carries its standard error to the log, reaps it when it dies, and starts
//! the next one, at first at once, then after longer and longer pauses.

use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use gantry_driver_api::{
    Call, DriverConfig, DriverError, DriverResult, ErrorCode, Invoke, Kind, encode,
};
use gantry_driver_registry::Backend;
use gantry_plugin_abi::Level;
use gantry_plugin_abi::host::Outcome;
use parking_lot::{Condvar, Mutex};

use crate::PluginError;
use crate::child::{Live, Plan, epitaph};
use crate::connection::{Connection, Lost};
use crate::inprocess::{deadline_exceeded, fault, log};
use crate::serve::Hello;
use crate::wire::{ReplyStatus, WIRE};

/// How long a call waits for a child that is being started anew.
const COMEBACK: Duration = Duration::from_secs(5);
/// A child that answered for this long starts the pauses from none again.
const HEALTHY: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A child with this many calls that passed their deadlines and still run is killed.
const MAX_OVERDUE: usize = 8;

/// An isolated driver. Dropping it ends the child.
pub(crate) struct Isolated(Arc<Shared>);

struct Shared {
    plan: Plan,
    state: Mutex<State>,
    change: Condvar,
}

struct State {
    phase: Phase,
    restarts: u64,
    /// The child that died last, and why: its calls may ask when the next one is up already.
    dead: Option<(Weak<Connection>, String)>,
}

enum Phase {
    Up(Arc<Connection>),
    /// No child. Why, and whether the pause before the next is short enough to wait for.
    Down(String, bool),
    /// The driver has been put away.
    Stopped,
}

impl Isolated {
    /// Starts the first child; returns the driver and the manifest as the loaded code has it.
    pub(crate) fn create(
        driver_host: PathBuf,
        plugin: PathBuf,
        kind: Kind,
        config: &DriverConfig,
    ) -> Result<(Self, Vec<u8>), PluginError> {
        let mut bytes = Vec::new();
        encode(config, &mut bytes).map_err(PluginError::Create)?;
        let hello = Hello {
            wire: WIRE,
            plugin,
            config: bytes,
        };
        let mut bytes = Vec::new();
        encode(&hello, &mut bytes).map_err(PluginError::Create)?;
        let plan = Plan {
            driver: format!("{kind}/{}", config.name),
            driver_host,
            hello: bytes,
        };
        let (live, manifest) = plan.start()?;
        let shared = Arc::new(Shared {
            plan,
            state: Mutex::new(State {
                phase: Phase::Up(live.connection.clone()),
                restarts: 0,
                dead: None,
            }),
            change: Condvar::new(),
        });
        let watcher = shared.clone();
        std::thread::Builder::new()
            .name(format!("driver-{kind}"))
            .stack_size(256 * 1024)
            .spawn(move || watcher.watch(live))
            .map_err(PluginError::io("starting a thread"))?;
        Ok((Self(shared), manifest))
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if let Phase::Up(connection) = std::mem::replace(&mut state.phase, Phase::Stopped) {
            connection.close();
        }
        self.0.change.notify_all();
    }
}

impl Invoke for Isolated {
    fn invoke(
        &self,
        method: &str,
        call: &Call<'_>,
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> DriverResult<()> {
        let end = call.expires(Instant::now());
        let connection = self.0.connection(end)?;
        match connection.call(method, call, request, end, reply) {
            Ok(ReplyStatus::Ok) => Ok(()),
            Ok(ReplyStatus::Fault) => Err(fault(Outcome::Fault, reply)),
            Ok(ReplyStatus::Panicked) => {
                // Its memory is not to be trusted any more: the next generation starts from none.
                let error = fault(Outcome::Panicked, reply);
                connection.close();
                Err(error)
            }
            Err(Lost::Late) => {
                if connection.overdue() >= MAX_OVERDUE {
                    connection.close();
                }
                Err(deadline_exceeded(call.timeout.unwrap_or_default()))
            }
            Err(Lost::Dead) => Err(DriverError::new(
                ErrorCode::Panicked,
                self.0.last_words(&connection),
            )),
            Err(Lost::Unsendable(error)) => Err(DriverError::io("sending a request", &error)),
        }
    }
}

impl Backend for Isolated {
    fn fault(&self) -> Option<String> {
        match &self.0.state.lock().phase {
            Phase::Up(_) => None,
            Phase::Down(reason, _) => Some(reason.clone()),
            Phase::Stopped => Some("stopped".to_owned()),
        }
    }

    fn restarts(&self) -> u64 {
        self.0.state.lock().restarts
    }
}

impl Shared {
    /// The present child's connection; waits a little for one that is being started.
    fn connection(&self, end: Option<Instant>) -> DriverResult<Arc<Connection>> {
        let limit = Instant::now() + COMEBACK;
        let limit = end.map_or(limit, |end| end.min(limit));
        let mut state = self.state.lock();
        loop {
            let reason = match &state.phase {
                Phase::Up(connection) => return Ok(connection.clone()),
                Phase::Down(_, true) if Instant::now() < limit => {
                    self.change.wait_until(&mut state, limit);
                    continue;
                }
                Phase::Down(reason, _) => reason.clone(),
                Phase::Stopped => "it was stopped".to_owned(),
            };
            return Err(DriverError::new(ErrorCode::Unavailable, reason));
        }
    }

    /// Why the child behind `connection` died, as soon as its watcher knows.
    fn last_words(&self, connection: &Arc<Connection>) -> String {
        let limit = Instant::now() + Duration::from_secs(1);
        let mut state = self.state.lock();
        loop {
            if let Some((dead, reason)) = &state.dead
                && Weak::ptr_eq(dead, &Arc::downgrade(connection))
            {
                return reason.clone();
            }
            if matches!(state.phase, Phase::Stopped)
                || self.change.wait_until(&mut state, limit).timed_out()
            {
                return "its process died".to_owned();
            }
        }
    }

    /// The watcher's thread: ends with the driver.
    fn watch(self: Arc<Self>, first: Live) {
        let mut pause = Duration::ZERO;
        let mut live = Some(first);
        loop {
            let (reason, lived) = match live.take() {
                Some(live) => {
                    let connection = Arc::downgrade(&live.connection);
                    let (reason, lived) = self.accompany(live);
                    self.state.lock().dead = Some((connection, reason.clone()));
                    (reason, lived)
                }
                None => (String::new(), Duration::ZERO),
            };
            if lived >= HEALTHY {
                pause = Duration::ZERO;
            }
            if !reason.is_empty() {
                tracing::error!(driver = %self.plan.driver, "{reason}");
                if !self.enter(Phase::Down(reason, pause < COMEBACK)) {
                    return;
                }
            }
            if !self.sleep(pause) {
                return;
            }
            pause = (pause * 2).clamp(Duration::from_millis(100), LONGEST_PAUSE);
            match self.plan.start() {
                Ok((next, _)) => {
                    let connection = next.connection.clone();
                    self.state.lock().restarts += 1;
                    tracing::info!(driver = %self.plan.driver, "driver started anew");
                    if !self.enter(Phase::Up(connection)) {
                        next.connection.close();
                    }
                    live = Some(next);
                }
                Err(error) => {
                    if !self.enter(Phase::Down(error.to_string(), pause < COMEBACK)) {
                        return;
                    }
                }
            }
        }
    }

    /// Changes the phase, unless the driver was stopped: then false.
    fn enter(&self, phase: Phase) -> bool {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Stopped) {
            return false;
        }
        state.phase = phase;
        self.change.notify_all();
        true
    }

    /// Waits, unless the driver is stopped meanwhile: then false.
    fn sleep(&self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        let mut state = self.state.lock();
        while !matches!(state.phase, Phase::Stopped) {
            if self.change.wait_until(&mut state, end).timed_out() {
                return true;
            }
        }
        false
    }

    /// Carries the child's words to the log until it dies; says how it died and how long it lived.
    fn accompany(&self, mut live: Live) -> (String, Duration) {
        let born = Instant::now();
        let mut line = Vec::new();
        // Standard error ends when the child does, or is closed by a driver that should not.
        while let Ok(1..) = (&mut live.stderr).take(4096).read_until(b'\n', &mut line) {
            self.repeat(&line);
            line.clear();
        }
        let status = live.finish();
        live.connection.close();
        (epitaph(status), born.elapsed())
    }

    /// Writes one line of the child's standard error to the engine's log.
    fn repeat(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        let (level, text) = match text.as_bytes() {
            [b'<', priority @ b'0'..=b'7', b'>', ..] => {
                let level = match priority {
                    b'0'..=b'3' => Level::ERROR,
                    b'4' => Level::WARN,
                    b'5' | b'6' => Level::INFO,
                    _ => Level::DEBUG,
                };
                (level, &text[3..])
            }
            _ => (Level::WARN, text),
        };
        log(&self.plan.driver, level, text);
    }
}
