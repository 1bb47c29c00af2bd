//! docs/compatibility.md is generated from tests/compatibility.tsv.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

const TABLE: &str = "tests/compatibility.tsv";
const DOCUMENT: &str = "docs/compatibility.md";
const HEAD: &str = "# Compatibility\n\n<!-- Generated from tests/compatibility.tsv by `cargo xtask compatibility`. -->\n\nWhat \
     works as Docker's engine does, what does not yet, and which test tells.\n";

struct Row {
    area: String,
    item: String,
    status: String,
    test: String,
    note: String,
}

fn rows(root: &Path) -> Result<Vec<Row>> {
    let text = fs::read_to_string(root.join(TABLE)).context(TABLE)?;
    text.lines()
        .skip(1)
        .map(|line| {
            let mut cells = line.split('\t').map(str::to_owned);
            let mut next = || {
                cells
                    .next()
                    .with_context(|| format!("{TABLE}: too few cells in {line:?}"))
            };
            Ok(Row {
                area: next()?,
                item: next()?,
                status: next()?,
                test: next()?,
                note: next()?,
            })
        })
        .collect()
}

fn render(root: &Path) -> Result<String> {
    let mut text = HEAD.to_owned();
    let mut area = String::new();
    for row in rows(root)? {
        if row.area != area {
            text.push_str(&format!(
                "\n## {}\n\n| what | state | shown by | note |\n| --- | --- | --- | --- |\n",
                row.area
            ));
            area = row.area;
        }
        let test = if row.test.is_empty() {
            String::new()
        } else {
            format!("`{}`", row.test)
        };
        text.push_str(&format!(
            "| {} | {} | {test} | {} |\n",
            row.item, row.status, row.note
        ));
    }
    Ok(text)
}

/// Writes the document.
pub(crate) fn write(root: &Path) -> Result<()> {
    fs::write(root.join(DOCUMENT), render(root)?).context(DOCUMENT)
}

/// Fails when the document is stale, or when a row that works names no test that exists.
pub(crate) fn check(root: &Path) -> Result<()> {
    let now = fs::read_to_string(root.join(DOCUMENT)).context(DOCUMENT)?;
    ensure!(
        now == render(root)?,
        "{DOCUMENT} is stale: run `cargo xtask compatibility`"
    );
    for row in rows(root)? {
        ensure!(
            ["works", "partly", "no", "not here"].contains(&row.status.as_str()),
            "{TABLE}: status {:?}",
            row.status
        );
        if row.status == "works" || row.status == "partly" {
            let (file, name) = row
                .test
                .split_once("::")
                .with_context(|| format!("{TABLE}: {}: no test", row.item))?;
            let source =
                fs::read_to_string(root.join(file)).with_context(|| format!("{TABLE}: {file}"))?;
            ensure!(
                source.contains(&format!("fn {name}(")),
                "{TABLE}: {file} has no test {name}"
            );
        }
    }
    Ok(())
}
