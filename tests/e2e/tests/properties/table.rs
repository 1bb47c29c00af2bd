//! The table of properties: `tests/checklists/properties.tsv`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// Where the checks of this test are.
pub(crate) const HERE: &str = "tests/e2e/tests/properties/";

/// One property.
pub(crate) struct Row {
    /// `HostConfig.Memory`.
    pub(crate) property: String,
    /// `works`, `refused`, `kept` (shown again, without effect, as on Docker's Linux), `shown` (output only).
    pub(crate) state: String,
    /// `file::function`, one or more.
    pub(crate) tests: Vec<String>,
    /// The test of the same on cgroup v2.
    pub(crate) v2: Option<String>,
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.join("../..")
        .canonicalize()
        .expect("tests are run in the repository")
}

fn lines(file: &str) -> Vec<Vec<String>> {
    let path = root().join("tests/checklists").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let cells = |line: &str| line.split('\t').map(str::to_owned).collect();
    text.lines().skip(1).map(cells).collect()
}

pub(crate) fn rows() -> Vec<Row> {
    let rows = lines("properties.tsv").into_iter().map(|cells| {
        let [property, _mark, state, tests, v2, _note] =
            <[String; 6]>::try_from(cells).unwrap_or_else(|c| panic!("six cells, not {c:?}"));
        Row {
            property,
            state,
            tests: tests.split_whitespace().map(str::to_owned).collect(),
            v2: Some(v2).filter(|v2| !v2.is_empty()),
        }
    });
    rows.collect()
}

/// What API v1.51 defines.
pub(crate) fn api() -> BTreeSet<String> {
    let rows = lines("api-v1.51.tsv").into_iter();
    rows.map(|cells| cells.join(".")).collect()
}

/// Whether `file::function` is a function of the tree.
pub(crate) fn exists(test: &str) -> bool {
    let Some((file, function)) = test.split_once("::") else {
        return false;
    };
    let source = fs::read_to_string(root().join(file)).unwrap_or_default();
    source.contains(&format!("fn {function}("))
}
