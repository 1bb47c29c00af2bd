//! What is written of a snapshot beside its data.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use gantry_driver_api::storage::SnapshotState;
use serde::{Deserialize, Serialize};

/// Records are a few hundred bytes.
const MAX: u64 = 4096;

/// One snapshot's record, the file `meta` in its directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its key or committed name.
    pub key: String,
    /// Its parent's committed name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Its state.
    pub state: SnapshotState,
}

impl Record {
    /// Writes the record into `dir`, at once or not at all; with `durable`, it is on disk when this returns.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, dir: &Path, durable: bool) -> io::Result<()> {
        let temporary = dir.join("meta.new");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(temporary, dir.join("meta"))?;
        if durable {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }

    /// Reads the record in `dir`; none when there is no valid one.
    ///
    /// # Errors
    /// Those of reading.
    pub fn read(dir: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(dir.join("meta")) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut bytes = Vec::new();
        file.take(MAX).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes).ok())
    }
}
