//! Events that are told and not yet in the log, in files under the exec-root: they survive the daemon's death, and no
//! disk is waited for. A file is removed once the log has what is in it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gantry_wire::EventMessage;

/// The file that is being written to, and where those before it are.
pub(super) struct Spool {
    dir: PathBuf,
    number: u64,
    file: File,
    /// Whether anything was written to it.
    used: bool,
}

impl Spool {
    /// Begins a file, and reads what earlier ones hold, oldest first.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, Vec<EventMessage>)> {
        fs::create_dir_all(dir)?;
        let mut numbers = numbers(dir)?;
        numbers.sort_unstable();
        let mut left = Vec::new();
        for number in &numbers {
            let text = fs::read(path(dir, *number))?;
            let lines = text.split(|byte| *byte == b'\n');
            // The last line may be torn.
            left.extend(lines.filter_map(|line| serde_json::from_slice::<EventMessage>(line).ok()));
        }
        let number = numbers.last().map_or(1, |last| last + 1);
        let spool = Self {
            dir: dir.to_owned(),
            number,
            file: File::create(path(dir, number))?,
            used: false,
        };
        Ok((spool, left))
    }

    /// Keeps an event.
    pub(super) fn append(&mut self, message: &EventMessage) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.used = true;
        self.file.write_all(&line)
    }

    /// Begins another file; what is in those up to the returned number goes into the log now.
    pub(super) fn cut(&mut self) -> io::Result<u64> {
        if self.used {
            self.file = File::create(path(&self.dir, self.number + 1))?;
            self.number += 1;
            self.used = false;
        }
        Ok(self.number - 1)
    }

    /// The log has everything up to this file.
    pub(super) fn forget(dir: &Path, up_to: u64) -> io::Result<()> {
        for number in numbers(dir)? {
            if number <= up_to {
                fs::remove_file(path(dir, number))?;
            }
        }
        Ok(())
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(number.to_string())
}

fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        numbers.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|n| n.parse::<u64>().ok()),
        );
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str) -> EventMessage {
        EventMessage {
            action: action.into(),
            ..EventMessage::default()
        }
    }

    #[test]
    fn what_is_not_forgotten_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, left) = Spool::open(dir.path()).unwrap();
        assert!(left.is_empty());
        spool.append(&event("a")).unwrap();
        let cut = spool.cut().unwrap();
        spool.append(&event("b")).unwrap();
        spool.file.write_all(b"{\"Type\":\"torn").unwrap();
        drop(spool);
        let actions = |left: Vec<EventMessage>| {
            let actions: Vec<String> = left.into_iter().map(|e| e.action).collect();
            actions.join(" ")
        };
        let (spool, left) = Spool::open(dir.path()).unwrap();
        assert_eq!(actions(left), "a b");
        Spool::forget(spool.dir(), cut).unwrap();
        drop(spool);
        let (mut spool, left) = Spool::open(dir.path()).unwrap();
        assert_eq!(actions(left), "b");
        let cut = spool.cut().unwrap();
        Spool::forget(spool.dir(), cut).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
