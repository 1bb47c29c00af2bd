//! From the records of an older program to those of this one.

use redb::{Durability, ReadableDatabase, ReadableTable, WriteTransaction};

use crate::db::{Db, FORMAT, META, VERSION, definition};
use crate::{Error, Options, Result};

/// One step from a version to the next.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// The version that it reads; it leaves `from + 1`.
    pub from: u32,
    /// The work. All steps run in one transaction: an error leaves the file as it was.
    pub run: fn(&mut Rewrite<'_>) -> std::result::Result<(), String>,
}

/// The tables as a migration sees them: untyped JSON.
pub struct Rewrite<'a> {
    transaction: &'a WriteTransaction,
}

impl std::fmt::Debug for Rewrite<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rewrite")
    }
}

impl Rewrite<'_> {
    /// All records of a table.
    ///
    /// # Errors
    /// What the file or the decoder said.
    pub fn list(
        &self,
        table: &str,
    ) -> std::result::Result<Vec<(String, serde_json::Value)>, String> {
        let table = self
            .transaction
            .open_table(definition(table))
            .map_err(text)?;
        let mut records = Vec::new();
        for entry in table.iter().map_err(text)? {
            let (key, value) = entry.map_err(text)?;
            let value = serde_json::from_slice(value.value()).map_err(text)?;
            records.push((key.value().to_owned(), value));
        }
        Ok(records)
    }

    /// Writes a record.
    ///
    /// # Errors
    /// What the file or the encoder said.
    pub fn put(
        &mut self,
        table: &str,
        key: &str,
        value: &serde_json::Value,
    ) -> std::result::Result<(), String> {
        let bytes = serde_json::to_vec(value).map_err(text)?;
        let mut table = self
            .transaction
            .open_table(definition(table))
            .map_err(text)?;
        table.insert(key, bytes.as_slice()).map_err(text)?;
        Ok(())
    }

    /// Deletes a record.
    ///
    /// # Errors
    /// What the file said.
    pub fn delete(&mut self, table: &str, key: &str) -> std::result::Result<(), String> {
        let mut table = self
            .transaction
            .open_table(definition(table))
            .map_err(text)?;
        table.remove(key).map_err(text)?;
        Ok(())
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Brings the file to `options.version`; a `fresh` one is only stamped.
pub(crate) fn run(db: &Db, options: &Options<'_>, fresh: bool) -> Result<()> {
    let found = if fresh { None } else { Some(version(db)?) };
    match found {
        Some(found) if found == options.version => return Ok(()),
        Some(found) if found > options.version => {
            return Err(Error::Newer {
                path: db.path().into(),
                found,
                supported: options.version,
            });
        }
        _ => {}
    }
    let failed = db.with(|database| {
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        if let Some(error) = found.and_then(|found| steps(db, options, found, &transaction).err()) {
            transaction.abort()?;
            return Ok(Some(error));
        }
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(FORMAT.0, FORMAT.1)?;
            meta.insert(VERSION, options.version.to_le_bytes().as_slice())?;
        }
        transaction.commit()?;
        Ok(None)
    })?;
    failed.map_or(Ok(()), Err)
}

fn steps(db: &Db, options: &Options<'_>, found: u32, transaction: &WriteTransaction) -> Result<()> {
    for from in found..options.version {
        let step = options
            .migrations
            .iter()
            .find(|migration| migration.from == from)
            .ok_or_else(|| Error::TooOld {
                path: db.path().into(),
                found,
            })?;
        tracing::info!(from, to = from + 1, "migrating the state file");
        (step.run)(&mut Rewrite { transaction }).map_err(|message| Error::Migration {
            path: db.path().into(),
            from,
            message,
        })?;
    }
    Ok(())
}

fn version(db: &Db) -> Result<u32> {
    let bytes = db.with(|database| {
        let transaction = database.begin_read()?;
        let meta = transaction.open_table(META)?;
        Ok(meta.get(VERSION)?.map(|value| value.value().to_vec()))
    })?;
    bytes
        .and_then(|bytes| Some(u32::from_le_bytes(bytes.try_into().ok()?)))
        .ok_or_else(|| Error::Damaged {
            path: db.path().into(),
            detail: "no version".into(),
        })
}
