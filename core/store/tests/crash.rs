//! Power-cut's little brother: a writer is killed in the middle of its commits, over and over.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use gantry_model::Timestamp;
use gantry_store::{Batch, Store};

/// Set in the child: the path of the store.
const CHILD: &str = "GANTRY_STORE_CRASH_CHILD";

/// Not a test of its own: the process that is killed. Each acknowledged number is printed.
#[test]
fn child_commits_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let store = Store::open(path.as_ref()).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let store = &store;
            scope.spawn(move || {
                let (left, right) = (store.table::<u64>("left"), store.table::<u64>("right"));
                let start = left.list_prefix(&format!("{writer}-")).unwrap().len() as u64;
                for n in start.. {
                    let key = format!("{writer}-{n:08}");
                    let mut batch = Batch::new();
                    batch.put(&left, &key, &n).unwrap();
                    batch.put(&right, &key, &n).unwrap();
                    batch.event(Timestamp::now(), serde_json::json!(key));
                    store.commit(batch).wait().unwrap();
                    println!("ack {key}");
                }
            });
        }
    });
}

#[test]
fn acknowledged_survives_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut acknowledged = std::collections::BTreeSet::new();
    for round in 1..=6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_commits_until_it_is_killed", "--exact", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.by_ref().map_while(Result::ok).take(100 * round) {
            acknowledged.extend(line.strip_prefix("ack ").map(str::to_owned));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            // The last line may be cut off in the middle.
            acknowledged.extend(
                line.strip_prefix("ack ")
                    .filter(|key| key.len() == 10)
                    .map(str::to_owned),
            );
        }

        let store = Store::open(&path).unwrap();
        let left = store.table::<u64>("left").list().unwrap();
        let right = store.table::<u64>("right").list().unwrap();
        assert_eq!(left, right, "a batch was applied in part");
        for key in &acknowledged {
            assert!(
                left.binary_search_by(|(k, _)| k.cmp(key)).is_ok(),
                "{key} was acknowledged and is gone"
            );
        }
        let events = store.events_after(0).unwrap();
        let newest = events.last().unwrap().seq;
        assert_eq!(newest, left.len() as u64, "events and changes disagree");
        assert!(events.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
    }
    assert!(acknowledged.len() > 500);
}
