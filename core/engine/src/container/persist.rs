//! Where records are kept: durable ones in the store, what dies with the boot in one small file a container.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use gantry_model::ContainerId;
use gantry_store::{Batch, Store, Table};
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
        for entry in std::fs::read_dir(&self.dir).map_err(|e| context(&e))? {
            let path = entry.map_err(|e| context(&e))?.path();
            let note = std::fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
            match note {
                Some(note) if note.boot == self.boot => {
                    let one = Loaded {
                        record: note.record,
                        this_boot: true,
                    };
                    loaded.insert(one.record.id.clone(), one);
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
        let path = self.path(&record.id);
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, note)
            .and_then(|()| std::fs::rename(&fresh, &path))
            .map_err(|e| EngineError::io(format!("write {}", path.display()), &e))
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
        let _ = std::fs::remove_file(self.path(&record.id));
        Ok(())
    }

    fn path(&self, id: &ContainerId) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }
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
