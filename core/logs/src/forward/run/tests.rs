use std::collections::VecDeque;
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::files::tests::{entry, pack};
use crate::forward::{Undelivered, Work};

struct Runs(bool);

impl Alive for Runs {
    fn running(&self) -> bool {
        self.0
    }
}

/// What a receiver got, and what it is going to do: `Some(n)` takes n messages of a batch and fails.
#[derive(Default)]
struct State {
    got: Vec<String>,
    script: VecDeque<Option<usize>>,
    calls: usize,
}

#[derive(Clone, Default)]
struct Receiver {
    state: Arc<Mutex<State>>,
    tries: Option<u64>,
}

impl Forwarder for Receiver {
    fn connect(&mut self) -> Work<'_, io::Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn send<'a>(&'a mut self, batch: &'a [Message]) -> Work<'a, Result<(), Undelivered>> {
        let mut state = self.state.lock().unwrap();
        state.calls += 1;
        let take = state.script.pop_front().flatten();
        let texts = batch.iter().take(take.unwrap_or(batch.len()));
        let texts: Vec<String> = texts
            .map(|m| String::from_utf8_lossy(&m.text).into_owned())
            .collect();
        state.got.extend(texts);
        let outcome = match take {
            None => Ok(()),
            Some(sent) => Err(Undelivered {
                sent,
                error: io::ErrorKind::ConnectionReset.into(),
            }),
        };
        Box::pin(std::future::ready(outcome))
    }
    fn patience(&self) -> Patience {
        Patience {
            tries: self.tries,
            ..Patience::default()
        }
    }
}

struct Bench {
    dir: tempfile::TempDir,
    alive: watch::Sender<Runs>,
    receiver: Receiver,
}

impl Bench {
    fn new(script: &[Option<usize>]) -> Self {
        let receiver = Receiver::default();
        receiver.state.lock().unwrap().script = script.iter().copied().collect();
        Self {
            dir: tempfile::tempdir().unwrap(),
            alive: watch::Sender::new(Runs(true)),
            receiver,
        }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn append(&self, text: &str) {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
    fn job(&self) -> Job<Runs> {
        Job {
            container: "c".into(),
            path: self.path("log"),
            cursor: self.path("cursor"),
            forwarder: Box::new(self.receiver.clone()),
            alive: self.alive.subscribe(),
            hurry: Arc::default(),
        }
    }
    /// Forwards what is there, as after the container's end.
    async fn rest(&self) -> Vec<String> {
        self.alive.send_replace(Runs(false));
        run(self.job()).await.unwrap();
        std::mem::take(&mut self.receiver.state.lock().unwrap().got)
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_delivered_is_not_sent_again_and_the_rest_is() {
    // The second message fails twice, then everything goes through.
    let bench = Bench::new(&[Some(1), Some(0), None]);
    bench.append(&(entry("a", 1) + &entry("b", 2) + &entry("c", 3)));
    assert_eq!(bench.rest().await, ["a", "b", "c"]);
    assert_eq!(bench.receiver.state.lock().unwrap().calls, 3);
    assert!(bench.rest().await.is_empty(), "the cursor is kept");
    bench.append(&entry("d", 4));
    assert_eq!(bench.rest().await, ["d"]);
}

#[tokio::test]
async fn goes_on_through_rotation_compression_and_restarts() {
    let bench = Bench::new(&[]);
    let (a, b, c) = (entry("a", 1), entry("b", 2), entry("c", 3));
    bench.append(&a);
    let task = tokio::spawn(run(bench.job()));
    let got = || bench.receiver.state.lock().unwrap().got.clone();
    while got().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The daemon is killed; the log goes on, is rotated twice and compressed.
    task.abort();
    let _ = task.await;
    bench.append(&b);
    pack(&bench.path("log.2.gz"), &(a + &b));
    std::fs::write(bench.path("log.1"), &c).unwrap();
    std::fs::write(bench.path("log"), entry("d", 4)).unwrap();
    assert_eq!(bench.rest().await, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn what_was_rotated_away_is_skipped() {
    let bench = Bench::new(&[]);
    bench.append(&entry("a", 1));
    assert_eq!(bench.rest().await, ["a"]);
    std::fs::write(bench.path("log"), entry("z", 9)).unwrap();
    assert_eq!(bench.rest().await, ["z"]);
}

#[tokio::test(start_paused = true)]
async fn gives_up_when_told_how_often_to_try() {
    let mut bench = Bench::new(&[Some(0), Some(0), Some(0), None]);
    bench.receiver.tries = Some(2);
    bench.append(&entry("a", 1));
    assert!(bench.rest().await.is_empty());
    bench.append(&entry("b", 2));
    assert_eq!(bench.rest().await, ["b"]);
}

#[test]
fn batches() {
    let message = |length: usize| Message {
        nanos: 0,
        stderr: false,
        text: vec![b'x'; length],
        partial: None,
    };
    let messages = [message(4), message(4), message(4)];
    assert_eq!(fitting(&messages, 8), 2);
    assert_eq!(fitting(&messages, 1), 1);
    assert_eq!(fitting(&messages, 100), 3);
}
