//! Dependencies point down only (docs/ARCHITECTURE.md, "Rooms").

use anyhow::{Result, ensure};
use cargo_metadata::{DependencyKind, Metadata};

/// For each crate the crates of this workspace that it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("gantry-model", &[]),
    ("gantry-wire", &["gantry-model"]),
    ("gantry-driver-api", &["gantry-model"]),
    ("gantry-sys", &["gantry-driver-api"]),
    ("gantry-store", &["gantry-model"]),
    (
        "gantry-driver-registry",
        &["gantry-driver-api", "gantry-model"],
    ),
    (
        "gantry-content",
        &["gantry-model", "gantry-store", "gantry-sys"],
    ),
    (
        "gantry-image",
        &[
            "gantry-content",
            "gantry-driver-api",
            "gantry-driver-registry",
            "gantry-model",
            "gantry-store",
            "gantry-sys",
        ],
    ),
    ("gantry-netd", &["gantry-sys"]),
    (
        "gantry-network",
        &[
            "gantry-driver-api",
            "gantry-driver-registry",
            "gantry-model",
            "gantry-netd",
            "gantry-store",
            "gantry-sys",
        ],
    ),
    ("gantry-logs", &["gantry-model", "gantry-sys"]),
    (
        "gantry-volume",
        &[
            "gantry-driver-api",
            "gantry-driver-registry",
            "gantry-model",
            "gantry-store",
            "gantry-sys",
        ],
    ),
    ("gantry-monitor", &["gantry-driver-api", "gantry-sys"]),
    (
        "gantry-runtime",
        &[
            "gantry-driver-api",
            "gantry-model",
            "gantry-monitor",
            "gantry-sys",
        ],
    ),
    (
        "gantry-oci",
        &[
            "gantry-driver-api",
            "gantry-monitor",
            "gantry-runtime",
            "gantry-sys",
        ],
    ),
    (
        "gantry-engine",
        &[
            "gantry-content",
            "gantry-driver-api",
            "gantry-driver-registry",
            "gantry-image",
            "gantry-logs",
            "gantry-model",
            "gantry-network",
            "gantry-runtime",
            "gantry-store",
            "gantry-sys",
            "gantry-volume",
            "gantry-wire",
        ],
    ),
    (
        "gantry-api",
        &["gantry-engine", "gantry-model", "gantry-sys", "gantry-wire"],
    ),
    ("gantry-cli", &["gantry-wire"]),
    ("gantry-plugin-abi", &[]),
    ("gantry-plugin-sdk-macros", &[]),
    (
        "gantry-plugin-sdk",
        &[
            "gantry-driver-api",
            "gantry-model",
            "gantry-plugin-abi",
            "gantry-plugin-sdk-macros",
            "gantry-sys",
        ],
    ),
    (
        "gantry-plugin-host",
        &[
            "gantry-driver-api",
            "gantry-driver-registry",
            "gantry-model",
            "gantry-plugin-abi",
            "gantry-sys",
        ],
    ),
    (
        "gantry-driver-host",
        &[
            "gantry-driver-api",
            "gantry-plugin-abi",
            "gantry-plugin-host",
        ],
    ),
    (
        "gantry-plugin-conformance",
        &[
            "gantry-driver-api",
            "gantry-driver-registry",
            "gantry-model",
            "gantry-plugin-abi",
            "gantry-plugin-host",
            "gantry-sys",
        ],
    ),
];

/// What drivers, mocks and templates see.
const DRIVER: &[&str] = &["gantry-plugin-sdk"];

/// Fails on the first dependency that points up or sideways.
pub(crate) fn check(metadata: &Metadata) -> Result<()> {
    let members: Vec<_> = metadata.workspace_packages();
    let ours = |name: &str| members.iter().any(|p| p.name == name);
    for package in &members {
        let path = package
            .manifest_path
            .strip_prefix(&metadata.workspace_root)?;
        let allowed = match ALLOWED.iter().find(|(name, _)| package.name == name) {
            Some((_, allowed)) => allowed,
            None if path.starts_with("drivers") || path.starts_with("plugins") => DRIVER,
            // The daemon wires everything; tests drive binaries but may borrow types.
            None => continue,
        };
        for dependency in package
            .dependencies
            .iter()
            .filter(|d| d.kind == DependencyKind::Normal)
        {
            ensure!(
                !ours(&dependency.name) || allowed.contains(&dependency.name.as_str()),
                "{} may not depend on {}: see docs/ARCHITECTURE.md",
                package.name,
                dependency.name
            );
        }
    }
    Ok(())
}
