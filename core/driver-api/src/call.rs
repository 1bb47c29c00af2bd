//! What accompanies every call: identity, deadline and descriptors.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// The context of one call into a driver.
#[derive(Debug, Clone, Copy, Default)]
pub struct Call<'a> {
    /// Names the operation in logs; the same for every retry of one operation.
    pub operation: &'a str,
    /// How long the caller waits. A driver that blocks should give up then with `DeadlineExceeded`; the host does not
    /// wait longer either way. Without one the host sets a generous limit of its own, where a driver could hang;
    /// `Duration::MAX` means for ever.
    pub timeout: Option<Duration>,
    /// Descriptors that belong to the request, in the order that its type documents. Borrowed for the call.
    pub fds: &'a [BorrowedFd<'a>],
}

impl<'a> Call<'a> {
    /// A call named `operation` without deadline or descriptors.
    #[must_use]
    pub fn new(operation: &'a str) -> Self {
        Self {
            operation,
            timeout: None,
            fds: &[],
        }
    }
    /// The same call with descriptors.
    #[must_use]
    pub fn with_fds(self, fds: &'a [BorrowedFd<'a>]) -> Self {
        Self { fds, ..self }
    }
    /// The same call that gives up after `timeout`.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..self
        }
    }
    /// When the call's time is over, counted from `now`; none when it never is.
    #[must_use]
    pub fn expires(&self, now: Instant) -> Option<Instant> {
        self.timeout.and_then(|timeout| now.checked_add(timeout))
    }
}
