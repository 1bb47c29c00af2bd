//! Being told that memory has run out in a group, while it happens.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::EventfdFlags;
use rustix::fs::inotify;
use rustix::fs::{Mode as FileMode, OFlags};

use super::files::CgroupError;
use super::group::no_controller;
use super::{Group, files};

/// A watch over one group.
#[derive(Debug)]
pub struct OomWatch {
    group: Group,
    kills: u64,
}

impl OomWatch {
    /// Takes the news in from the watch's descriptor; whether memory has run out since it was last asked.
    pub fn happened(&mut self, news: impl AsFd) -> bool {
        let mut buffer = [0; 4096];
        let mut told = false;
        while matches!(rustix::io::read(&news, &mut buffer), Ok(read) if read > 0) {
            told = true;
        }
        let kills = self.group.oom_kills();
        let killed = kills > std::mem::replace(&mut self.kills, kills);
        match self.group.v2_dir() {
            // The file tells of other things too.
            Some(_) => killed,
            // Told before the kill, or without one where the killer is switched off. The end of a group is told too.
            None => told && self.group.exists(),
        }
    }
}

impl Group {
    /// Watches for its memory running out (cgroups(7): `cgroup.event_control` of version 1, changes of `memory.events` of
    /// version 2). The descriptor, which does not block, is readable when there may be news.
    ///
    /// # Errors
    /// Where there is no memory controller, or the group is gone.
    pub fn watch_oom(&self) -> Result<(OomWatch, OwnedFd), CgroupError> {
        let dir = self.memory_dir().ok_or_else(|| no_controller("memory"))?;
        let news = match self.v2_dir() {
            Some(_) => changes(&dir.join("memory.events"))?,
            None => notices(&dir)?,
        };
        let watch = OomWatch {
            group: self.clone(),
            kills: self.oom_kills(),
        };
        Ok((watch, news))
    }
}

fn changes(file: &Path) -> Result<OwnedFd, CgroupError> {
    let failed = |e: rustix::io::Errno| CgroupError::new("watch", file, e.into());
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let news = inotify::init(flags).map_err(failed)?;
    inotify::add_watch(&news, file, inotify::WatchFlags::MODIFY).map_err(failed)?;
    Ok(news)
}

fn notices(dir: &Path) -> Result<OwnedFd, CgroupError> {
    use std::os::fd::AsRawFd;
    let control = dir.join("memory.oom_control");
    let failed = |e: rustix::io::Errno| CgroupError::new("watch", &control, e.into());
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let news = rustix::event::eventfd(0, flags).map_err(failed)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let watched = rustix::fs::open(&control, flags, FileMode::empty()).map_err(failed)?;
    let line = format!("{} {}", news.as_raw_fd(), watched.as_raw_fd());
    files::write(&dir.join("cgroup.event_control"), line)?;
    Ok(news)
}
