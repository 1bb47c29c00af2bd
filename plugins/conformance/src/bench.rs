//! The price of one null call: raw and encoded in process, and isolated beside a bare round trip over a socket pair.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gantry_driver_api::{Call, DriverConfig, DriverError, encode};
use gantry_driver_registry::Isolation;
use gantry_plugin_abi::HostCallbacks;
use gantry_plugin_abi::host::{Library, Outcome};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags,
    SocketType, recvmsg, sendmsg, socketpair,
};

use crate::{Run, Subject};

/// The argument that makes the program the other end of the bare round trip.
pub const ECHO: &str = "--echo-for-bench";
/// Calls in one sample; a sample is short enough to miss most interruptions.
const SAMPLE: u32 = 200;
const SAMPLES: usize = 100;

/// Median times of one call.
#[derive(Debug, Clone, Copy)]
pub struct Prices {
    /// Through the binary interface, with a request and reply encoded once.
    pub raw: Duration,
    /// Through the registry's handle, encoded and decoded.
    pub encoded: Duration,
    /// The same with a deadline, and thus on a thread that can be left behind.
    pub limited: Duration,
    /// Encoded, with the plugin in a child process.
    pub isolated: Duration,
    /// A packet of the same size to a child process and back.
    pub bare: Duration,
}

impl std::fmt::Display for Prices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        writeln!(f, "in process, raw       {:8.3} us", micros(self.raw))?;
        writeln!(f, "in process, encoded   {:8.3} us", micros(self.encoded))?;
        writeln!(f, "in process, deadline  {:8.3} us", micros(self.limited))?;
        writeln!(f, "isolated              {:8.3} us", micros(self.isolated))?;
        writeln!(f, "bare socket pair      {:8.3} us", micros(self.bare))?;
        let ratio = self.isolated.as_secs_f64() / self.bare.as_secs_f64();
        write!(f, "isolated / bare       {ratio:8.2}")
    }
}

/// Measures `health` of the plugin. Isolated and bare are sampled in turn, so that both see the same machine.
///
/// # Errors
/// When the plugin cannot be loaded or a call fails.
pub fn measure(run: &Run) -> Result<Prices, Box<dyn std::error::Error + Send + Sync>> {
    let raw = raw(run)?;
    let subject = Subject::load(&Run {
        isolation: Isolation::None,
        ..run.clone()
    })?;
    let driver = subject.driver()?;
    let call = Call::new("bench").with_timeout(Duration::MAX);
    let encoded = median(|| driver.health(&call).map(drop))?;
    let limited = median(|| driver.health(&Call::new("bench")).map(drop))?;
    drop(driver);
    drop(subject);

    let subject = Subject::load(&Run {
        isolation: Isolation::Process,
        ..run.clone()
    })?;
    let driver = subject.driver()?;
    let mut echo = Echo::start()?;
    let (mut isolated, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        isolated.push(sample(&mut || {
            driver.health(&Call::new("bench")).map(drop)
        })?);
        bare.push(sample(&mut || {
            echo.round_trip().map_err(|e| DriverError::io("echo", &e))
        })?);
    }
    Ok(Prices {
        raw,
        encoded,
        limited,
        isolated: middle(isolated),
        bare: middle(bare),
    })
}

fn raw(run: &Run) -> Result<Duration, Box<dyn std::error::Error + Send + Sync>> {
    let home = tempfile::tempdir()?;
    let library = Library::load(&run.plugin)?;
    let config = DriverConfig {
        name: "bench".to_owned(),
        root: home.path().to_owned(),
        run: home.path().to_owned(),
        tag: "00000000".to_owned(),
        options: run.options.clone(),
    };
    let mut bytes = Vec::new();
    encode(&config, &mut bytes)?;
    let instance = library
        .create(&bytes, HostCallbacks::new(|_, _| ()))
        .map_err(|(outcome, _)| format!("the driver does not start: {outcome:?}"))?;
    let (mut request, mut reply) = (Vec::new(), Vec::new());
    encode(&(), &mut request)?;
    Ok(median(|| {
        match instance.invoke("health", "bench", None, &[], &request, &mut reply) {
            Outcome::Reply => Ok(()),
            _ => Err(DriverError::internal("health fails")),
        }
    })?)
}

fn median(mut work: impl FnMut() -> Result<(), DriverError>) -> Result<Duration, DriverError> {
    let times = (0..SAMPLES).map(|_| sample(&mut work));
    Ok(middle(times.collect::<Result<_, _>>()?))
}

fn sample(work: &mut dyn FnMut() -> Result<(), DriverError>) -> Result<Duration, DriverError> {
    let start = Instant::now();
    for _ in 0..SAMPLE {
        work()?;
    }
    Ok(start.elapsed() / SAMPLE)
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// A child that sends every packet back.
struct Echo {
    child: std::process::Child,
    socket: OwnedFd,
}

impl Echo {
    fn start() -> io::Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let child = Command::new("/proc/self/exe")
            .arg(ECHO)
            .stdin(Stdio::from(theirs))
            .spawn()?;
        Ok(Self {
            child,
            socket: ours,
        })
    }

    /// A packet of a null call's size, there and back.
    fn round_trip(&mut self) -> io::Result<()> {
        send(&self.socket, &[0; 40])?;
        receive(&self.socket, &mut [0; 256]).map(drop)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // It fails when the child is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's part: sends every packet on standard input back until the other end closes.
///
/// # Errors
/// Those of the socket.
pub fn echo() -> io::Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let mut buffer = [0; 256];
    loop {
        match receive(&socket, &mut buffer)? {
            0 => return Ok(()),
            n => send(&socket, &buffer[..n])?,
        }
    }
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let mut control = SendAncillaryBuffer::default();
    sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    let mut control = RecvAncillaryBuffer::default();
    let mut parts = [IoSliceMut::new(buffer)];
    Ok(recvmsg(socket, &mut parts, &mut control, RecvFlags::empty())?.bytes)
}
