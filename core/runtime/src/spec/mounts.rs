//! What is mounted inside a container, in order.

use std::path::Path;

use oci_spec::runtime as oci;

use super::process::INIT_TARGET;
use super::{MountInput, Propagation, ShmInput, SpecError, SpecInput};

/// Docker's mounts: (target, type, source, options). `ro` goes away for privileged containers.
const DEFAULTS: [(&str, &str, &str, &[&str]); 6] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    (
        "/dev",
        "tmpfs",
        "tmpfs",
        &["nosuid", "strictatime", "mode=755", "size=65536k"],
    ),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &[
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            "gid=5",
        ],
    ),
    (
        "/sys",
        "sysfs",
        "sysfs",
        &["nosuid", "noexec", "nodev", "ro"],
    ),
    (
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["ro", "nosuid", "noexec", "nodev"],
    ),
    (
        "/dev/mqueue",
        "mqueue",
        "mqueue",
        &["nosuid", "noexec", "nodev"],
    ),
];

/// Mount points that stay writable when the root is read-only.
const WRITABLE: [&str; 5] = ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"];

pub(super) fn build(input: &SpecInput) -> Result<Vec<oci::Mount>, SpecError> {
    let own = own_mounts(input)?;
    let covered = |target: &str| own.iter().any(|m| m.destination() == Path::new(target));
    let dev = covered("/dev");
    let mut all: Vec<oci::Mount> = Vec::new();
    for (target, fstype, source, options) in DEFAULTS {
        if covered(target) || (dev && target.starts_with("/dev/")) {
            continue;
        }
        let mut options: Vec<String> = options.iter().map(|&o| o.to_owned()).collect();
        let writable = input.privileged && !input.readonly_root && target == "/sys"
            || target == "/sys/fs/cgroup" && (input.privileged || input.writable_cgroups);
        if writable {
            options.retain(|o| o != "ro");
        }
        if input.readonly_root && !WRITABLE.contains(&target) && !options.iter().any(|o| o == "ro")
        {
            options.push("ro".into());
        }
        all.push(mount(target, fstype, source, options));
    }
    if !covered("/dev/shm") && !dev {
        all.extend(shm(&input.shm));
    }
    all.extend(own);
    Ok(all)
}

fn mount(target: &str, fstype: &str, source: impl AsRef<Path>, options: Vec<String>) -> oci::Mount {
    let mut out = oci::Mount::default();
    out.set_destination(target.into());
    out.set_typ(Some(fstype.into()));
    out.set_source(Some(source.as_ref().to_owned()));
    out.set_options(Some(options));
    out
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&w| w.to_owned()).collect()
}

fn shm(shm: &ShmInput) -> Option<oci::Mount> {
    match shm {
        ShmInput::None => None,
        ShmInput::Private { size } => {
            let mut options = words(&["nosuid", "noexec", "nodev", "mode=1777"]);
            options.push(format!("size={size}"));
            Some(mount("/dev/shm", "tmpfs", "shm", options))
        }
        ShmInput::Bind(path) => {
            let options = words(&["rbind", "rprivate"]);
            Some(mount("/dev/shm", "bind", path, options))
        }
    }
}

/// Binds and tmpfs of the container itself, those that lie under others after them.
fn own_mounts(input: &SpecInput) -> Result<Vec<oci::Mount>, SpecError> {
    let mut own = Vec::new();
    for bind in &input.mounts {
        check_target(&bind.target)?;
        own.push(mount(
            &bind.target,
            "bind",
            &bind.source,
            bind_options(bind, input.userns.is_some()),
        ));
    }
    for tmpfs in &input.tmpfs {
        check_target(&tmpfs.target)?;
        let options = tmpfs_options(&tmpfs.options);
        own.push(mount(&tmpfs.target, "tmpfs", "tmpfs", options));
    }
    own.sort_by_key(|m| m.destination().components().count());
    if let Some(init) = &input.init {
        let options = words(&["bind", "ro"]);
        own.push(mount(INIT_TARGET, "bind", init, options));
    }
    Ok(own)
}

fn check_target(target: &str) -> Result<(), SpecError> {
    let path = Path::new(target);
    let climbs = path
        .components()
        .any(|c| c == std::path::Component::ParentDir);
    if !path.is_absolute() || climbs || target.contains('\0') {
        return Err(SpecError::Invalid(format!(
            "invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    if path.parent().is_none() {
        return Err(SpecError::Invalid(
            "invalid specification: destination can't be '/'".into(),
        ));
    }
    Ok(())
}

/// A read-only bind is so with all that is mounted below it, unless asked otherwise.
fn bind_options(bind: &MountInput, user_ns: bool) -> Vec<String> {
    let mut options = words(&[if bind.non_recursive { "bind" } else { "rbind" }]);
    if bind.read_only {
        let recursive = !bind.read_only_non_recursive && !bind.non_recursive;
        options.push(if recursive { "rro" } else { "ro" }.into());
    }
    if bind.idmapped && user_ns {
        let recursive = !bind.non_recursive;
        options.push(if recursive { "ridmap" } else { "idmap" }.into());
    }
    options.push(propagation_word(bind.propagation).into());
    options
}

fn propagation_word(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Private => "private",
        Propagation::RPrivate => "rprivate",
        Propagation::Shared => "shared",
        Propagation::RShared => "rshared",
        Propagation::Slave => "slave",
        Propagation::RSlave => "rslave",
    }
}

/// What the root's propagation must be for the binds to have theirs.
pub(super) fn root_propagation(binds: &[MountInput]) -> Option<&'static str> {
    let any = |wanted: [Propagation; 2]| binds.iter().any(|b| wanted.contains(&b.propagation));
    if any([Propagation::Shared, Propagation::RShared]) {
        Some("shared")
    } else if any([Propagation::Slave, Propagation::RSlave]) {
        Some("rslave")
    } else {
        None
    }
}

/// Docker's `noexec,nosuid,nodev`, each undone by its opposite.
fn tmpfs_options(given: &[String]) -> Vec<String> {
    let mut options: Vec<String> = [("noexec", "exec"), ("nosuid", "suid"), ("nodev", "dev")]
        .into_iter()
        .filter(|(_, opposite)| !given.iter().any(|g| g == opposite))
        .map(|(word, _)| word.to_owned())
        .collect();
    for word in given {
        if !options.contains(word) {
            options.push(word.clone());
        }
    }
    options
}
