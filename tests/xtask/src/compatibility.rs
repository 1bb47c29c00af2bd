//! docs/compatibility.md is generated from tests/compatibility.tsv and the tables of tests/checklists.

mod checklists;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};

const TABLE: &str = "tests/compatibility.tsv";
const DOCUMENT: &str = "docs/compatibility.md";
const HEAD: &str = "# Compatibility\n\n<!-- Generated from tests/compatibility.tsv and tests/checklists by `cargo xtask compatibility`. -->\n\nWhat \
     works as Docker's engine does, what does not yet, and which test tells.\n";

struct Row {
    area: String,
    item: String,
    status: String,
    test: String,
    note: String,
}

fn rows(root: &Path) -> Result<Vec<Row>> {
    let rows = cells(root, TABLE)?.into_iter();
    Ok(rows
        .map(|[area, item, status, test, note]| Row {
            area,
            item,
            status,
            test,
            note,
        })
        .collect())
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
    checklists::render(root, &mut text)?;
    Ok(text)
}

/// Cells of a table, without its head.
fn cells<const N: usize>(root: &Path, table: &str) -> Result<Vec<[String; N]>> {
    let text = fs::read_to_string(root.join(table)).with_context(|| table.to_owned())?;
    text.lines()
        .skip(1)
        .map(|line| {
            let cells: Vec<String> = line.split('\t').map(str::to_owned).collect();
            let cells: Result<[String; N], _> = cells.try_into();
            cells.map_err(|_| anyhow!("{table}: not {N} cells in {line:?}"))
        })
        .collect()
}

/// Fails unless `file::function` is in the tree.
fn is_test(root: &Path, table: &str, test: &str) -> Result<()> {
    let (file, name) = test
        .split_once("::")
        .with_context(|| format!("{table}: {test:?} is no test"))?;
    let source = fs::read_to_string(root.join(file)).with_context(|| format!("{table}: {file}"))?;
    ensure!(
        source.contains(&format!("fn {name}(")),
        "{table}: {file} has no test {name}"
    );
    Ok(())
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
            is_test(root, TABLE, &row.test).with_context(|| row.item.clone())?;
        }
    }
    checklists::check(root)
}
