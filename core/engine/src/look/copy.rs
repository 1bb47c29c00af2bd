//! `docker cp`, both ways.

use std::io::{self, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use gantry_image::{PackOptions, Packer, PlaceOptions};
use gantry_runtime::spec::user_ids;
use gantry_sys::{inroot, view};
use gantry_wire::PathStat;
use rustix::fs::{Mode, OFlags};
use tokio::sync::oneshot;
use tokio_util::io::SyncIoBridge;

use super::path::Asked;
use super::stream::{Archive, pipe};
use super::{Extent, Tree};
use crate::{ByteReader, Engine, EngineError, ErrorKind, Result};

/// Bytes of an archive that are read at once.
const BUFFER: usize = 256 << 10;
/// Files of users and groups of more bytes are refused.
const MAX_USERS: u64 = 1 << 20;

/// How an archive goes into a container.
#[derive(Debug, Clone, Default)]
pub struct CopyInto {
    /// A directory in the container.
    pub path: String,
    /// A directory and something else do not replace each other.
    pub no_overwrite_dir_non_dir: bool,
    /// Everything belongs to the container's user.
    pub copy_uid_gid: bool,
}

impl Engine {
    /// What is at a path in a container.
    ///
    /// # Errors
    /// `Could not find the file x in container y` (404).
    pub async fn container_stat_path(&self, id: &str, path: &str) -> Result<PathStat> {
        let container = self.find(id)?;
        let asked = Asked::new(path);
        let stat = self
            .look_into(&container, Extent::Read, move |tree| asked.stat(tree.root))
            .await?;
        stat.map_err(|e| not_there(&e, path, id))
    }

    /// An archive of what is at a path in a container.
    ///
    /// # Errors
    /// As [`Self::container_stat_path`].
    pub async fn container_archive(&self, id: &str, path: &str) -> Result<Archive> {
        let container = self.find(id)?;
        let asked = Asked::new(path);
        let (found, answer) = oneshot::channel();
        let (mut pipe, content) = pipe();
        let work = move |tree: Tree<'_>| {
            let stat = asked.stat(tree.root);
            let there = stat.is_ok();
            // Whoever asked may have gone: the first piece finds out.
            let _ = found.send(stat);
            if there {
                let packed = pack(&tree, &asked, &mut pipe);
                pipe.end(packed);
            }
        };
        let (engine, looked) = (self.clone(), container.clone());
        let looking =
            tokio::spawn(async move { engine.look_into(&looked, Extent::Read, work).await });
        let stat = match answer.await {
            Ok(stat) => stat.map_err(|e| not_there(&e, path, id))?,
            // The look has failed before it came to the path.
            Err(_) => return Err(ended(looking).await),
        };
        self.tell(&container.record(), "archive-path");
        Ok(Archive { stat, content })
    }

    /// Puts an archive into a directory of a container.
    ///
    /// # Errors
    /// A directory that is not there (404), is none, or may not be written to (400); archives that are none (400); what
    /// the file system has to say. What came before the error stays.
    pub async fn container_extract(
        &self,
        id: &str,
        into: CopyInto,
        body: ByteReader,
    ) -> Result<()> {
        let container = self.find(id)?;
        let record = container.record();
        let user = record.config.user.clone();
        let outside = record.userns.as_ref().and_then(|maps| maps.root());
        let path = into.path.clone();
        let body = SyncIoBridge::new(body);
        let work = move |tree: Tree<'_>| {
            let mut body = BufReader::with_capacity(BUFFER, body);
            match outside.filter(|_| tree.owners.is_some()) {
                None => extract(&tree, &into, &user, &mut body),
                // New files may only come from somebody whom the container's mounts know.
                Some((uid, gid)) => {
                    let work = || Ok(extract(&tree, &into, &user, &mut body));
                    view::as_owner(uid, gid, work)
                        .unwrap_or_else(|e| Err(EngineError::io("become an owner", &e).into()))
                }
            }
        };
        let extracted = self.look_into(&container, Extent::Write, work).await?;
        extracted.map_err(|refused| match refused {
            Refused::Missing(e) => not_there(&e, &path, id),
            Refused::Other(error) => error,
        })?;
        self.tell(&container.record(), "extract-to-dir");
        Ok(())
    }
}

/// Why a task that should have answered did not.
async fn ended(looking: tokio::task::JoinHandle<Result<()>>) -> EngineError {
    match looking.await {
        Ok(Err(error)) => error,
        Ok(Ok(())) => EngineError::internal("the container was not looked at"),
        Err(error) => EngineError::internal(error.to_string()),
    }
}

fn not_there(error: &io::Error, path: &str, container: &str) -> EngineError {
    match error.kind() {
        io::ErrorKind::NotFound => EngineError::not_found(format!(
            "Could not find the file {path} in container {container}"
        )),
        _ => EngineError::io(format!("lstat {path}"), error),
    }
}

fn pack(tree: &Tree<'_>, asked: &Asked, pipe: &mut super::stream::Pipe) -> io::Result<u64> {
    // Devices are the engine's, not the container's: whoever copies a whole container does not mean them.
    let root = tree.root;
    let devices = format!("{}/dev", asked.name.trim_end_matches('/'));
    let options = PackOptions {
        hollow: asked.is_root().then_some(devices.as_bytes()),
        owners: tree.owners.as_ref(),
        ..PackOptions::default()
    };
    let mut packer = Packer::new(pipe, options);
    match asked.directory {
        true => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let directory = inroot::open(root, &asked.path, flags, Mode::empty())?;
            packer.tree(directory, asked.name.as_bytes())?;
        }
        false => {
            let (parent, name) = inroot::open_parent(root, &asked.path)?;
            let shown = asked.name.as_bytes();
            packer.entry(parent.as_fd(), name.as_encoded_bytes(), shown)?;
        }
    }
    packer.finish()
}

enum Refused {
    Missing(io::Error),
    Other(EngineError),
}

impl From<EngineError> for Refused {
    fn from(error: EngineError) -> Self {
        Self::Other(error)
    }
}

fn extract(
    tree: &Tree<'_>,
    into: &CopyInto,
    user: &str,
    body: &mut BufReader<SyncIoBridge<ByteReader>>,
) -> Result<(), Refused> {
    let (asked, root) = (Asked::new(&into.path), tree.root);
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let directory = match inroot::open(root, &asked.path, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            return Err(EngineError::bad_request("extraction point is not a directory").into());
        }
        Err(e) => return Err(Refused::Missing(e)),
    };
    writable(root, &directory)?;
    let owner = match into.copy_uid_gid && !user.is_empty() {
        true => Some(owner(root, user)?),
        false => None,
    };
    let options = PlaceOptions {
        directory: asked.path.as_os_str().as_encoded_bytes().to_vec(),
        keep_kinds: into.no_overwrite_dir_non_dir,
        owner,
        owners: tree.owners.clone(),
    };
    let root = root.try_clone().map_err(|e| EngineError::io("dup", &e))?;
    gantry_image::place(root, &options, body).map_err(|e| Refused::Other(not_placed(&e)))
}

/// Docker's refusals of what the kernel would refuse file by file.
fn writable(root: &OwnedFd, directory: &OwnedFd) -> Result<()> {
    let failed = |e| EngineError::io("look at the directory", &e);
    if !view::is_read_only(directory).map_err(failed)? {
        return Ok(());
    }
    let which = match view::same_mount(root, directory).map_err(failed)? {
        true => "container rootfs is marked read-only",
        false => "mounted volume is marked read-only",
    };
    Err(EngineError::bad_request(which))
}

/// The numbers of a container's user, from its own files.
fn owner(root: &OwnedFd, user: &str) -> Result<(u32, u32)> {
    let read = |path: &str| match inroot::read_to_string(root, Path::new(path), MAX_USERS) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(|e| EngineError::io(format!("read {path}"), &e)),
    };
    let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
    user_ids(user, &passwd, &group).map_err(|e| EngineError::bad_request(e.to_string()))
}

fn not_placed(error: &io::Error) -> EngineError {
    let kind = match error.kind() {
        io::ErrorKind::UnexpectedEof => return EngineError::bad_request("unexpected EOF"),
        io::ErrorKind::InvalidData => ErrorKind::BadRequest,
        _ => ErrorKind::Internal,
    };
    EngineError::new(kind, error.to_string())
}
