//! The tables that name every property of a container and every path of the API.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{cells, is_test};

const PROPERTIES: &str = "tests/checklists/properties.tsv";
const ENDPOINTS: &str = "tests/checklists/endpoints.tsv";

const PROPERTIES_HEAD: &str = "\n## Properties of a container\n\nEvery property of API v1.51, and Gantry's own. *works*: looked at \
     from inside a container or at its control group. *shown*: output only. *kept*: shown again, without effect, as by Docker on \
     Linux. *refused*: always, in Docker's words. *not here*: refused where the machine lacks what it takes.\n\n| property | \
     state | shown by | on cgroup v2 | note |\n| --- | --- | --- | --- | --- |\n";

const ENDPOINTS_HEAD: &str = "\n## Paths of the API\n\nEach is asked for by `tests/e2e/tests/endpoints_table.rs`. *refused*: as by \
     dockerd outside a swarm or without plugins.\n\n| request | state | note |\n| --- | --- | --- |\n";

/// Appends both tables.
pub(super) fn render(root: &Path, text: &mut String) -> Result<()> {
    text.push_str(PROPERTIES_HEAD);
    for [property, mark, state, tests, v2, note] in cells(root, PROPERTIES)? {
        let own = if mark == "X" { " (Gantry's own)" } else { "" };
        let tests: Vec<String> = tests.split(' ').map(short).collect();
        let v2 = if v2.is_empty() { v2 } else { short(&v2) };
        text.push_str(&format!(
            "| `{property}`{own} | {state} | {} | {v2} | {note} |\n",
            tests.join(" ")
        ));
    }
    text.push_str(ENDPOINTS_HEAD);
    for [method, path, _, state, _, _, _, note] in cells(root, ENDPOINTS)? {
        text.push_str(&format!("| `{method} {path}` | {state} | {note} |\n"));
    }
    Ok(())
}

/// A test without the directories that most are in.
fn short(test: &str) -> String {
    format!("`{}`", test.trim_start_matches("tests/e2e/tests/"))
}

/// Fails when a row names no test that exists.
pub(super) fn check(root: &Path) -> Result<()> {
    for [property, _, _, tests, v2, _] in cells(root, PROPERTIES)? {
        ensure!(!tests.is_empty(), "{PROPERTIES}: {property}: no test");
        let v2 = Some(v2.as_str()).filter(|v2| !v2.is_empty());
        for test in tests.split(' ').chain(v2) {
            is_test(root, PROPERTIES, test).with_context(|| property.clone())?;
        }
    }
    Ok(())
}
