//! All snapshots in memory: key to number, record and children.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use gantry_driver_api::storage::{Commit, SnapshotState};
use gantry_driver_api::{DriverError, DriverResult, ErrorCode};

use super::{Number, Record};
use crate::Log;

/// The snapshots that exist: read from the records once, then kept in step.
#[derive(Debug)]
pub struct Index(Mutex<Snapshots>);

#[derive(Debug, Default)]
struct Snapshots {
    by_key: HashMap<String, (Number, Record)>,
    /// How many snapshots have this one as their parent.
    children: HashMap<String, usize>,
    next: Number,
}

impl Index {
    /// Reads the records. Directories without a valid one are [orphans](Self::orphans).
    ///
    /// # Errors
    /// Those of reading.
    pub fn load(snapshots: &Path, graveyard: &Path, log: &Log) -> io::Result<Self> {
        let mut all = Snapshots::default();
        let numbers = numbers(snapshots)?;
        let used = numbers.iter().copied().chain(self::numbers(graveyard)?);
        all.next = used.max().map_or(1, |number| number + 1);
        for number in numbers {
            let Some(record) = Record::read(&snapshots.join(number.to_string()))? else {
                log.info(format!("snapshot directory {number} has no valid record"));
                continue;
            };
            // Two commits under one name, and a crash before the second was removed.
            if all.by_key.contains_key(&record.key) {
                log.info(format!(
                    "snapshot directory {number} is a duplicate of {}",
                    record.key
                ));
                continue;
            }
            // A child whose parent is lost cannot be mounted. It stays listed, for core to see and remove.
            all.put(number, record);
        }
        Ok(Self(Mutex::new(all)))
    }

    fn lock(&self) -> MutexGuard<'_, Snapshots> {
        // A panic makes the driver faulted; nobody comes here after it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves a number for a new snapshot and returns it with the count of its parents; none when the very same
    /// snapshot is there.
    ///
    /// # Errors
    /// `AlreadyExists` for a key in use; `NotFound`, `FailedPrecondition` and `DataLoss` for bad parents.
    pub fn insert(&self, record: &Record) -> DriverResult<Option<(Number, usize)>> {
        let mut all = self.lock();
        if let Some((_, present)) = all.by_key.get(&record.key) {
            if present == record {
                return Ok(None);
            }
            let text = format!("snapshot {} already exists", record.key);
            return Err(DriverError::new(ErrorCode::AlreadyExists, text));
        }
        let mut depth = 0;
        if let Some(parent) = &record.parent {
            all.committed(parent)?;
            depth = all.parents(parent)?.len() + 1;
            *all.children.entry(parent.clone()).or_default() += 1;
        }
        let number = all.next;
        all.next += 1;
        all.by_key
            .insert(record.key.clone(), (number, record.clone()));
        Ok(Some((number, depth)))
    }

    /// Takes back an [`insert`](Self::insert).
    pub fn forget(&self, key: &str) {
        self.lock().take(key);
    }

    /// Removes a snapshot without children; none when it is absent.
    ///
    /// # Errors
    /// `Conflict` when it has children.
    pub fn remove(&self, key: &str) -> DriverResult<Option<Number>> {
        let mut all = self.lock();
        if all.children.get(key).is_some_and(|n| *n > 0) {
            let text = format!("snapshot {key} is the parent of another");
            return Err(DriverError::new(ErrorCode::Conflict, text));
        }
        Ok(all.take(key).map(|(number, _)| number))
    }

    /// The active snapshot that `request` commits, with the record that it gets and the parent that it has had. A late
    /// parent is held from now on; [`disown`](Self::disown) lets it go again.
    ///
    /// # Errors
    /// As `commit` in the contract.
    pub fn committable(&self, request: &Commit) -> DriverResult<(Number, Record, Option<String>)> {
        let mut all = self.lock();
        let (number, present) = all.get(&request.key)?;
        let number = *number;
        let failed = |text: String| DriverError::new(ErrorCode::FailedPrecondition, text);
        if present.state != SnapshotState::Active {
            return Err(failed(format!("snapshot {} is not active", request.key)));
        }
        if request.name != request.key && all.by_key.contains_key(&request.name) {
            let text = format!("snapshot {} already exists", request.name);
            return Err(DriverError::new(ErrorCode::AlreadyExists, text));
        }
        let had = present.parent.clone();
        let parent = match (&had, &request.parent) {
            (Some(had), Some(wanted)) if had != wanted => {
                return Err(failed(format!("snapshot {} has parent {had}", request.key)));
            }
            (Some(parent), _) | (None, Some(parent)) => {
                all.committed(parent)?;
                Some(parent.clone())
            }
            (None, None) => None,
        };
        all.set_parent(&request.key, parent.clone());
        let record = Record {
            key: request.name.clone(),
            parent,
            state: SnapshotState::Committed,
        };
        Ok((number, record, had))
    }

    /// Gives the snapshot of a failed commit the parent back that it has had.
    pub fn disown(&self, key: &str, had: Option<String>) {
        self.lock().set_parent(key, had);
    }

    /// Puts the committed snapshot in the place of the active one; false when another was committed under its name
    /// meanwhile: then the active one is just gone.
    pub fn replace(&self, key: &str, number: Number, record: Record) -> bool {
        let mut all = self.lock();
        all.take(key);
        if all.by_key.contains_key(&record.key) {
            return false;
        }
        all.put(number, record);
        true
    }

    /// A snapshot and the numbers of its parents, nearest first.
    ///
    /// # Errors
    /// `NotFound`, and `DataLoss` when a parent is.
    pub fn chain(&self, key: &str) -> DriverResult<(Number, Record, Vec<Number>)> {
        let all = self.lock();
        let (number, record) = all.get(key)?;
        Ok((*number, record.clone(), all.parents(key)?))
    }

    /// A snapshot's number.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<Number> {
        self.lock().by_key.get(key).map(|(number, _)| *number)
    }

    /// Whether there is a committed snapshot of this name.
    #[must_use]
    pub fn is_committed(&self, key: &str) -> bool {
        self.lock().committed(key).is_ok()
    }

    /// Every snapshot, in any order.
    #[must_use]
    pub fn all(&self) -> Vec<(Number, Record)> {
        self.lock().by_key.values().cloned().collect()
    }

    /// The keys that are not in `live`.
    #[must_use]
    pub fn except(&self, live: &[String]) -> Vec<String> {
        let live: HashSet<&str> = live.iter().map(String::as_str).collect();
        let all = self.lock();
        let keys = all.by_key.keys().filter(|key| !live.contains(key.as_str()));
        keys.cloned().collect()
    }

    /// Numbers of directories that belong to no snapshot, made before this call began.
    ///
    /// # Errors
    /// Those of reading.
    pub fn orphans(&self, snapshots: &Path) -> io::Result<Vec<Number>> {
        let found = numbers(snapshots)?;
        let all = self.lock();
        let known: HashSet<Number> = all.by_key.values().map(|(number, _)| *number).collect();
        Ok(found.into_iter().filter(|n| !known.contains(n)).collect())
    }
}

impl Snapshots {
    fn get(&self, key: &str) -> DriverResult<&(Number, Record)> {
        self.by_key
            .get(key)
            .ok_or_else(|| DriverError::not_found(format!("snapshot {key} does not exist")))
    }

    fn committed(&self, key: &str) -> DriverResult<()> {
        let (_, record) = self.get(key)?;
        if record.state == SnapshotState::Committed {
            return Ok(());
        }
        let text = format!("snapshot {key} is not committed");
        Err(DriverError::new(ErrorCode::FailedPrecondition, text))
    }

    fn parents(&self, key: &str) -> DriverResult<Vec<Number>> {
        let mut numbers = Vec::new();
        let mut at = self.get(key)?.1.parent.as_deref();
        while let Some(key) = at {
            let Some((number, record)) = self.by_key.get(key) else {
                let text = format!("parent snapshot {key} is lost");
                return Err(DriverError::new(ErrorCode::DataLoss, text));
            };
            // Records are written by this driver only, and a parent is older than its child; still, damage must not
            // become an endless loop.
            if numbers.len() > self.by_key.len() {
                let text = format!("the parents of {key} form a circle");
                return Err(DriverError::new(ErrorCode::DataLoss, text));
            }
            numbers.push(*number);
            at = record.parent.as_deref();
        }
        Ok(numbers)
    }

    fn put(&mut self, number: Number, record: Record) {
        if let Some(parent) = &record.parent {
            *self.children.entry(parent.clone()).or_default() += 1;
        }
        self.by_key.insert(record.key.clone(), (number, record));
    }

    fn set_parent(&mut self, key: &str, parent: Option<String>) {
        if let Some((number, record)) = self.take(key) {
            self.put(number, Record { parent, ..record });
        }
    }

    fn take(&mut self, key: &str) -> Option<(Number, Record)> {
        let taken = self.by_key.remove(key)?;
        if let Some(parent) = &taken.1.parent
            && let Some(count) = self.children.get_mut(parent)
        {
            *count -= 1;
            if *count == 0 {
                self.children.remove(parent);
            }
        }
        Some(taken)
    }
}

/// The entries of a directory that are numbers.
fn numbers(dir: &Path) -> io::Result<Vec<Number>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        if let Some(number) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) {
            numbers.push(number);
        }
    }
    Ok(numbers)
}
