//! The store as its users see it, on real files.

use gantry_model::Timestamp;
use gantry_store::{Batch, Error, Migration, Options, Store};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Rec {
    n: u32,
    #[serde(default)]
    added_later: Option<String>,
}

fn rec(n: u32) -> Rec {
    Rec {
        n,
        added_later: None,
    }
}

#[test]
fn records_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    {
        let store = Store::open(&path).unwrap();
        let table = store.table::<Rec>("things");
        assert_eq!(table.get("a").unwrap(), None);
        table.put("a", &rec(1)).unwrap().wait().unwrap();
        table.put("b/x", &rec(2)).unwrap().wait().unwrap();
        table.put("b/y", &rec(3)).unwrap().wait().unwrap();
        table.put("c", &rec(4)).unwrap().wait().unwrap();
        table.delete("c").wait().unwrap();
        table.delete("never there").wait().unwrap();
    }
    let store = Store::open(&path).unwrap();
    let table = store.table::<Rec>("things");
    let keys: Vec<_> = table.list().unwrap().into_iter().map(|(k, _)| k).collect();
    assert_eq!(keys, ["a", "b/x", "b/y"]);
    assert_eq!(
        table.list_prefix("b/").unwrap(),
        [("b/x".into(), rec(2)), ("b/y".into(), rec(3))]
    );
    assert!(table.contains("a").unwrap() && !table.contains("c").unwrap());
    let mut seen = 0;
    table
        .for_each("", |_, _| {
            seen += 1;
            false
        })
        .unwrap();
    assert_eq!(seen, 1);
    let mode = std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_batch_is_whole_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    let (names, things) = (store.table::<String>("names"), store.table::<Rec>("things"));
    let claim = |id: u32| {
        let mut batch = Batch::new();
        batch.put(&things, &id.to_string(), &rec(id)).unwrap();
        batch.create(&names, "web", &id.to_string()).unwrap();
        batch.event(Timestamp::now(), json!({"claimed": id}));
        store.commit(batch).wait()
    };
    assert_eq!(claim(1).unwrap().events, [1]);
    assert!(
        matches!(claim(2), Err(Error::Exists { table, key }) if table == "names" && key == "web")
    );
    assert_eq!(things.list().unwrap().len(), 1);
    assert_eq!(store.events_after(0).unwrap().len(), 1);
}

#[test]
fn events_are_numbered_bounded_and_broadcast() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let options = Options {
        max_events: 10,
        ..Options::default()
    };
    let store = Store::open_with(&path, &options).unwrap();
    let mut live = store.subscribe();
    for n in 0..25_i64 {
        let mut batch = Batch::new();
        batch.event(Timestamp::from_unix(1000 + n, 0), json!(n));
        store.commit(batch).wait().unwrap();
    }
    assert_eq!(live.blocking_recv().unwrap().seq, 1);
    let kept = store.events_after(0).unwrap();
    assert_eq!(
        kept.iter().map(|e| e.seq).collect::<Vec<_>>(),
        (16..=25).collect::<Vec<_>>()
    );
    assert_eq!(store.events_after(24).unwrap()[0].value, json!(24));
    let window = store
        .events_between(
            Some(Timestamp::from_unix(1020, 0)),
            Some(Timestamp::from_unix(1022, 0)),
        )
        .unwrap();
    assert_eq!(window.len(), 2);
    drop(store);
    let store = Store::open_with(&path, &options).unwrap();
    let mut batch = Batch::new();
    batch.event(Timestamp::now(), json!(null));
    batch.event(Timestamp::now(), json!(null));
    assert_eq!(store.commit(batch).wait().unwrap().events, [26, 27]);
}

#[test]
fn many_writers_share_a_flush_and_all_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let store = store.clone();
            scope.spawn(move || {
                let table = store.table::<Rec>("things");
                for n in 0..50 {
                    table
                        .put(&format!("{writer}-{n}"), &rec(n))
                        .unwrap()
                        .wait()
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(store.table::<Rec>("things").list().unwrap().len(), 400);
}

#[tokio::test]
async fn commits_can_be_awaited_or_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    let table = store.table::<Rec>("things");
    table.put("left", &rec(1)).unwrap().detach();
    table.put("awaited", &rec(2)).unwrap().await.unwrap();
    assert!(
        table.contains("left").unwrap(),
        "batches are applied in order"
    );
}

#[test]
fn foreign_and_damaged_files_are_told_apart_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    std::fs::write(&path, b"#!/bin/sh\necho hello\n".repeat(500)).unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(Store::open(&path), Err(Error::NotAStore { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), before);

    let other = dir.path().join("other");
    {
        let db = redb::Database::create(&other).unwrap();
        let txn = db.begin_write().unwrap();
        txn.open_table(redb::TableDefinition::<&str, u64>::new("theirs"))
            .unwrap();
        txn.commit().unwrap();
    }
    assert!(matches!(Store::open(&other), Err(Error::NotAStore { .. })));

    let damaged = dir.path().join("damaged");
    {
        let store = Store::open(&damaged).unwrap();
        let table = store.table::<String>("things");
        for n in 0..200 {
            table
                .put(&n.to_string(), &"x".repeat(500))
                .unwrap()
                .wait()
                .unwrap();
        }
    }
    let mut bytes = std::fs::read(&damaged).unwrap();
    for byte in &mut bytes[4096..] {
        *byte ^= 0x5a;
    }
    std::fs::write(&damaged, &bytes).unwrap();
    let error = Store::open(&damaged).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

#[test]
fn one_process_holds_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let _store = Store::open(&path).unwrap();
    assert!(matches!(Store::open(&path), Err(Error::Locked { .. })));
}

#[test]
fn migrations_run_in_order_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    {
        let store = Store::open(&path).unwrap();
        store
            .table::<Rec>("things")
            .put("a", &rec(1))
            .unwrap()
            .wait()
            .unwrap();
    }
    let double = Migration {
        from: 1,
        run: |rewrite| {
            for (key, mut value) in rewrite.list("things")? {
                value["n"] = json!(value["n"].as_u64().ok_or("no n")? * 2);
                rewrite.put("doubled", &key, &value)?;
                rewrite.delete("things", &key)?;
            }
            Ok(())
        },
    };
    let refuse = Migration {
        from: 2,
        run: |_| Err("not today".into()),
    };
    fn to_version(
        path: &std::path::Path,
        version: u32,
        migrations: &[Migration],
    ) -> gantry_store::Result<Store> {
        Store::open_with(
            path,
            &Options {
                version,
                migrations,
                ..Options::default()
            },
        )
    }
    let to = |version, migrations: &[Migration]| to_version(&path, version, migrations);
    assert!(matches!(
        to(3, &[double, refuse]),
        Err(Error::Migration { from: 2, .. })
    ));
    let store = to(1, &[]).unwrap();
    assert_eq!(store.table::<Rec>("things").get("a").unwrap(), Some(rec(1)));
    drop(store);
    assert!(matches!(to(2, &[]), Err(Error::TooOld { found: 1, .. })));
    let store = to(2, &[double]).unwrap();
    assert_eq!(
        store.table::<Rec>("doubled").get("a").unwrap(),
        Some(rec(2))
    );
    assert!(store.table::<Rec>("things").list().unwrap().is_empty());
    drop(store);
    assert!(matches!(
        to(1, &[]),
        Err(Error::Newer {
            found: 2,
            supported: 1,
            ..
        })
    ));
}

#[test]
fn a_record_of_another_type_is_an_error_and_not_a_loss() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    store
        .table::<String>("things")
        .put("a", &"text".into())
        .unwrap()
        .wait()
        .unwrap();
    let error = store.table::<Rec>("things").get("a").unwrap_err();
    assert!(
        matches!(error, Error::Record { ref key, .. } if key == "a"),
        "{error}"
    );
    assert_eq!(
        store.table::<String>("things").get("a").unwrap().as_deref(),
        Some("text")
    );
}
