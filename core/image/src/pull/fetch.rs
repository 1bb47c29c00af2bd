//! One blob from a registry into the content store: resumed, retried, verified.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gantry_content::{Error as ContentError, Ingest};
use gantry_driver_api::registry::{Endpoint, FetchBlob, FetchReply, Repository};
use gantry_driver_api::{Call, DriverError, DriverResult, ErrorCode, Registry};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::retry::{self, Failures};
use super::tee::Tee;
use crate::chunks::ChunkSender;
use crate::record::Descriptor;
use crate::service::Shared;
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
    /// The server sends something else.
    Wrong(Error),
    /// Ours; no use trying again.
    Here(Error),
}

impl Fetcher<'_> {
    fn gone(&self) -> bool {
        self.abort.load(Ordering::Relaxed) || self.progress.cancelled()
    }

    /// Waits, and says whether the operation is still wanted.
    fn rest(&self, time: Duration) -> Result<()> {
        retry::rest(time, || self.gone());
        match self.gone() {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    }

    /// Brings a blob into the content store; bytes go to `tee` as well, from the first, as they come. Returns whether `tee`
    /// has got the blob: `false` when somebody else has brought it meanwhile, or when what came first was another's.
    pub(crate) fn fetch(
        &self,
        blob: &Descriptor,
        id: Option<&str>,
        tee: Option<&ChunkSender>,
    ) -> Result<bool> {
        let mut tee = Tee::new(tee);
        let mut at = 0;
        // The first server is the one that knew the image: its failure tells more than those of the others.
        let mut failure: Option<Error> = None;
        while let Some(endpoint) = self.endpoints.get(at) {
            let Some(mut ingest) = self.begin(blob)? else {
                tee.spoil();
                return Ok(false);
            };
            tee.replay(&mut ingest)?;
            let resumed = ingest.offset() > 0;
            let downloaded = self.download(endpoint, blob, id, &mut ingest, &mut tee);
            match downloaded.and_then(|()| self.verify(ingest, id)) {
                Ok(()) => return Ok(tee.is_whole()),
                Err(Stop::Here(error)) => return Err(error),
                Err(Stop::Driver(error)) => {
                    failure.get_or_insert(error.into());
                    at += 1;
                }
                Err(Stop::Wrong(error)) => {
                    tracing::warn!(server = endpoint.url, %error, "a server sends other bytes than those asked for");
                    tee.spoil();
                    failure.get_or_insert(error);
                    // It may have been another's beginning that was gone on with.
                    at += usize::from(!resumed);
                }
            }
        }
        Err(failure.unwrap_or_else(|| Error::Malformed("no registry to ask".into())))
    }

    fn verify(&self, ingest: Ingest, id: Option<&str>) -> std::result::Result<(), Stop> {
        let step = |text| {
            if let Some(id) = id {
                self.progress.report(Message::step(id, text));
            }
        };
        step("Verifying Checksum");
        ingest.finish().map_err(|error| match error {
            ContentError::Mismatch { wanted, .. } => Stop::Wrong(Error::Malformed(format!(
                "filesystem layer verification failed for digest {wanted}"
            ))),
            other => Stop::Here(other.into()),
        })?;
        step("Download complete");
        Ok(())
    }

    /// Fetches what is missing of a blob from one server, in as many attempts as it takes, while bytes come or attempts are
    /// left.
    fn download(
        &self,
        endpoint: &Endpoint,
        blob: &Descriptor,
        id: Option<&str>,
        ingest: &mut Ingest,
        tee: &mut Tee<'_>,
    ) -> std::result::Result<(), Stop> {
        let mut failures = Failures::default();
        while ingest.offset() < blob.size {
            let before = ingest.offset();
            let error = match self.attempt(endpoint, blob, id, ingest, tee) {
                Ok(()) if ingest.offset() >= blob.size => break,
                Ok(()) => DriverError::new(ErrorCode::Unavailable, "unexpected EOF"),
                Err(Stop::Driver(error)) => error,
                Err(stop) => return Err(stop),
            };
            let got_on = ingest.offset() > before;
            let settings = self.shared.settings();
            let Some(wait) = failures.after(&error, got_on, &settings) else {
                return Err(Stop::Driver(error));
            };
            tracing::debug!(digest = %blob.digest, %error, offset = ingest.offset(), "a download is tried again");
            if let Some(id) = id {
                self.progress.report(Message::retrying(id, wait));
            }
            self.rest(wait).map_err(Stop::Here)?;
        }
        Ok(())
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
        tee: &mut Tee<'_>,
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
            read?;
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
        tee: &mut Tee<'_>,
        returned: &AtomicBool,
    ) -> std::result::Result<(), Stop> {
        let tick = Timespec {
            tv_sec: 0,
            tv_nsec: TICK.as_nanos().try_into().unwrap_or(i64::MAX),
        };
        let io = |what, error: rustix::io::Errno| Stop::Here(Error::io(what, error.into()));
        let mut reported = Instant::now();
        let mut buffer = tee.buffer();
        loop {
            if self.gone() {
                return Err(Stop::Here(Error::Cancelled));
            }
            let ended = returned.load(Ordering::Acquire);
            let mut ready = [PollFd::new(&reader, PollFlags::IN)];
            match poll(&mut ready, Some(&tick)) {
                // Whoever else holds the writing end will not write after the call has returned.
                Ok(0) if ended => return Ok(()),
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(io("waiting for the registry driver", error)),
            }
            let count = rustix::io::read(&reader, &mut buffer)
                .map_err(|error| io("reading from the registry driver", error))?;
            if count == 0 {
                return Ok(());
            }
            match ingest.write(&buffer[..count]) {
                Ok(()) => {}
                Err(error @ ContentError::Size { .. }) => {
                    ingest.restart().map_err(|error| Stop::Here(error.into()))?;
                    return Err(Stop::Wrong(error.into()));
                }
                Err(error) => return Err(Stop::Here(error.into())),
            }
            buffer = tee.pass(buffer, count);
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
