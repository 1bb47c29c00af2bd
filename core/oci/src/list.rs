//! `state`, `list` and `ps`.

use std::io::Write;
use std::path::Path;

use serde_json::Value;

use crate::cli::{ListArgs, ListFormat, PsArgs};
use crate::error::{Context, Error, Result};
use crate::state::Container;

/// Prints, where somebody still reads.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", text.trim_end()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context(|| "print".into()),
    }
}

/// JSON as people read it.
pub(crate) fn print_json(value: &Value) -> Result<()> {
    print(&serde_json::to_string_pretty(value).map_err(Error::refused)?)
}

/// `state`.
pub(crate) fn state(root: &Path, id: &str) -> Result<()> {
    print_json(&Container::open(root, id)?.state())
}

/// `list`.
pub(crate) fn list(root: &Path, args: &ListArgs) -> Result<()> {
    let containers = Container::all(root)?;
    if args.quiet {
        return containers.iter().try_for_each(|c| print(&c.record.id));
    }
    let states: Vec<Value> = containers.iter().map(Container::state).collect();
    if args.format == ListFormat::Json {
        return print(&Value::Array(states).to_string());
    }
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    for state in &states {
        let text = |key: &str| match &state[key] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let owner = "root".to_owned();
        let [id, pid, status] = ["id", "pid", "status"].map(text);
        rows.push([id, pid, status, text("bundle"), text("created"), owner]);
    }
    print(&table(&rows))
}

/// `ps`: processes by their numbers on the host.
pub(crate) fn ps(root: &Path, args: &PsArgs) -> Result<()> {
    let container = Container::open(root, &args.id)?;
    let pids = container.group()?.pids()?;
    if args.format == ListFormat::Json {
        return print(&Value::from(pids).to_string());
    }
    let mut rows = vec![["UID", "PID", "PPID", "CMD"].map(str::to_owned)];
    rows.extend(pids.into_iter().filter_map(process));
    print(&table(&rows))
}

fn process(pid: i32) -> Option<[String; 4]> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let status = read("status")?;
    let field = |key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key))?;
        line.split_whitespace().next().map(str::to_owned)
    };
    let command = read("cmdline").map(|c| c.trim_end_matches('\0').replace('\0', " "));
    let command = match command {
        Some(command) if !command.is_empty() => command,
        _ => format!("[{}]", field("Name:")?),
    };
    Some([field("Uid:")?, pid.to_string(), field("PPid:")?, command])
}

/// Columns as wide as their widest.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |n: usize| rows.iter().map(|r| r[n].chars().count()).max().unwrap_or(0);
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(n, cell)| format!("{cell:<0$}", width(n)))
            .collect();
        cells.join("   ").trim_end().to_owned()
    };
    let lines: Vec<String> = rows.iter().map(line).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let rows = [["A", "B"], ["long", "x"]].map(|r| r.map(str::to_owned));
        assert_eq!(table(&rows), "A      B\nlong   x");
    }

    #[test]
    fn a_process_is_described() {
        let own = process(std::process::id().cast_signed()).unwrap();
        assert_eq!(own[0], "0");
        assert!(own[3].contains("gantry_oci"), "{}", own[3]);
        assert_eq!(process(i32::MAX), None);
    }
}
