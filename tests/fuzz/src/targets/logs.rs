//! Log files that were cut off, or that somebody else wrote.

use std::sync::OnceLock;

use futures_util::StreamExt;
use gantry_logs::Alive;
use gantry_logs::read::{Source, View, stream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::bytes;
use crate::Target;

pub(super) const LOGS: Target = Target {
    name: "logs",
    run: logs,
    seeds: || {
        bytes(&[
            "{\"log\":\"one\\n\",\"stream\":\"stdout\",\"time\":\"2024-01-02T03:04:05.000000006Z\"}\n{\"log\":\"two \\u00e9\",\"stream\":\"stderr\",\"attrs\":{\"k\":\"v\"},\"time\":\"2024-01-02T03:04:06Z\"}\n",
        ])
    },
    words: &[
        "{\"log\":\"",
        "\"stream\":\"stdout\"",
        "\"time\":\"",
        "\\u0000",
        "\\ud800",
        "\"attrs\":",
    ],
    rounds: 2_000,
};

struct Ended;

impl Alive for Ended {
    fn running(&self) -> bool {
        false
    }
}

fn logs(input: &[u8]) {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| Runtime::new().expect("threads can be started"));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    std::fs::write(&path, input).expect("it is ours");
    for (tail, timestamps) in [(None, false), (Some(3), true)] {
        let view = View {
            stdout: true,
            stderr: true,
            since: None,
            until: None,
            timestamps,
            details: true,
            framed: timestamps,
            joined: false,
        };
        runtime.block_on(async {
            let (_keep, alive) = watch::channel(Ended);
            let source = Source {
                path: path.clone(),
                alive,
                end: None,
            };
            let mut pieces = std::pin::pin!(stream(source, view, tail, false));
            while pieces.next().await.is_some() {}
        });
    }
}
