//! The documentation names what is there, and nothing that is not.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use cargo_metadata::Metadata;

/// Fails when a room is missing from the architecture, a document names a path that is not there, or a decision
/// record is malformed.
pub(crate) fn check(metadata: &Metadata, root: &Path) -> Result<()> {
    let architecture = read(root, "docs/ARCHITECTURE.md")?;
    for package in metadata.workspace_packages() {
        let dir = package
            .manifest_path
            .parent()
            .context("a manifest has a directory")?;
        let path = dir.strip_prefix(&metadata.workspace_root)?.as_str();
        ensure!(
            architecture.contains(&format!("`{path}`")),
            "docs/ARCHITECTURE.md does not tell of {path}"
        );
    }
    for document in [
        "README.md",
        "docs/ARCHITECTURE.md",
        "docs/driver-authoring/README.md",
    ] {
        for path in named_paths(&read(root, document)?) {
            ensure!(
                root.join(&path).exists(),
                "{document} names {path}, which is not there"
            );
        }
    }
    records(root)
}

fn read(root: &Path, path: &str) -> Result<String> {
    fs::read_to_string(root.join(path)).with_context(|| format!("reading {path}"))
}

/// What stands in back quotes and looks like a path of this repository.
fn named_paths(text: &str) -> Vec<String> {
    let tops = ["core/", "plugins/", "drivers/", "cli/", "tests/", "docs/"];
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| {
            tops.iter().any(|top| word.starts_with(top)) && !word.contains([' ', '*', '{', '<'])
        })
        .map(str::to_owned)
        .collect()
}

/// docs/adr/NNNN-title.md, numbered without gaps, each with its three parts.
fn records(root: &Path) -> Result<()> {
    let mut names: Vec<_> = fs::read_dir(root.join("docs/adr"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    for (index, name) in names.iter().enumerate() {
        ensure!(
            name.starts_with(&format!("{:04}-", index + 1)),
            "docs/adr/{name}: want number {}",
            index + 1
        );
        let text = read(root, &format!("docs/adr/{name}"))?;
        for part in ["## Context", "## Decision", "## Consequences"] {
            ensure!(text.contains(part), "docs/adr/{name}: no {part}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths() {
        let text = "see `core/api`, `cargo test`, `drivers/*` and `docs/adr/0001-x.md`";
        assert_eq!(super::named_paths(text), ["core/api", "docs/adr/0001-x.md"]);
    }
}
