use std::io::Write;
use std::path::PathBuf;

use futures_util::StreamExt;
use tokio::sync::watch;

use crate::container::Progress;
use crate::logs::{Logs, Source, open};
use crate::query::LogsQuery;

fn entry(text: &str) -> String {
    format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2024-05-06T07:08:09Z\"}}\n")
}

struct Bench {
    path: PathBuf,
    progress: watch::Sender<Progress>,
    _dir: tempfile::TempDir,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let running = Progress {
        running: true,
        ..Progress::default()
    };
    Bench {
        path: dir.path().join("log"),
        progress: watch::Sender::new(running),
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
    fn logs(&self, follow: bool, tail: Option<u64>) -> Logs {
        let source = Source {
            path: self.path.clone(),
            progress: self.progress.subscribe(),
            end: None,
        };
        let query = LogsQuery {
            follow,
            tail,
            stdout: true,
            ..LogsQuery::default()
        };
        open(source, false, &query).unwrap()
    }
}

/// The next `count` lines.
async fn lines(logs: &mut Logs, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.len() < count {
        let batch = logs.stream.next().await.expect("more lines").unwrap();
        lines.extend(
            batch
                .into_iter()
                .map(|line| String::from_utf8_lossy(&line.bytes).trim_end().to_owned()),
        );
    }
    lines
}

#[tokio::test]
async fn reads_what_is_there() {
    let bench = bench();
    let mut nothing = bench.logs(false, None);
    assert!(nothing.stream.next().await.is_none());
    bench.append(&(entry("a") + &entry("b") + "{\"log\":\"unfinished"));
    let mut logs = bench.logs(false, None);
    assert_eq!(lines(&mut logs, 2).await, ["a", "b"]);
    assert!(logs.stream.next().await.is_none());
    assert_eq!(lines(&mut bench.logs(false, Some(2)), 1).await, ["b"]);
}

#[tokio::test]
async fn follows_growth_rotation_and_end() {
    let bench = bench();
    bench.append(&entry("a"));
    let mut logs = bench.logs(true, None);
    assert_eq!(lines(&mut logs, 1).await, ["a"]);
    let (begin, end) = (&entry("b")[..20], &entry("b")[20..]);
    bench.append(begin);
    bench.append(end);
    assert_eq!(lines(&mut logs, 1).await, ["b"]);
    bench.append(&entry("c"));
    std::fs::rename(&bench.path, bench.path.with_file_name("log.1")).unwrap();
    bench.append(&entry("d"));
    assert_eq!(lines(&mut logs, 2).await, ["c", "d"]);
    bench.append(&entry("e"));
    bench.progress.send_modify(|p| p.running = false);
    assert_eq!(lines(&mut logs, 1).await, ["e"]);
    assert!(logs.stream.next().await.is_none());
}
