//! One layout directory, and files in it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use gantry_plugin_sdk::{Call, DriverError, DriverResult, ErrorCode};
use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::doing;

/// Where what has no name yet lies.
pub(crate) const WORK: &str = ".gantry";
/// Uploads that were begun, below [`WORK`].
pub(crate) const UPLOADS: &str = ".gantry/uploads";
/// What a layout itself consists of; a repository of such a name would lie in another's files.
const RESERVED: [&str; 3] = ["blobs", "index.json", "oci-layout"];
const MARK: &str = "oci-layout";
const MARK_TEXT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// An open layout.
#[derive(Debug)]
pub(crate) struct Layout {
    dir: OwnedFd,
    /// The repository, for messages.
    pub(crate) name: String,
}

/// Opens a registry's directory.
pub(crate) fn open_root(root: &Path) -> DriverResult<OwnedFd> {
    fs::open(root, DIRECTORY, Mode::empty()).map_err(|error| {
        let message = format!("opening {}: {error}", root.display());
        DriverError::new(
            match error {
                Errno::ACCESS | Errno::PERM => ErrorCode::PermissionDenied,
                // A medium that is not mounted is a server that is not up.
                _ => ErrorCode::Unavailable,
            },
            message,
        )
    })
}

impl Layout {
    /// Opens a repository's layout.
    pub(crate) fn open(root: &Path, repository: &str) -> DriverResult<Self> {
        check_name(repository)?;
        let root = open_root(root)?;
        let layout = match beneath(&root, repository) {
            Ok(dir) => Self {
                dir,
                name: repository.into(),
            },
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(unknown(repository)),
            Err(error) => return Err(doing(&format!("opening {repository}"), error)),
        };
        match layout.read(MARK, 4096)? {
            Some(mark) => check_version(&mark)?,
            None => return Err(unknown(repository)),
        }
        Ok(layout)
    }

    /// Opens a repository's layout, making it where there is none.
    pub(crate) fn create(root: &Path, repository: &str, call: &Call<'_>) -> DriverResult<Self> {
        match Self::open(root, repository) {
            Err(error) if error.code == ErrorCode::NotFound => {}
            Err(error) => return Err(error),
            Ok(layout) => {
                // Another tool's layout has no place for uploads yet.
                layout.make_directories()?;
                return Ok(layout);
            }
        }
        let root = open_root(root)?;
        let what = format!("making {repository}");
        let ends = repository.match_indices('/').map(|(at, _)| at);
        let mut dir = root.try_clone().map_err(|e| DriverError::io(&what, &e))?;
        for end in ends.chain([repository.len()]) {
            let name = repository[..end].rsplit('/').next().unwrap_or_default();
            make_directory(&dir, name)
                .and_then(|()| fs::fsync(&dir))
                .map_err(|error| doing(&what, error))?;
            dir = beneath(&root, &repository[..end]).map_err(|error| doing(&what, error))?;
        }
        let layout = Self {
            dir,
            name: repository.into(),
        };
        layout.make_directories()?;
        let _lock = layout.lock(call)?;
        if layout.read("index.json", 1)?.is_none() {
            layout.write_index(&Default::default())?;
        }
        layout.replace(MARK, MARK_TEXT)?;
        Ok(layout)
    }

    fn make_directories(&self) -> DriverResult<()> {
        for name in ["blobs", "blobs/sha256", "blobs/sha512", WORK, UPLOADS] {
            make_directory(&self.dir, name)
                .map_err(|error| doing(&format!("making {}/{name}", self.name), error))?;
        }
        Ok(())
    }

    pub(crate) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// Opens a regular file of the layout; nothing on the way to it may be a symlink.
    pub(crate) fn open_file(&self, path: &str, flags: OFlags) -> DriverResult<OwnedFd> {
        let what = || format!("opening {}/{path}", self.name);
        let mode = if flags.contains(OFlags::CREATE) {
            Mode::from_raw_mode(0o644)
        } else {
            Mode::empty()
        };
        let file = fs::openat2(
            &self.dir,
            path,
            // A fifo of that name must not hold the engine up.
            flags | OFlags::CLOEXEC | OFlags::NONBLOCK,
            mode,
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
        .map_err(|error| doing(&what(), error))?;
        let stat = fs::fstat(&file).map_err(|error| doing(&what(), error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(DriverError::new(
                ErrorCode::DataLoss,
                format!("{}/{path} is no regular file", self.name),
            ));
        }
        Ok(file)
    }

    /// Reads a file of at most `limit` bytes; one byte more tells the caller that it is longer. `None` where none is.
    pub(crate) fn read(&self, path: &str, limit: u64) -> DriverResult<Option<Vec<u8>>> {
        let file = match self.open_file(path, OFlags::RDONLY) {
            Err(error) if error.code == ErrorCode::NotFound => return Ok(None),
            other => File::from(other?),
        };
        let mut bytes = Vec::new();
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| DriverError::io(format!("reading {}/{path}", self.name), &e))?;
        Ok(Some(bytes))
    }

    /// Puts a file in place of what has its name, durably and at once.
    pub(crate) fn replace(&self, path: &str, bytes: &[u8]) -> DriverResult<()> {
        let temporary = format!("{WORK}/{}", unique()?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let mut file = File::from(self.open_file(&temporary, flags)?);
        let placed = file
            .write_all(bytes)
            .and_then(|()| file.sync_all())
            .map_err(|e| DriverError::io(format!("writing {}/{path}", self.name), &e))
            .and_then(|()| self.place(&temporary, path));
        if placed.is_err() {
            let _ = fs::unlinkat(&self.dir, &temporary, fs::AtFlags::empty());
        }
        placed
    }

    /// Renames a flushed file to its name, and flushes the name.
    pub(crate) fn place(&self, from: &str, to: &str) -> DriverResult<()> {
        let what = || format!("placing {}/{to}", self.name);
        fs::renameat(&self.dir, from, &self.dir, to).map_err(|error| doing(&what(), error))?;
        self.sync_directory(to.rsplit_once('/').map_or(".", |(above, _)| above))
    }

    pub(crate) fn sync_directory(&self, path: &str) -> DriverResult<()> {
        beneath(&self.dir, path)
            .and_then(fs::fsync)
            .map_err(|error| doing(&format!("flushing {}/{path}", self.name), error))
    }
}

/// A name that nobody else has thought of.
pub(crate) fn unique() -> DriverResult<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| DriverError::internal(format!("no random numbers: {error}")))?;
    Ok(hex::encode(bytes))
}

/// Opens a directory below another; the operator's own symlinks may lead from one to another, not out.
fn beneath(above: impl AsFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    fs::openat2(above, path, DIRECTORY, Mode::empty(), resolve)
}

fn make_directory(above: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    match fs::mkdirat(above, name, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// Source: OCI distribution specification, *Pulling manifests*: the grammar of `<name>`, by which no component is empty
/// or begins with a dot.
fn check_name(repository: &str) -> DriverResult<()> {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let component = |part: &str| {
        let bytes = part.as_bytes();
        bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
            && bytes.iter().all(|b| alphanumeric(b) || b"._-".contains(b))
            && !RESERVED.contains(&part)
    };
    if repository.len() <= 255 && repository.split('/').all(component) {
        return Ok(());
    }
    Err(DriverError::invalid(format!(
        "name invalid: invalid repository name: {repository}"
    )))
}

fn check_version(mark: &[u8]) -> DriverResult<()> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Mark {
        image_layout_version: String,
    }
    match serde_json::from_slice::<Mark>(mark) {
        Ok(mark) if mark.image_layout_version.starts_with("1.") => Ok(()),
        Ok(mark) => Err(DriverError::new(
            ErrorCode::FailedPrecondition,
            format!(
                "image layouts of version {} are not supported",
                mark.image_layout_version
            ),
        )),
        Err(error) => Err(DriverError::new(
            ErrorCode::DataLoss,
            format!("reading oci-layout: {error}"),
        )),
    }
}

fn unknown(repository: &str) -> DriverError {
    DriverError::not_found(format!(
        "name unknown: repository name not known to registry: {repository}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "team/app", "a.b/c_d/e-f", "library/busybox"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "..",
            "a/../b",
            ".gantry",
            "A",
            "a/blobs",
            "blobs/sha256",
            "a/index.json",
            "oci-layout",
            "a b",
            "a\0",
            &"a".repeat(256),
        ] {
            let error = check_name(bad).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{bad}");
        }
    }
}
