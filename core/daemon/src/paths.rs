//! Where things are, and names derived from that.

use std::path::{Path, PathBuf};

use anyhow::Context;
use gantry_plugin_host::PluginDir;
use sha2::{Digest, Sha256};

/// Where packages put the helper programs.
const LIBEXEC: &str = "/usr/libexec/gantry";
/// Where packages put the plugins.
const PLUGINS: &str = "/usr/lib/gantry";
/// Places of an init program for `--init`, beside PATH.
const INIT_DIRS: &[&str] = &[
    "/usr/libexec/gantry",
    "/usr/libexec/docker",
    "/usr/bin",
    "/usr/sbin",
];

/// The two roots and what follows from them.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) data_root: PathBuf,
    pub(crate) exec_root: PathBuf,
    /// Eight hex digits, part of the name of everything outside the roots.
    pub(crate) tag: String,
    /// Changes whenever the machine boots.
    pub(crate) boot_id: String,
    /// Identifies this engine to clients; drawn once.
    pub(crate) engine_id: String,
}

impl Place {
    /// Makes the roots and reads what identifies them.
    pub(crate) fn prepare(data_root: &Path, exec_root: &Path) -> anyhow::Result<Self> {
        let data_root = directory(data_root, 0o710)?;
        let exec_root = directory(exec_root, 0o711)?;
        let hash = Sha256::digest(data_root.as_os_str().as_encoded_bytes());
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .context("read the boot identifier")?;
        Ok(Self {
            tag: hex::encode(&hash[..4]),
            boot_id: boot_id.trim().to_owned(),
            engine_id: engine_id(&data_root)?,
            data_root,
            exec_root,
        })
    }
}

fn directory(path: &Path, mode: u32) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("make {}", path.display()))?;
    path.canonicalize()
        .with_context(|| format!("find {}", path.display()))
}

/// A random identifier in the form of a UUID, kept in the data-root.
fn engine_id(data_root: &Path) -> anyhow::Result<String> {
    let path = data_root.join("engine-id");
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().len() == 36 => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    }
    let random =
        std::fs::read_to_string("/proc/sys/kernel/random/uuid").context("draw an identifier")?;
    let id = random.trim().to_owned();
    std::fs::write(&path, &id).with_context(|| format!("write {}", path.display()))?;
    Ok(id)
}

/// A helper program: beside the executable, or where packages put it.
pub(crate) fn helper(name: &str) -> Option<PathBuf> {
    let beside = executable_dir().map(|dir| dir.join(name));
    let packaged = Path::new(LIBEXEC).join(name);
    beside
        .into_iter()
        .chain([packaged])
        .find(|path| path.is_file())
}

fn executable_dir() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?;
    path.parent().map(Path::to_owned)
}

/// Where plugins are looked for.
pub(crate) fn plugin_dirs(given: Option<&str>) -> Vec<PluginDir> {
    let shipped = |path: PathBuf| PluginDir {
        path,
        shipped: true,
    };
    match given {
        Some(path) => vec![shipped(path.into())],
        None => executable_dir()
            .into_iter()
            .chain([PLUGINS.into()])
            .map(shipped)
            .collect(),
    }
}

/// A program in PATH.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// An init program for containers.
pub(crate) fn init() -> Option<PathBuf> {
    ["docker-init", "tini-static", "catatonit"]
        .into_iter()
        .find_map(|name| {
            INIT_DIRS
                .iter()
                .map(|dir| Path::new(dir).join(name))
                .find(|path| path.is_file())
        })
}

/// A daemon with many containers needs many descriptors.
pub(crate) fn raise_file_limit() -> nix::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (data, exec) = (dir.path().join("data"), dir.path().join("exec"));
        let first = Place::prepare(&data, &exec).unwrap();
        let again = Place::prepare(&data.join("../data"), &exec).unwrap();
        assert_eq!(
            (&first.tag, &first.engine_id),
            (&again.tag, &again.engine_id)
        );
        assert_eq!(first.tag.len(), 8);
    }
}
