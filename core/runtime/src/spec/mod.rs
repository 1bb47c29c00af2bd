//! From plain fields to an OCI runtime specification, with Docker's defaults.

mod build;
mod devices;
pub(crate) mod foreign;
mod input;
mod mounts;
pub(crate) mod process;
pub(crate) mod resources;
mod sysctl;
mod users;

#[cfg(test)]
mod tests;

use oci_spec::runtime::Spec;

pub(crate) use build::{Context, build};
pub use build::{default_masked_paths, default_readonly_paths};
pub use input::{
    BlkioDevice, DeviceInput, MountInput, NamespaceMode, Namespaces, Propagation, Resources,
    SeccompChoice, ShmInput, SpecInput, TmpfsInput, Ulimit,
};
pub use sysctl::check as check_sysctl;
pub use users::user_ids;

/// What a container is made from: an OCI specification, and its user as it was named.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerSpec {
    /// The specification. The user in it is root where `user` has names: they are known only to the container's own
    /// `/etc/passwd` and `/etc/group`, which are read when it starts.
    pub oci: Spec,
    /// Who it runs as.
    pub user: UserSpec,
}

/// A user as Docker names one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserSpec {
    /// `name|uid[:group|gid]`; empty: root.
    pub name: String,
    /// More groups, names or numbers.
    pub groups: Vec<String>,
}

/// Why a specification cannot be built. Messages are Docker's where clients see them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The user or group is not in the container's files.
    #[error("unable to find {what} {name}: no matching entries in {file} file")]
    NoSuchUser {
        /// `user` or `group`.
        what: &'static str,
        /// As given.
        name: String,
        /// `passwd` or `group`.
        file: &'static str,
    },
    /// A field has a value that has no meaning.
    #[error("{0}")]
    Invalid(String),
    /// The seccomp profile cannot be used.
    #[error("{0}")]
    Seccomp(String),
    /// The root file system cannot be read.
    #[error("reading the container's file system: {0}")]
    Rootfs(String),
    /// Devices by name that cannot be given.
    #[error(transparent)]
    Cdi(#[from] crate::cdi::CdiError),
    /// Part of a specification that Gantry's own runtime does not do.
    #[error("not supported: {0}")]
    Unsupported(String),
}
