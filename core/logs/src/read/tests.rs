use std::io::Write;
use std::path::PathBuf;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::sync::watch;

use super::*;
use crate::files::tests::{entry, pack};

struct Runs(bool);

impl Alive for Runs {
    fn running(&self) -> bool {
        self.0
    }
}

type Lines = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

struct Bench {
    path: PathBuf,
    alive: watch::Sender<Runs>,
    _dir: tempfile::TempDir,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    Bench {
        path: dir.path().join("log"),
        alive: watch::Sender::new(Runs(true)),
        _dir: dir,
    }
}

impl Bench {
    fn append(&self, text: &str) {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
    fn rotated(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }
    fn logs(&self, follow: bool, tail: Option<u64>, until: Option<i64>) -> Lines {
        self.logs_up_to(None, follow, tail, until)
    }
    fn logs_up_to(
        &self,
        end: Option<u64>,
        follow: bool,
        tail: Option<u64>,
        until: Option<i64>,
    ) -> Lines {
        let source = Source {
            path: self.path.clone(),
            alive: self.alive.subscribe(),
            end,
        };
        let view = View {
            stdout: true,
            until,
            ..View::default()
        };
        Box::pin(stream(source, view, tail, follow))
    }
}

/// Reads until there are `want`'s bytes, which must be these.
async fn expect(logs: &mut Lines, want: &str) {
    let mut got = String::new();
    while got.len() < want.len() {
        let piece = logs.next().await.expect("more").unwrap();
        got.push_str(std::str::from_utf8(&piece).unwrap());
    }
    assert_eq!(got, want);
}

#[tokio::test]
async fn reads_what_is_there() {
    let bench = bench();
    assert!(bench.logs(false, None, None).next().await.is_none());
    bench.append(&(entry("a", 1) + &entry("b", 2) + "{\"log\":\"unfinished"));
    let mut logs = bench.logs(false, None, None);
    expect(&mut logs, "a\nb\n").await;
    assert!(logs.next().await.is_none());
    expect(&mut bench.logs(false, Some(2), None), "b\n").await;
    let mut logs = bench.logs(false, None, Some(1_000_000_000));
    expect(&mut logs, "a\n").await;
    assert!(logs.next().await.is_none());
}

#[tokio::test]
async fn follows_growth_rotation_compression_and_end() {
    let bench = bench();
    bench.append(&entry("a", 1));
    let mut logs = bench.logs(true, None, None);
    expect(&mut logs, "a\n").await;
    let b = entry("b", 2);
    bench.append(&b[..20]);
    bench.append(&b[20..]);
    expect(&mut logs, "b\n").await;
    // Rotated and at once compressed, as the names of two more rotations go by.
    let old = entry("a", 1) + &b + &entry("c", 3);
    bench.append(&entry("c", 3));
    std::fs::rename(&bench.path, bench.rotated("log.1")).unwrap();
    pack(&bench.rotated("log.2.gz"), &old);
    std::fs::remove_file(bench.rotated("log.1")).unwrap();
    std::fs::write(bench.rotated("log.1"), entry("d", 4)).unwrap();
    bench.append(&entry("e", 5));
    expect(&mut logs, "c\nd\ne\n").await;
    bench.append(&entry("f", 6));
    bench.alive.send_replace(Runs(false));
    expect(&mut logs, "f\n").await;
    assert!(logs.next().await.is_none());
    expect(&mut bench.logs(false, None, None), "a\nb\nc\nd\ne\nf\n").await;
    pack(&bench.rotated("log.1.gz"), &entry("d", 4));
    std::fs::remove_file(bench.rotated("log.1")).unwrap();
    expect(&mut bench.logs(false, Some(4), None), "c\nd\ne\nf\n").await;
}

#[tokio::test]
async fn follows_a_log_that_is_cleared_and_stops_at_a_time() {
    let bench = bench();
    bench.append(&entry("a", 1));
    let mut logs = bench.logs(true, None, None);
    expect(&mut logs, "a\n").await;
    bench.append(&entry("b", 2));
    expect(&mut logs, "b\n").await;
    std::fs::remove_file(&bench.path).unwrap();
    remove_rotated(&bench.path, i64::MAX).unwrap();
    bench.append(&entry("c", 3));
    expect(&mut logs, "c\n").await;
    let mut until = bench.logs(true, None, Some(4_000_000_000));
    expect(&mut until, "c\n").await;
    assert!(until.next().await.is_none(), "its time has passed");
}

#[tokio::test]
async fn large_logs_and_lines_across_pieces() {
    let bench = bench();
    let line = "x".repeat(10_000);
    let text: String = (0..100).map(|_| entry(&line, 1)).collect();
    bench.append(&text);
    let want = format!("{line}\n").repeat(100);
    expect(&mut bench.logs(false, None, None), &want).await;
}

#[tokio::test]
async fn a_limit_is_of_the_file_that_was_current() {
    let bench = bench();
    let (b, c) = (entry("b", 2), entry("c", 3));
    std::fs::write(bench.rotated("log.1"), entry("a", 1)).unwrap();
    std::fs::write(&bench.path, "").unwrap();
    let up_to = |end: usize| bench.logs_up_to(Some(end as u64), false, None, None);
    let mut empty = up_to(0);
    expect(&mut empty, "a\n").await;
    assert!(empty.next().await.is_none());
    bench.append(&(b.clone() + &c));
    let mut logs = up_to(b.len());
    expect(&mut logs, "a\nb\n").await;
    assert!(logs.next().await.is_none());
    // Rotated after the limit was taken.
    std::fs::rename(bench.rotated("log.1"), bench.rotated("log.2")).unwrap();
    std::fs::rename(&bench.path, bench.rotated("log.1")).unwrap();
    bench.append(&entry("d", 4));
    let mut logs = up_to(b.len() + c.len());
    expect(&mut logs, "a\nb\nc\n").await;
    assert!(logs.next().await.is_none());
}
