//! Fetching a blob into a descriptor.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use gantry_plugin_sdk::registry::{FetchBlob, FetchReply};
use gantry_plugin_sdk::{DriverError, DriverResult, ErrorCode};
use http::header::RANGE;
use http::{HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::Hub;
use crate::client::{PATIENCE, Purpose};
use crate::error::unsent;
use crate::http_call::{Answer, Wanted};

/// How often it is checked whether anybody still reads.
const TICK: Duration = Duration::from_millis(500);

impl Hub {
    pub(crate) async fn blob(
        &self,
        request: FetchBlob,
        target: BorrowedFd<'_>,
    ) -> DriverResult<FetchReply> {
        let mut wanted = Wanted::pull(Method::GET, &request.at.repository);
        wanted.purpose = Purpose::Fetch;
        if request.offset > 0 {
            let range = HeaderValue::try_from(format!("bytes={}-", request.offset))
                .map_err(|_| DriverError::internal("a number is no header"))?;
            wanted.headers.insert(RANGE, range);
        }
        let path = format!("blobs/{}", request.digest);
        let answer = self
            .request(&request.at, &path, wanted)
            .await?
            .succeeded()
            .await?;
        let offset = starts_at(&answer, request.offset)?;
        let skip = request.offset - offset;
        let written = copy(answer, skip, target).await?;
        Ok(FetchReply { offset, written })
    }
}

/// Where the answer's bytes begin.
fn starts_at(answer: &Answer, wanted: u64) -> DriverResult<u64> {
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(0);
    }
    let start = answer
        .header("content-range")
        .and_then(|range| range.trim().strip_prefix("bytes "))
        .and_then(|range| range.split('-').next()?.trim().parse().ok());
    match start {
        Some(start) if start == wanted => Ok(start),
        _ => Err(DriverError::new(
            ErrorCode::Unavailable,
            format!("the registry answered another range than from byte {wanted} on"),
        )),
    }
}

/// Writes the body from byte `skip` on.
async fn copy(answer: Answer, mut skip: u64, target: BorrowedFd<'_>) -> DriverResult<u64> {
    let (method, uri) = (answer.method().clone(), answer.uri().clone());
    let mut body = answer.response.into_body();
    let mut written = 0;
    let mut heard = Instant::now();
    loop {
        let frame = match tokio::time::timeout(TICK, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(unsent(&method, &uri, &error)),
            Ok(None) => return Ok(written),
            Err(elapsed) if heard.elapsed() >= PATIENCE => {
                return Err(unsent(&method, &uri, &elapsed));
            }
            Err(_) => {
                if is_abandoned(target) {
                    return Err(abandoned());
                }
                continue;
            }
        };
        heard = Instant::now();
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(data.len());
        skip -= skipped as u64;
        write_all(target, &data[skipped..])?;
        written += (data.len() - skipped) as u64;
    }
}

/// Blocks this call's own thread, which is what slows the server down when the reader is slower.
fn write_all(target: BorrowedFd<'_>, mut bytes: &[u8]) -> DriverResult<()> {
    while !bytes.is_empty() {
        match rustix::io::write(target, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut ready = [PollFd::from_borrowed_fd(target, PollFlags::OUT)];
                let _ = poll(&mut ready, None);
            }
            Err(Errno::PIPE) => return Err(abandoned()),
            Err(error) => return Err(DriverError::io("writing a blob", &error.into())),
        }
    }
    Ok(())
}

fn is_abandoned(target: BorrowedFd<'_>) -> bool {
    let mut ready = [PollFd::from_borrowed_fd(target, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(poll(&mut ready, Some(&now)), Ok(1)) && ready[0].revents().contains(PollFlags::ERR)
}

fn abandoned() -> DriverError {
    DriverError::new(ErrorCode::Cancelled, "the reader has gone")
}
