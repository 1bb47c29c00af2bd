//! Typed views of one table.

use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::db::{Db, definition};
use crate::writer::{Commit, Writer};
use crate::{Batch, Error, Result, Unreadable};

/// A table of JSON records of type `T`, ordered by key. Cheap to clone. Reads see what is committed, block for at most a
/// few page reads, and are consistent within one call.
pub struct Table<T> {
    db: Arc<Db>,
    writer: Arc<Writer>,
    name: &'static str,
    record: PhantomData<fn() -> T>,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self {
            db: self.db.clone(),
            writer: self.writer.clone(),
            name: self.name,
            record: PhantomData,
        }
    }
}

impl<T> std::fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Table").field(&self.name).finish()
    }
}

impl<T> Table<T> {
    pub(crate) fn new(db: Arc<Db>, writer: Arc<Writer>, name: &'static str) -> Self {
        Self {
            db,
            writer,
            name,
            record: PhantomData,
        }
    }

    /// The table's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl<T: Serialize + DeserializeOwned> Table<T> {
    /// The record of this key, if there is one.
    ///
    /// # Errors
    /// [`Error::Record`] when it is not a `T`; [`Error::Io`], [`Error::Damaged`].
    pub fn get(&self, key: &str) -> Result<Option<T>> {
        self.db
            .read(self.name, |table| match table.get(key)? {
                Some(guard) => Ok(Some(self.decode(key, guard.value()))),
                None => Ok(None),
            })
            .map(Option::flatten)?
            .transpose()
    }

    /// Whether there is a record of this key.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`].
    pub fn contains(&self, key: &str) -> Result<bool> {
        let found = self
            .db
            .read(self.name, |table| Ok(table.get(key)?.is_some()))?;
        Ok(found.unwrap_or(false))
    }

    /// All records, ordered by key.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn list(&self) -> Result<Vec<(String, T)>> {
        self.list_prefix("")
    }

    /// The records whose key begins with `prefix`, ordered by key.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn list_prefix(&self, prefix: &str) -> Result<Vec<(String, T)>> {
        let mut records = Vec::new();
        self.for_each(prefix, |key, value| {
            records.push((key.to_owned(), value));
            true
        })?;
        Ok(records)
    }

    /// The records that are no `T`, ordered by key; every other reading of more than one record fails because of them.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`].
    pub fn unreadable(&self) -> Result<Vec<Unreadable>> {
        let found = self.db.read(self.name, |table| {
            let mut unreadable = Vec::new();
            for entry in table.range(""..)? {
                let (key, value) = entry?;
                if let Err(error) = self.decode(key.value(), value.value()) {
                    unreadable.push(Unreadable {
                        table: self.name,
                        key: key.value().to_owned(),
                        detail: error.to_string(),
                    });
                }
            }
            Ok(unreadable)
        })?;
        Ok(found.unwrap_or_default())
    }

    /// Calls `visit` for the records whose key begins with `prefix`, in order, until it returns `false`; only one record
    /// is held in memory at a time.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn for_each(&self, prefix: &str, mut visit: impl FnMut(&str, T) -> bool) -> Result<()> {
        self.db
            .read(self.name, |table| {
                for entry in table.range(prefix..)? {
                    let (key, value) = entry?;
                    let key = key.value();
                    if !key.starts_with(prefix) {
                        break;
                    }
                    match self.decode(key, value.value()) {
                        Ok(value) => {
                            if !visit(key, value) {
                                break;
                            }
                        }
                        Err(error) => return Ok(Err(error)),
                    }
                }
                Ok(Ok(()))
            })?
            .unwrap_or(Ok(()))
    }

    /// Commits one record; see [`crate::Store::commit`].
    ///
    /// # Errors
    /// As [`Batch::put`].
    pub fn put(&self, key: &str, value: &T) -> Result<Commit> {
        let mut batch = Batch::new();
        batch.put(self, key, value)?;
        Ok(self.writer.submit(batch))
    }

    /// Commits the removal of one record; see [`crate::Store::commit`].
    pub fn delete(&self, key: &str) -> Commit {
        let mut batch = Batch::new();
        batch.delete(self, key);
        self.writer.submit(batch)
    }

    fn decode(&self, key: &str, bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|error| Error::Record {
            table: self.name.into(),
            key: key.into(),
            detail: error.to_string(),
        })
    }
}

impl Db {
    /// Runs `read` over one table in one snapshot; `None` when the table does not exist yet.
    pub(crate) fn read<R>(
        &self,
        name: &str,
        read: impl FnOnce(&redb::ReadOnlyTable<&'static str, &'static [u8]>) -> redb::Result<R>,
    ) -> Result<Option<R>> {
        self.with(|database| {
            use redb::ReadableDatabase;
            let transaction = database.begin_read()?;
            match transaction.open_table(definition(name)) {
                Ok(table) => Ok(Some(read(&table)?)),
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
    }
}
