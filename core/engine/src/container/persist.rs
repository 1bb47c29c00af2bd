//! Where records are kept: durable ones in the store, what dies with the boot in one small file a container.
//!
//! Each state of a container is a file of its own, `<id>.<number>.json`; the one before is removed when the new one is
//! whole. A file that is replaced by renaming another over it would be flushed by some file systems (ext4), and its
//! removal then wait for the disk.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use gantry_model::ContainerId;
use gantry_store::{Batch, Store, Table};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::record::Record;
use crate::{EngineError, Result};

/// A file under the exec-root: the newest state of one container in this boot.
#[derive(Serialize, Deserialize)]
struct Note {
    boot: String,
    record: Record,
}

/// The records of all containers.
pub(crate) struct Records {
    store: Store,
    table: Table<Record>,
    dir: PathBuf,
    boot: String,
    /// The number of each container's file.
    numbers: Mutex<HashMap<ContainerId, u64>>,
}

/// What was found at start.
pub(crate) struct Loaded {
    /// The newest record.
    pub(crate) record: Record,
    /// Whether it was written in this boot: its process may live.
    pub(crate) this_boot: bool,
}

impl Records {
    pub(crate) fn open(store: &Store, dir: PathBuf, boot: String) -> Result<Self> {
        std::fs::create_dir_all(&dir)
            .map_err(|e| EngineError::io(format!("make {}", dir.display()), &e))?;
        Ok(Self {
            store: store.clone(),
            table: store.table("containers"),
            dir,
            boot,
            numbers: Mutex::default(),
        })
    }

    /// Everything that is known, newest state first to be believed: a file of this boot before the store's record. Files of
    /// an earlier boot tell only of containers that died with it; they are removed.
    pub(crate) fn load(&self) -> Result<Vec<Loaded>> {
        let mut loaded: BTreeMap<ContainerId, Loaded> = BTreeMap::new();
        self.table.for_each("", |_, record| {
            loaded.insert(
                record.id.clone(),
                Loaded {
                    record,
                    this_boot: false,
                },
            );
            true
        })?;
        let context = |e: &io::Error| EngineError::io(format!("read {}", self.dir.display()), e);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(|e| context(&e))? {
            let path = entry.map_err(|e| context(&e))?.path();
            files.push((number_of(&path), path));
        }
        // Two files of one container: the later one is the newer, unless the daemon died while it was being written.
        files.sort();
        for (number, path) in files {
            let note = std::fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
            match note {
                Some(note) if note.boot == self.boot => {
                    let id = note.record.id.clone();
                    if let Some(old) = self.numbers.lock().insert(id.clone(), number) {
                        let _ = std::fs::remove_file(self.path(&id, old));
                    }
                    let one = Loaded {
                        record: note.record,
                        this_boot: true,
                    };
                    loaded.insert(id, one);
                }
                _ => {
                    // A container with `--rm` that this was all there was of is found by what it left behind.
                    let _ = std::fs::remove_file(&path);
                }
            }
        }
        Ok(loaded.into_values().collect())
    }

    /// Keeps a new container, durably unless it dies with the boot.
    pub(crate) async fn create(&self, record: &Record) -> Result<()> {
        if record.is_transient() {
            return self.note(record);
        }
        let mut batch = Batch::new();
        batch.create(&self.table, record.id.as_str(), record)?;
        self.store.commit(batch).await?;
        Ok(())
    }

    /// Keeps a change that must survive a power cut before it is acknowledged.
    pub(crate) async fn save(&self, record: &Record) -> Result<()> {
        self.note(record)?;
        if !record.is_transient() {
            self.table.put(record.id.as_str(), record)?.await?;
        }
        Ok(())
    }

    /// Keeps a change that must survive a crash of the daemon, and a power cut soon after.
    pub(crate) fn keep(&self, record: &Record) -> Result<()> {
        self.note(record)?;
        if !record.is_transient() {
            self.table.put(record.id.as_str(), record)?.detach();
        }
        Ok(())
    }

    /// Keeps a change that must survive a crash of the daemon only.
    pub(crate) fn note(&self, record: &Record) -> Result<()> {
        let note = serde_json::to_vec(&NoteRef {
            boot: &self.boot,
            record,
        })
        .map_err(|e| EngineError::internal(e.to_string()))?;
        let old = self.numbers.lock().get(&record.id).copied();
        let number = old.map_or(0, |old| old + 1);
        let path = self.path(&record.id, number);
        std::fs::write(&path, note)
            .map_err(|e| EngineError::io(format!("write {}", path.display()), &e))?;
        self.numbers.lock().insert(record.id.clone(), number);
        if let Some(old) = old {
            // What is left of it is removed by the next start.
            let _ = std::fs::remove_file(self.path(&record.id, old));
        }
        Ok(())
    }

    /// Forgets a container, together with the changes in `batch`.
    pub(crate) async fn remove(&self, record: &Record, mut batch: Batch) -> Result<()> {
        let transient = record.is_transient();
        if !transient {
            batch.delete(&self.table, record.id.as_str());
        }
        match batch.is_empty() {
            true => {}
            false => drop(self.store.commit(batch).await?),
        }
        if let Some(number) = self.numbers.lock().remove(&record.id) {
            let _ = std::fs::remove_file(self.path(&record.id, number));
        }
        Ok(())
    }

    fn path(&self, id: &ContainerId, number: u64) -> PathBuf {
        self.dir.join(format!("{id}.{number}.json"))
    }
}

/// The number in a file's name; 0 for a name that is none of ours.
fn number_of(path: &Path) -> u64 {
    path.file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_suffix(".json")?.split_once('.'))
        .and_then(|(_, number)| number.parse().ok())
        .unwrap_or(0)
}

#[derive(Serialize)]
struct NoteRef<'a> {
    boot: &'a str,
    record: &'a Record,
}

impl From<gantry_store::Error> for EngineError {
    fn from(error: gantry_store::Error) -> Self {
        Self::internal(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::Phase;

    fn record(auto_remove: bool) -> Record {
        let mut record = crate::container::record::test_record("web");
        record.host_config.auto_remove = auto_remove;
        record
    }

    fn records(dir: &tempfile::TempDir, store: &Store, boot: &str) -> Records {
        Records::open(store, dir.path().join("state"), boot.into()).unwrap()
    }

    #[tokio::test]
    async fn the_newest_state_of_this_boot_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).unwrap();
        let first = records(&dir, &store, "a");
        let mut record = record(false);
        first.create(&record).await.unwrap();
        record.state.phase = Phase::Running;
        first.note(&record).unwrap();
        record.state.phase = Phase::Paused;
        first.note(&record).unwrap();

        let same = records(&dir, &store, "a");
        let loaded = same.load().unwrap();
        assert!(loaded[0].this_boot);
        assert_eq!(loaded[0].record.state.phase, Phase::Paused);
        // A state that was cut off does not count.
        std::fs::write(same.path(&record.id, 9), "{\"boot\":\"a\",").unwrap();
        let again = records(&dir, &store, "a").load().unwrap();
        assert_eq!(again[0].record.state.phase, Phase::Paused);

        let rebooted = records(&dir, &store, "b").load().unwrap();
        assert!(!rebooted[0].this_boot);
        assert_eq!(rebooted[0].record.state.phase, Phase::Created);
    }

    #[tokio::test]
    async fn transient_ones_die_with_the_boot() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).unwrap();
        let record = record(true);
        records(&dir, &store, "a").create(&record).await.unwrap();
        assert_eq!(records(&dir, &store, "a").load().unwrap().len(), 1);
        assert!(records(&dir, &store, "b").load().unwrap().is_empty());
        let left = std::fs::read_dir(dir.path().join("state")).unwrap().count();
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn removal_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).unwrap();
        let records = records(&dir, &store, "a");
        let record = record(false);
        records.create(&record).await.unwrap();
        records.save(&record).await.unwrap();
        records.remove(&record, Batch::new()).await.unwrap();
        assert!(records.load().unwrap().is_empty());
    }
}
