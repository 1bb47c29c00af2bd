//! The blocks of a page, and the machine that they are for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file of the repository.
pub(crate) fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

/// The blocks of a language.
pub(crate) fn blocks(path: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(file(path)).expect("the page is there");
    let begin = format!("```{language}\n");
    let blocks = text.split(&begin).skip(1);
    let ended = |rest: &str| rest.split_once("\n```").expect("it ends").0.to_owned();
    blocks.map(ended).collect()
}

/// The only block of a language that has this in it.
#[track_caller]
pub(crate) fn block(path: &str, language: &str, with: &str) -> String {
    let mut blocks = blocks(path, language);
    blocks.retain(|block| block.contains(with));
    assert_eq!(blocks.len(), 1, "{path}: {with}: {blocks:?}");
    blocks.remove(0)
}

/// A block that is a configuration of the daemon's.
#[track_caller]
pub(crate) fn configuration(path: &str, with: &str) -> Value {
    serde_json::from_str(&block(path, "json", with)).expect("it is JSON")
}

/// Puts something in the place of what is printed.
#[track_caller]
pub(crate) fn instead(text: &str, printed: &str, wanted: &str) -> String {
    assert!(text.contains(printed), "no {printed:?} in\n{text}");
    text.replace(printed, wanted)
}

/// A directory in which programs that change the machine are only noted, to be the first of `PATH`.
pub(crate) fn idle(dir: &Path) -> PathBuf {
    let bin = dir.join("bin");
    fs::create_dir_all(&bin).expect("a new directory");
    for name in ["apt-get", "systemctl"] {
        let script = format!("#!/bin/sh\necho {name} \"$@\" >>{}/done\n", dir.display());
        fs::write(bin.join(name), script).expect("it is written");
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(bin.join(name), mode).expect("it is ours");
    }
    bin
}
