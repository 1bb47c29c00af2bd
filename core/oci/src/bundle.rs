//! A bundle: the specification and what it says of itself, checked before anything is done.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use gantry_runtime::spec::{NamespaceMode, Namespaces, check_sysctl};
use oci_spec::runtime::{self as oci, LinuxNamespaceType as Kind};

use crate::capabilities::drop_unknown;
use crate::error::{Context, Error, Result};
use crate::log::Log;

/// No specification is longer.
const MAX_CONFIG: u64 = 16 << 20;

/// A bundle that was read and makes sense.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Absolute.
    pub(crate) dir: PathBuf,
    /// The container's root file system: absolute, without links.
    pub(crate) rootfs: PathBuf,
    pub(crate) spec: oci::Spec,
    /// The specification as it was written.
    pub(crate) text: String,
    /// Capabilities that it names and that are not known here.
    pub(crate) unknown_capabilities: BTreeSet<String>,
}

impl Bundle {
    pub(crate) fn load(dir: &Path) -> Result<Self> {
        let what = || format!("bundle {}", dir.display());
        let dir = dir.canonicalize().context(what)?;
        let text = match read(&dir.join("config.json")) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::refused(
                    "JSON specification file config.json not found",
                ));
            }
            other => other.context(|| "read config.json".into())?,
        };
        let (spec, unknown_capabilities) = parse(&text)?;
        check(&spec)?;
        let root = spec.root().as_ref();
        let root = root.ok_or_else(|| Error::refused("root must be specified"))?;
        let rootfs = dir.join(root.path());
        let what = || format!("invalid rootfs {}", rootfs.display());
        let rootfs = rootfs.canonicalize().context(what)?;
        if !rootfs.is_dir() {
            return Err(Error::refused(format!("{}: not a directory", what())));
        }
        Ok(Self {
            dir,
            rootfs,
            spec,
            text,
            unknown_capabilities,
        })
    }
}

/// A file of bounded length.
pub(crate) fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_CONFIG)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// The specification in a text, and the capabilities that were left out of it since they are not known here.
pub(crate) fn parse(text: &str) -> Result<(oci::Spec, BTreeSet<String>)> {
    let invalid = |e: serde_json::Error| Error::refused(format!("invalid config.json: {e}"));
    let mut value: serde_json::Value = serde_json::from_str(text).map_err(invalid)?;
    let unknown = value.get_mut("process").map(drop_unknown);
    let spec = serde_json::from_value(value).map_err(invalid)?;
    Ok((spec, unknown.unwrap_or_default()))
}

/// Tells of capabilities that are not known here.
pub(crate) fn warn_unknown(capabilities: &BTreeSet<String>, log: &Log) {
    for name in capabilities {
        log.warn(&format!("unknown capability {name:?} is ignored"));
    }
}

/// What a specification must have, and what it must not have without something else.
fn check(spec: &oci::Spec) -> Result<()> {
    check_version(spec.version())?;
    let Some(process) = spec.process() else {
        return Err(Error::refused("process property must not be empty"));
    };
    check_process(process)?;
    let empty = Vec::new();
    let linux = spec.linux().as_ref();
    let namespaces = linux
        .and_then(|l| l.namespaces().as_ref())
        .unwrap_or(&empty);
    for (n, one) in namespaces.iter().enumerate() {
        if namespaces[..n].iter().any(|o| o.typ() == one.typ()) {
            let kind = one.typ();
            return Err(Error::refused(format!(
                "malformed spec file: duplicated ns {kind}"
            )));
        }
    }
    let has = |kind| namespaces.iter().any(|n| n.typ() == kind);
    if !has(Kind::Mount) {
        return Err(Error::refused("a container needs a mount namespace"));
    }
    let named = spec.hostname().as_deref().or(spec.domainname().as_deref());
    if named.is_some_and(|n| !n.is_empty()) && !has(Kind::Uts) {
        return Err(Error::refused(
            "unable to set hostname without a private UTS namespace",
        ));
    }
    for mount in spec.mounts().iter().flatten() {
        if mount.destination().as_os_str().is_empty() {
            return Err(Error::refused("a mount without a destination"));
        }
    }
    match linux {
        Some(linux) => check_linux(linux, &has),
        None => Ok(()),
    }
}

/// Anything of the first major version, and the drafts and extensions of it.
fn check_version(version: &str) -> Result<()> {
    let mut numbers = version.split(['.', '-', '+']);
    let mut number = || numbers.next().and_then(|n| n.parse::<u32>().ok());
    match (number(), number(), number()) {
        (Some(1), Some(_), Some(_)) => Ok(()),
        _ => Err(Error::refused(format!(
            "unsupported ociVersion {version:?}: 1.0.0 to 1.2.x is supported"
        ))),
    }
}

/// A process, the container's own or an exec's.
pub(crate) fn check_process(process: &oci::Process) -> Result<()> {
    if !process.cwd().is_absolute() {
        return Err(Error::refused("Cwd must be an absolute path"));
    }
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::refused("args must not be empty"));
    }
    let limits = process.rlimits().iter().flatten();
    let mut seen = Vec::new();
    for kind in limits.map(oci::PosixRlimit::typ) {
        if seen.contains(&kind) {
            return Err(Error::refused(format!("duplicated rlimit {kind}")));
        }
        seen.push(kind);
    }
    for (given, name, has) in [
        (process.apparmor_profile(), "apparmor", "apparmor"),
        (process.selinux_label(), "selinux label", "selinux"),
    ] {
        if given.as_deref().is_some_and(|g| !g.is_empty()) && !has_lsm(has) {
            return Err(Error::refused(format!(
                "{name} is specified in config, but {has} is disabled or not supported"
            )));
        }
    }
    Ok(())
}

/// Whether the kernel has that security module.
pub(crate) fn has_lsm(name: &str) -> bool {
    Path::new("/sys/fs").join(name).exists()
        || Path::new("/sys/kernel/security").join(name).exists()
}

fn check_linux(linux: &oci::Linux, has: &impl Fn(Kind) -> bool) -> Result<()> {
    let there = [
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        (
            "linux.netDevices",
            linux.net_devices().as_ref().is_some_and(|n| !n.is_empty()),
        ),
    ];
    if let Some((name, _)) = there.iter().find(|(_, there)| *there) {
        return Err(Error::refused(format!("{name} is not supported")));
    }
    if linux
        .mount_label()
        .as_deref()
        .is_some_and(|l| !l.is_empty())
        && !has_lsm("selinux")
    {
        return Err(Error::refused(
            "selinux mount label is specified in config, but selinux is disabled or not supported",
        ));
    }
    let filter = linux.seccomp().as_ref();
    let mut rules = filter
        .and_then(|f| f.syscalls().as_ref())
        .into_iter()
        .flatten();
    if rules.any(|rule| rule.names().is_empty()) {
        return Err(Error::refused("seccomp: a rule without names"));
    }
    let maps =
        |list: &Option<Vec<oci::LinuxIdMapping>>| list.as_ref().is_some_and(|l| !l.is_empty());
    let (uids, gids) = (maps(linux.uid_mappings()), maps(linux.gid_mappings()));
    if (uids || gids) && !has(Kind::User) {
        return Err(Error::refused(
            "user namespace mappings specified, but user namespace isn't enabled in the config",
        ));
    }
    let of = of_parameters(linux.namespaces().as_deref().unwrap_or_default());
    for name in linux.sysctl().iter().flat_map(|s| s.keys()) {
        check_sysctl(name, &of)?;
    }
    Ok(())
}

/// The container's namespaces as far as kernel parameters belong to them: its own, or the host's.
fn of_parameters(given: &[oci::LinuxNamespace]) -> Namespaces {
    let mode = |kind: Kind, file: &str| {
        let own = given.iter().find(|n| n.typ() == kind).is_some_and(|n| {
            let inode = |path: &Path| std::fs::metadata(path).map(|m| m.ino()).ok();
            let host = inode(&Path::new("/proc/self/ns").join(file));
            n.path().as_ref().is_none_or(|path| inode(path) != host)
        });
        if own {
            NamespaceMode::Private
        } else {
            NamespaceMode::Host
        }
    };
    Namespaces {
        ipc: mode(Kind::Ipc, "ipc"),
        network: mode(Kind::Network, "net"),
        uts: mode(Kind::Uts, "uts"),
        ..Namespaces::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn bundle(change: impl Fn(&mut Value)) -> Result<Bundle> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("rootfs")).unwrap();
        let mut value = crate::spec::default();
        change(&mut value);
        std::fs::write(dir.path().join("config.json"), value.to_string()).unwrap();
        Bundle::load(dir.path())
    }

    fn why(change: impl Fn(&mut Value)) -> String {
        bundle(change).unwrap_err().to_string()
    }

    #[test]
    fn bad_bundles_are_refused() {
        let nowhere = Bundle::load(Path::new("/no/such")).unwrap_err().to_string();
        assert_eq!(nowhere, "bundle /no/such: no such file or directory");
        let empty = tempfile::tempdir().unwrap();
        let e = Bundle::load(empty.path()).unwrap_err().to_string();
        assert_eq!(e, "JSON specification file config.json not found");
        assert!(bundle(|_| ()).is_ok());
        assert!(why(|c| c["ociVersion"] = json!("2.0.0")).starts_with("unsupported ociVersion"));
        assert!(bundle(|c| c["ociVersion"] = json!("1.0.2-dev")).is_ok());
        assert!(why(|c| c["root"] = Value::Null).contains("root must be specified"));
        assert!(why(|c| c["root"]["path"] = json!("nope")).starts_with("invalid rootfs"));
        assert_eq!(
            why(|c| c["process"]["args"] = json!([])),
            "args must not be empty"
        );
        assert!(why(|c| c["process"]["cwd"] = json!("x")).contains("absolute path"));
        assert!(why(|c| c["linux"]["namespaces"] = json!([])).contains("mount namespace"));
        assert!(
            why(|c| c["linux"]["namespaces"] = json!([{"type": "mount"}]))
                .contains("UTS namespace")
        );
        let twice = json!([{"type": "mount"}, {"type": "mount"}]);
        assert!(why(|c| c["linux"]["namespaces"] = twice.clone()).contains("duplicated ns"));
    }

    #[test]
    fn no_parameter_of_the_host_is_set() {
        let with = |name: &str| why(|c| c["linux"]["sysctl"] = json!({name: "1"}));
        assert!(with("vm.swappiness").contains("not in a separate kernel namespace"));
        assert!(bundle(|c| c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"})).is_ok());
        let e = why(|c| {
            c["linux"]["sysctl"] = json!({"net/ipv4/ip_forward": "1"});
            c["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "uts"}]);
        });
        assert!(e.contains("host network namespace"), "{e}");
        let e = why(|c| {
            c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
            c["linux"]["namespaces"] = json!([
                {"type": "mount"}, {"type": "uts"},
                {"type": "network", "path": "/proc/self/ns/net"}
            ]);
        });
        assert!(e.contains("host network namespace"), "{e}");
        assert!(with("net/../kernel/pid_max").contains("not in a separate kernel namespace"));
    }
}
