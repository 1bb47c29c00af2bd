//! Disks that rot, and records that are wrong.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use gantry_e2e::{Engine, Registry, Relay, bin_dir, eventually, run};
use serde_json::Value;

use crate::tools::{
    LAYER, MB, fsck, in_order, kinds, push_image, runs, snapshots, trash_is_empty, usage,
};

/// Blobs of more than `size` bytes.
fn large_blobs(engine: &Engine, size: u64) -> Vec<PathBuf> {
    let blobs = fs::read_dir(engine.data().join("content/blobs/sha256")).unwrap();
    let mut large: Vec<PathBuf> = blobs
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.metadata().unwrap().len() > size)
        .collect();
    large.sort();
    large
}

/// The snapshot directory whose own files have `name`.
fn snapshot_with(engine: &Engine, name: &str) -> PathBuf {
    snapshots(engine.data())
        .iter()
        .flat_map(|directory| fs::read_dir(directory).unwrap())
        .map(|entry| entry.unwrap().path())
        .find(|path| path.join("fs").join(name).exists())
        .unwrap()
}

fn flip_last_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_rots_is_found_and_mended() {
    let registry = Registry::start();
    push_image(&registry, "big:1");
    let relay = Relay::start(registry.port());
    let mut engine = Engine::with(Default::default());
    let name = format!("{}/big:1", relay.domain());
    engine.docker(&["pull", "-q", &name]).ok();
    in_order(&engine, "a pull");

    // A snapshot of which a file has changed, under two others: unpacked again in its place.
    flip_last_byte(&snapshot_with(&engine, "one").join("fs/one"));
    assert_eq!(
        fsck(&engine, &["--quick"])["Clean"],
        true,
        "contents are not read"
    );
    assert_eq!(kinds(&fsck(&engine, &[])), ["layer-damaged"]);
    assert_eq!(kinds(&fsck(&engine, &["--repair"])), ["layer-damaged"]);
    runs(&engine, &name);
    in_order(&engine, "a damaged layer");

    // A blob with another byte, and one that is cut: they are given up, and a pull fetches the two and nothing else.
    let blobs = large_blobs(&engine, LAYER / 2);
    flip_last_byte(&blobs[0]);
    fs::File::options()
        .write(true)
        .open(&blobs[1])
        .unwrap()
        .set_len(LAYER / 2)
        .unwrap();
    let report = fsck(&engine, &["--repair"]);
    assert_eq!(
        kinds(&report),
        ["blob-damaged", "blob-damaged", "image-incomplete"]
    );
    assert_eq!(report["Findings"][2]["Outcome"], "left");
    assert_eq!(report["Findings"][2]["Remedy"], "pull");
    runs(&engine, &name);
    let before = relay.down.total();
    engine.docker(&["pull", &name]).ok();
    let moved = relay.down.total() - before;
    assert!(
        (2 * LAYER..2 * LAYER + MB / 4).contains(&moved),
        "{moved} bytes"
    );
    in_order(&engine, "lost blobs");

    // A snapshot that is lost, under a container that does not run.
    engine.docker(&["create", "--name", "box", &name]).ok();
    engine.terminate();
    fs::remove_dir_all(snapshot_with(&engine, "two")).unwrap();
    engine.boot();
    assert_eq!(kinds(&fsck(&engine, &[]))[..1], ["layer-missing"]);
    assert_eq!(fsck(&engine, &["--repair"])["Clean"], true);
    engine.docker(&["start", "-a", "box"]).ok();
    in_order(&engine, "a lost layer");

    // The container's own, and its directory.
    let id = engine.docker(&["inspect", "-f", "{{.Id}}", "box"]).ok();
    engine.docker(&["volume", "create", "data"]).ok();
    engine.terminate();
    let own = snapshots(engine.data())
        .iter()
        .flat_map(|directory| fs::read_dir(directory).unwrap())
        .map(|entry| entry.unwrap().path())
        .find(|path| fs::read_to_string(path.join("meta")).unwrap().contains(&id))
        .unwrap();
    fs::remove_dir_all(own).unwrap();
    fs::remove_dir_all(engine.data().join("containers").join(&id)).unwrap();
    fs::remove_dir_all(engine.data().join("volume/local/data")).unwrap();
    fs::create_dir_all(engine.data().join("volume/local/found/_data")).unwrap();
    engine.boot();
    let report = fsck(&engine, &["--repair"]);
    assert_eq!(
        kinds(&report),
        [
            "root-missing",
            "container-directory-missing",
            "volume-missing",
            "volume-unknown"
        ],
        "{report:#}"
    );
    assert_eq!(report["Clean"], true);
    engine.docker(&["start", "-a", "box"]).ok();
    assert_eq!(engine.docker(&["volume", "ls", "-q"]).ok(), "data\nfound");
    in_order(&engine, "lost containers and volumes");
    engine.finish();
}

#[test]
fn a_daemon_that_does_not_start_is_mended_without_it() {
    let mut engine = Engine::start();
    let offline = |engine: &Engine, words: &str| {
        let (data, run_dir) = (
            engine.data().display().to_string(),
            engine.dir().join("run"),
        );
        let done = run(
            bin_dir().join("gantryd"),
            &[
                &format!("--fsck={words}"),
                "--data-root",
                &data,
                "--exec-root",
                &run_dir.display().to_string(),
                "--config-file",
                "/dev/null",
                "--plugin-dir",
                &bin_dir().display().to_string(),
            ],
        );
        let report = serde_json::from_str::<Value>(&done.out);
        (done, report.unwrap_or_default())
    };
    let (done, _) = offline(&engine, "json");
    done.fails(1, "is already in use by another gantryd");

    // What a power cut may leave: files that no record knows, half a download, a snapshot without one.
    engine.terminate();
    let blobs = engine.data().join("content/blobs/sha256");
    fs::write(blobs.join("0".repeat(64)), "rotten").unwrap();
    let ingest = engine.data().join("content/ingest/new-1-1");
    fs::write(ingest, "half").unwrap();
    let snapshot = snapshots(engine.data())[0].join("4711/fs");
    fs::create_dir_all(snapshot).unwrap();
    let stranger = "f".repeat(64);
    fs::create_dir_all(engine.data().join("containers").join(&stranger)).unwrap();
    let wanted = [
        "blob-damaged",
        "snapshot-leftover",
        "blob-unreferenced",
        "download-abandoned",
        "container-unknown",
    ];
    let (done, report) = offline(&engine, "json");
    assert_eq!(done.code, 1);
    assert_eq!(kinds(&report), wanted, "{report:#}");
    let (done, report) = offline(&engine, "repair,json");
    assert_eq!(done.code, 0, "{report:#}");
    let (done, report) = offline(&engine, "json");
    assert_eq!((done.code, kinds(&report).len()), (0, 0), "{report:#}");
    engine.boot();
    engine.docker(&["run", "--rm", "busybox", "true"]).ok();
    in_order(&engine, "a repair without the daemon");
    engine.finish();
}

/// Every file below `root`: count and bytes, files with several names once.
fn walk(root: &Path) -> (u64, u64) {
    let (mut files, mut bytes) = (0, 0);
    let mut seen = HashSet::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            pending.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if seen.insert(meta.ino()) {
            files += 1;
            bytes += if meta.is_file() { meta.len() } else { 0 };
        }
    }
    (files, bytes)
}

#[test]
fn the_sum_of_what_is_known_is_what_the_data_root_holds() {
    let registry = Registry::start();
    push_image(&registry, "big:1");
    let engine = Engine::start();
    let name = format!("{}/big:1", registry.domain());
    engine.docker(&["pull", "-q", &name]).ok();
    engine
        .docker(&[
            "run",
            "--name",
            "box",
            "-v",
            "data:/data",
            &name,
            "sh",
            "-c",
            "echo hi | tee /data/f >/g",
        ])
        .ok();
    engine.docker(&["commit", "box", "mine:1"]).ok();
    trash_is_empty(&engine);
    // Records of events may come in between.
    let report = eventually("the sums agree", 60, || {
        let report = fsck(&engine, &["--quick"]);
        let rows = report["Usage"].as_array().unwrap();
        let sum = |field: &str| {
            rows.iter()
                .map(|row| row[field].as_u64().unwrap())
                .sum::<u64>()
        };
        ((sum("Files"), sum("Bytes")) == walk(engine.data())).then_some(report)
    });
    assert_eq!(usage(&report, "other"), (0, 0), "{report:#}");

    let (_, df) = engine.api("GET", "/system/df", None);
    let df: Value = serde_json::from_str(&df).unwrap();
    assert_eq!(df["LayersSize"], usage(&report, "layers").1, "{report:#}");
    // Nothing is kept of images that are gone.
    engine.docker(&["rm", "-v", "box"]).ok();
    engine.docker(&["volume", "rm", "data"]).ok();
    engine.docker(&["system", "prune", "-a", "-f"]).ok();
    trash_is_empty(&engine);
    let report = fsck(&engine, &[]);
    assert_eq!(report["Clean"], true);
    let left: BTreeMap<&str, u64> = [
        "blobs",
        "downloads",
        "layers",
        "containers",
        "volumes",
        "trash",
    ]
    .into_iter()
    .map(|category| (category, usage(&report, category).0))
    .filter(|(_, files)| *files > 0)
    .collect();
    assert!(left.is_empty(), "{left:?}");
    engine.finish();
}
