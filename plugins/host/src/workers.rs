//! Threads that run calls with a deadline, so that the caller can stop waiting.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Calls of one driver that may run (or hang) at once.
const MAX_THREADS: usize = 64;
/// How long a thread waits for its next call before it ends.
const LINGER: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// A pool that grows with the calls under way and shrinks when it is idle.
#[derive(Default)]
pub(crate) struct Workers {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    idle: usize,
    threads: usize,
}

impl Workers {
    /// Runs `job` on some thread, soon. False, without running it, when all threads are taken.
    pub(crate) fn run(self: &Arc<Self>, job: Job) -> bool {
        let mut state = self.state.lock();
        if state.idle <= state.queue.len() {
            if state.threads == MAX_THREADS {
                return false;
            }
            let pool = self.clone();
            let thread = std::thread::Builder::new().name("driver-call".to_owned());
            if thread.spawn(move || pool.serve()).is_err() {
                return false;
            }
            state.threads += 1;
        }
        state.queue.push_back(job);
        drop(state);
        self.work.notify_one();
        true
    }

    fn serve(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                job();
                state = self.state.lock();
                continue;
            }
            state.idle += 1;
            let waited = self.work.wait_for(&mut state, LINGER);
            state.idle -= 1;
            if waited.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}
