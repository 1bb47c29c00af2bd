//! Sending one blob: as one stream, which goes on from what the server has when it was cut.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use gantry_driver_api::registry::{BeginUpload, FinishUpload, Upload, UploadChunk, UploadStatus};
use gantry_driver_api::{Call, DriverError, DriverResult, ErrorCode};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use super::{Pusher, refused};
use crate::pull::retry::{self, Failures};
use crate::record::Descriptor;
use crate::{Error, Message, Result};

/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);
/// What a pipe to the driver holds; the most that is allowed without privileges.
const PIPE_SIZE: usize = 1 << 20;

impl Pusher<'_> {
    /// Sends a blob. What may pass is tried again, as long as the server gets on or attempts are left.
    pub(super) fn upload(&self, blob: &Descriptor, id: Option<&str>) -> Result<()> {
        let mut upload = None;
        let mut failures = Failures::default();
        loop {
            let before = offset(upload.as_ref());
            let Err(error) = self.attempt(&mut upload, blob, id) else {
                return Ok(());
            };
            if self.gone() {
                return Err(Error::Cancelled);
            }
            let got_on = offset(upload.as_ref()) > before;
            let settings = self.shared.settings();
            let Some(wait) = failures.after(&error, got_on, &settings) else {
                return Err(refused(error));
            };
            tracing::debug!(digest = %blob.digest, %error, "an upload is tried again");
            if let Some(id) = id {
                self.progress.report(Message::retrying(id, wait));
            }
            retry::rest(wait, || self.gone());
        }
    }

    /// Begins, or goes on with what an earlier attempt has left in `upload`.
    fn attempt(
        &self,
        upload: &mut Option<Upload>,
        blob: &Descriptor,
        id: Option<&str>,
    ) -> DriverResult<()> {
        let at = match upload.clone() {
            Some(cut) => self.where_cut(cut, blob)?,
            None => None,
        };
        let at = match at {
            Some(at) => at,
            None => self.begin(blob)?,
        };
        let at = upload.insert(at);
        while at.offset < blob.size {
            match self.send_rest(at, blob, id) {
                Ok(next) if next.offset > at.offset => *at = next,
                Ok(_) => {
                    let text = "the registry took nothing of what was sent";
                    return Err(DriverError::new(ErrorCode::Unavailable, text));
                }
                // A driver that takes whole blobs only.
                Err(error) if error.code == ErrorCode::NotImplemented && at.offset == 0 => break,
                Err(error) => return Err(error),
            }
        }
        self.finish(at, blob, id)
    }

    fn begin(&self, blob: &Descriptor) -> DriverResult<Upload> {
        let request = BeginUpload {
            at: self.at.clone(),
            digest: blob.digest.to_string(),
            mount_from: String::new(),
        };
        self.registry.begin_upload(&Call::new("push"), request)
    }

    /// How far an upload has come; `None` when it has to begin anew.
    fn where_cut(&self, cut: Upload, blob: &Descriptor) -> DriverResult<Option<Upload>> {
        let request = UploadStatus {
            at: self.at.clone(),
            location: cut.location,
        };
        match self.registry.upload_status(&Call::new("push"), request) {
            Ok(upload) => Ok(Some(upload).filter(|upload| upload.offset <= blob.size)),
            // Many servers keep nothing of what was cut.
            Err(error) if !retry::is_transient(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends all that the server does not have.
    fn send_rest(&self, at: &Upload, blob: &Descriptor, id: Option<&str>) -> DriverResult<Upload> {
        let request = UploadChunk {
            at: self.at.clone(),
            location: at.location.clone(),
            offset: at.offset,
            size: blob.size - at.offset,
        };
        self.send(at.offset, blob, id, |call| {
            self.registry.upload_chunk(call, request)
        })
    }

    /// Has the server verify and keep what it has got, together with what is left.
    fn finish(&self, at: &Upload, blob: &Descriptor, id: Option<&str>) -> DriverResult<()> {
        let request = FinishUpload {
            at: self.at.clone(),
            location: at.location.clone(),
            digest: blob.digest.to_string(),
            size: blob.size - at.offset,
        };
        if request.size == 0 {
            return self.registry.finish_upload(&Call::new("push"), request);
        }
        self.send(at.offset, blob, id, |call| {
            self.registry.finish_upload(call, request)
        })
    }

    /// One call of the driver, which reads a pipe that is filled here.
    fn send<T: Send>(
        &self,
        from: u64,
        blob: &Descriptor,
        id: Option<&str>,
        call: impl FnOnce(&Call<'_>) -> DriverResult<T> + Send,
    ) -> DriverResult<T> {
        let io = |error: rustix::io::Errno| DriverError::io("a pipe", &error.into());
        let file = self
            .shared
            .content
            .open_blob(&blob.digest)
            .map_err(|error| DriverError::internal(error.to_string()))?;
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(io)?;
        // A smaller pipe is only slower.
        let _ = rustix::pipe::fcntl_setpipe_size(&writer, PIPE_SIZE);
        std::thread::scope(|scope| {
            let call = std::thread::Builder::new()
                .name("send".into())
                .spawn_scoped(scope, move || {
                    let fds = [reader.as_fd()];
                    call(&Call::new("push").with_fds(&fds))
                })
                .map_err(|error| DriverError::io("starting a thread", &error))?;
            let filled = self.fill(&file, writer, from, blob.size, id);
            let sent = call
                .join()
                .unwrap_or_else(|_| Err(DriverError::internal("the registry driver panicked")));
            match (sent, filled) {
                (Ok(sent), _) => Ok(sent),
                // What stopped us here is the reason for what the driver says.
                (Err(_), Err(error)) => Err(error),
                (Err(error), Ok(())) => Err(error),
            }
        })
    }

    /// Hands a blob from byte `sent` on to the driver without copying it. A driver that reads no more has its reason.
    fn fill(
        &self,
        file: &std::fs::File,
        writer: OwnedFd,
        mut sent: u64,
        size: u64,
        id: Option<&str>,
    ) -> DriverResult<()> {
        let mut told = Instant::now();
        while sent < size {
            if self.gone() {
                return Err(DriverError::new(ErrorCode::Cancelled, "context canceled"));
            }
            // Moves the offset on.
            let from = Some(&mut sent);
            match splice(file, from, &writer, None, PIPE_SIZE, SpliceFlags::empty()) {
                Ok(0) => return Err(DriverError::internal("a blob is shorter than it was")),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::PIPE) => return Ok(()),
                Err(error) => return Err(DriverError::io("reading a blob", &error.into())),
            }
            if let Some(id) = id
                && (told.elapsed() >= TICK || sent == size)
            {
                told = Instant::now();
                self.progress
                    .report(Message::moving(id, "Pushing", sent, size));
            }
        }
        Ok(())
    }
}

fn offset(upload: Option<&Upload>) -> u64 {
    upload.map_or(0, |upload| upload.offset)
}
