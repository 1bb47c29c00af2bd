//! The log's files: written to, rotated, compressed.
//!
//! `path` is the current one, `path.1` the one before, and so on; compressed ones have `.gz` at the end. Whatever step of a
//! rotation or compression is the last before a crash, no entry is lost and none is there twice:
//! - files are moved oldest first, each to a name that is free; a gap that is left is filled by the next rotation;
//! - a compressed file gets its name when it is complete and on the disk, and only then the plain one goes; while both are
//!   there readers take the plain one.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use gantry_monitor::plan::LogConfig;
use gantry_monitor::protocol::Stage;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::pack;
use crate::fault::{At, Step};
use crate::sys;

const PACKED: &str = ".gz";

/// The files of one log.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    max_size: u64,
    /// The highest number of a rotated file; 0: only the current one is kept.
    last: u32,
    compress: bool,
    fd: OwnedFd,
    size: u64,
    rotations: u32,
    packing: Option<Packing>,
}

/// A child that compresses a rotated file.
#[derive(Debug)]
struct Packing {
    child: i32,
    /// The file's number; it moves on with each rotation.
    number: u32,
}

impl File {
    pub(super) fn open(config: &LogConfig) -> Step<Self> {
        let (fd, size) = open(&config.path).at(Stage::Monitor, || {
            format!("open log {}", config.path.display())
        })?;
        let mut file = Self {
            path: config.path.clone(),
            max_size: config.max_size,
            last: config.max_files.max(1) - 1,
            compress: config.compress,
            fd,
            size,
            rotations: 0,
            packing: None,
        };
        // What a run before this one has left.
        file.pack();
        Ok(file)
    }

    /// Rotations so far, and the size of the current file.
    pub(super) fn position(&self) -> (u32, u64) {
        (self.rotations, self.size)
    }

    /// What it writes to.
    pub(super) fn descriptor(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Bytes after which a new file is begun; 0 for never.
    pub(super) fn max_size(&self) -> u64 {
        self.max_size
    }

    /// Whether a file of this size is full.
    pub(super) fn full(&self, size: u64) -> bool {
        self.max_size > 0 && size >= self.max_size
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(&self.fd, rest))?;
            self.size += written as u64;
            rest = &rest[written..];
        }
        Ok(())
    }

    /// Opens the current file anew: somebody has moved or removed it.
    pub(super) fn reopen(&mut self) -> Result<(), Errno> {
        (self.fd, self.size) = open(&self.path)?;
        Ok(())
    }

    /// Moves the files by one and begins a new one.
    pub(super) fn rotate(&mut self) -> Result<(), Errno> {
        // Up to here every number is taken; what is beyond stays.
        let free = (1..=self.last).find(|n| !self.exists(*n));
        let top = free.unwrap_or(self.last);
        if free.is_none() {
            // The oldest goes; with a single file the current one.
            self.forget(self.last);
            for suffix in ["", PACKED] {
                remove(&self.numbered(self.last, suffix))?;
            }
        }
        for to in (1..=top).rev() {
            for suffix in ["", PACKED] {
                match rustix::fs::rename(self.numbered(to - 1, suffix), self.numbered(to, suffix)) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno),
                }
            }
            if let Some(packing) = self.packing.as_mut().filter(|p| p.number == to - 1) {
                packing.number = to;
            }
        }
        (self.fd, self.size) = open(&self.path)?;
        self.rotations += 1;
        self.pack();
        Ok(())
    }

    /// Whether there is a rotated file of this number.
    fn exists(&self, number: u32) -> bool {
        let there = |suffix| rustix::fs::lstat(self.numbered(number, suffix)).is_ok();
        there("") || there(PACKED)
    }

    /// The name of a rotated file; of the current one for 0, which is never compressed.
    fn numbered(&self, number: u32, suffix: &str) -> PathBuf {
        let mut name = OsString::from(&self.path);
        if number > 0 || !suffix.is_empty() {
            name.push(format!(".{number}{suffix}"));
        }
        name.into()
    }

    fn unfinished(&self) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(".gz.tmp");
        name.into()
    }

    /// Begins to compress the oldest file that is not, if none is at it.
    fn pack(&mut self) {
        if !self.compress || self.packing.is_some() {
            return;
        }
        for number in (1..=self.last).rev() {
            let plain = self.numbered(number, "");
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let Ok(from) = rustix::fs::open(&plain, flags, Mode::empty()) else {
                continue;
            };
            if rustix::fs::lstat(self.numbered(number, PACKED)).is_ok() {
                // A crash came between the two last steps.
                let _ = remove(&plain);
                continue;
            }
            // A file that cannot be compressed now stays as it is until the next rotation.
            let child = pack::spawn(&from, &self.unfinished());
            self.packing = child.ok().map(|child| Packing { child, number });
            return;
        }
    }

    /// Whether a dead child was compressing; gives its work a name then, and goes on with the next file.
    pub(super) fn packed(&mut self, pid: i32, status: i32) -> bool {
        let Some(packing) = self.packing.take_if(|packing| packing.child == pid) else {
            return false;
        };
        let place = self.numbered(packing.number, PACKED);
        if status == 0 && rustix::fs::rename(self.unfinished(), place).is_ok() {
            let _ = remove(&self.numbered(packing.number, ""));
            self.pack();
        } else {
            let _ = remove(&self.unfinished());
        }
        true
    }

    /// Takes notice of a child that has finished, for one who reaps no others.
    pub(super) fn look(&mut self) {
        let child = self.packing.as_ref().map(|packing| packing.child);
        if let Some((pid, status)) = child.and_then(sys::reap_one) {
            self.packed(pid, status);
        }
    }

    /// Nothing more is written. What is not compressed yet will be when the container runs again.
    pub(super) fn finish(&mut self) {
        if let Some(number) = self.packing.as_ref().map(|packing| packing.number) {
            self.forget(number);
        }
    }

    /// Stops compressing this file.
    fn forget(&mut self, number: u32) {
        if let Some(packing) = self.packing.take_if(|packing| packing.number == number) {
            sys::kill_and_wait(packing.child);
            let _ = remove(&self.unfinished());
        }
    }
}

fn open(path: &Path) -> Result<(OwnedFd, u64), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))?;
    let size = rustix::fs::fstat(&fd)?.st_size as u64;
    Ok((fd, size))
}

fn remove(path: &Path) -> Result<(), Errno> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}
