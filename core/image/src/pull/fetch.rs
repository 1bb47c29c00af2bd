//! One blob from a registry into the content store: resumed, retried, verified.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gantry_content::{Error as ContentError, Ingest};
use gantry_driver_api::registry::{Endpoint, FetchBlob, FetchReply, Repository};
use gantry_driver_api::{Call, DriverError, DriverResult, ErrorCode, Registry};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::retry;
use crate::record::Descriptor;
use crate::service::Shared;
use crate::unpack::{CHUNK, ChunkSender};
use crate::{Error, Message, Progress, Result};

/// How often a waiting thread looks whether it is still wanted.
const TICK: Duration = Duration::from_millis(100);
/// What a pipe from the driver holds; the most that is allowed without privileges.
const PIPE_SIZE: usize = 1 << 20;

/// A repository, and whoever waits for it.
pub(crate) struct Fetcher<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) registry: &'a dyn Registry,
    /// The server that answered first, then the others.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) repository: String,
    pub(crate) progress: &'a dyn Progress,
    /// Set when another part of the same operation has failed.
    pub(crate) abort: &'a AtomicBool,
}

/// Why an attempt ended.
enum Stop {
    /// The driver's word.
    Driver(DriverError),
    /// Ours; no use trying again.
    Here(Error),
}

impl Fetcher<'_> {
    fn gone(&self) -> bool {
        self.abort.load(Ordering::Relaxed) || self.progress.cancelled()
    }

    /// Waits, and says whether the operation is still wanted.
    fn rest(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            if self.gone() {
                return Err(Error::Cancelled);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(TICK));
        }
    }

    /// Brings a blob into the content store; bytes go to `tee` as well, from the first, as they come. Returns whether
    /// it did: `false` when somebody else has brought the blob meanwhile, and `tee` has got nothing.
    pub(crate) fn fetch(
        &self,
        blob: &Descriptor,
        id: Option<&str>,
        tee: Option<&ChunkSender>,
    ) -> Result<bool> {
        let Some(mut ingest) = self.begin(blob)? else {
            return Ok(false);
        };
        if let Some(tee) = tee {
            ingest.replay(|bytes| send(tee, bytes).is_ok())?;
        }
        let mut failures = 0;
        let mut endpoints = self.endpoints.iter().peekable();
        while ingest.offset() < blob.size {
            let Some(endpoint) = endpoints.peek() else {
                return Err(Error::Malformed("no registry to ask".into()));
            };
            let before = ingest.offset();
            let error = match self.attempt(endpoint, blob, id, &mut ingest, tee) {
                Ok(()) if ingest.offset() >= blob.size => break,
                Ok(()) => DriverError::new(ErrorCode::Unavailable, "unexpected EOF"),
                Err(Stop::Here(error)) => return Err(error),
                Err(Stop::Driver(error)) => error,
            };
            if ingest.offset() > before {
                failures = 0;
            }
            failures += 1;
            if !retry::is_transient(&error) || failures >= self.shared.settings().max_attempts {
                endpoints.next();
                if endpoints.peek().is_none() {
                    return Err(error.into());
                }
                failures = 0;
                continue;
            }
            tracing::debug!(digest = %blob.digest, %error, offset = ingest.offset(), "a download is tried again");
            let wait = retry::wait(failures, self.shared.settings().retry_base, &error);
            if let Some(id) = id {
                let seconds = wait.as_secs().max(1);
                let plural = if seconds == 1 { "" } else { "s" };
                self.progress.report(Message::step(
                    id,
                    &format!("Retrying in {seconds} second{plural}"),
                ));
            }
            self.rest(wait)?;
        }
        if let Some(id) = id {
            self.progress
                .report(Message::step(id, "Verifying Checksum"));
        }
        ingest.finish().map_err(|error| match error {
            ContentError::Mismatch { wanted, .. } => Error::Malformed(format!(
                "filesystem layer verification failed for digest {wanted}"
            )),
            other => other.into(),
        })?;
        if let Some(id) = id {
            self.progress.report(Message::step(id, "Download complete"));
        }
        Ok(true)
    }

    /// Takes hold of the blob, waiting for whoever else is fetching it; `None` when it is there.
    fn begin(&self, blob: &Descriptor) -> Result<Option<Ingest>> {
        loop {
            match self.shared.content.begin(&blob.digest, Some(blob.size)) {
                Ok(ingest) if self.shared.content.contains(&blob.digest) => {
                    ingest.discard();
                    return Ok(None);
                }
                Ok(ingest) => return Ok(Some(ingest)),
                Err(ContentError::Busy(_)) => self.rest(TICK)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// One call of the driver, which writes into a pipe that is read here.
    fn attempt(
        &self,
        endpoint: &Endpoint,
        blob: &Descriptor,
        id: Option<&str>,
        ingest: &mut Ingest,
        tee: Option<&ChunkSender>,
    ) -> std::result::Result<(), Stop> {
        let io = |error: rustix::io::Errno| Stop::Here(Error::io("a pipe", error.into()));
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(io)?;
        // A smaller pipe is only slower.
        let _ = rustix::pipe::fcntl_setpipe_size(&writer, PIPE_SIZE);
        let request = FetchBlob {
            at: Repository {
                endpoint: endpoint.clone(),
                repository: self.repository.clone(),
            },
            digest: blob.digest.to_string(),
            offset: ingest.offset(),
        };
        let returned = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let returned = &returned;
            let call = std::thread::Builder::new()
                .name("fetch".into())
                .spawn_scoped(scope, move || {
                    let fds = [writer.as_fd()];
                    let call = Call::new("pull").with_fds(&fds);
                    let reply = self.registry.fetch_blob(&call, request);
                    drop(writer);
                    returned.store(true, Ordering::Release);
                    reply
                })
                .map_err(|error| Stop::Here(Error::io("starting a thread", error)))?;
            let read = self.read(reader, blob, id, ingest, tee, returned);
            let reply: DriverResult<FetchReply> = call
                .join()
                .unwrap_or_else(|_| Err(DriverError::internal("the registry driver panicked")));
            read.map_err(Stop::Here)?;
            reply.map(|_| ()).map_err(Stop::Driver)
        })
    }

    /// Reads the pipe to its end into the ingest and the tee.
    fn read(
        &self,
        reader: OwnedFd,
        blob: &Descriptor,
        id: Option<&str>,
        ingest: &mut Ingest,
        tee: Option<&ChunkSender>,
        returned: &AtomicBool,
    ) -> Result<()> {
        let tick = Timespec {
            tv_sec: 0,
            tv_nsec: TICK.as_nanos().try_into().unwrap_or(i64::MAX),
        };
        let mut buffer = vec![0; CHUNK];
        let mut reported = Instant::now();
        loop {
            if self.gone() {
                return Err(Error::Cancelled);
            }
            let ended = returned.load(Ordering::Acquire);
            let mut ready = [PollFd::new(&reader, PollFlags::IN)];
            match poll(&mut ready, Some(&tick)) {
                // Whoever else holds the writing end will not write after the call has returned.
                Ok(0) if ended => return Ok(()),
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => {
                    return Err(Error::io("waiting for the registry driver", error.into()));
                }
            }
            let count = rustix::io::read(&reader, &mut buffer)
                .map_err(|error| Error::io("reading from the registry driver", error.into()))?;
            if count == 0 {
                return Ok(());
            }
            ingest.write(&buffer[..count])?;
            if let Some(tee) = tee {
                send(tee, &buffer[..count])
                    .map_err(|error| Error::io("handing on a layer", error))?;
            }
            if let Some(id) = id
                && (reported.elapsed() >= TICK || ingest.offset() == blob.size)
            {
                reported = Instant::now();
                self.progress.report(Message::moving(
                    id,
                    "Downloading",
                    ingest.offset(),
                    blob.size,
                ));
            }
        }
    }
}

fn send(tee: &ChunkSender, bytes: &[u8]) -> io::Result<()> {
    tee.send(Ok(bytes.to_vec()))
        .map_err(|_| io::ErrorKind::BrokenPipe.into())
}
