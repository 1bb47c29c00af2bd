//! What `--help` prints, laid out as Docker's client lays it out.

use clap::{Arg, ArgAction, Command};

use crate::argv::Usage;
use crate::terminal;

/// Columns where there is no terminal to ask.
const COLUMNS: usize = 80;

/// The help of `command`.
pub(crate) fn render(command: &Command, usage: &Usage<'_>) -> String {
    let mut text = format!("Usage:  {}", usage.path);
    if !usage.arguments.is_empty() {
        text.push(' ');
        text.push_str(&usage.arguments);
    }
    text.push_str("\n\n");
    text.push_str(usage.about);
    text.push('\n');
    if usage.aliases.len() > 1 {
        text.push_str("\nAliases:\n  ");
        text.push_str(&usage.aliases.join(", "));
        text.push('\n');
    }
    text.push_str(&usage.commands);
    let columns = terminal::size().map_or(COLUMNS, |(_, columns)| usize::from(columns));
    let options = options(command, columns);
    if !options.is_empty() {
        text.push_str(&format!("\n{}:\n{options}", usage.options_heading));
    }
    text.push_str(&usage.after);
    text
}

fn options(command: &Command, columns: usize) -> String {
    let flags: Vec<(String, String)> = command
        .get_arguments()
        .filter(|arg| !arg.is_positional() && !arg.is_hide_set())
        .map(|arg| {
            (
                flag(arg),
                arg.get_help().map(ToString::to_string).unwrap_or_default(),
            )
        })
        .collect();
    let margin = flags
        .iter()
        .map(|(flag, _)| flag.chars().count())
        .max()
        .unwrap_or(0)
        + 3;
    let mut text = String::new();
    for (flag, help) in flags {
        let mut lines = wrap(&help, columns.saturating_sub(margin).max(24)).into_iter();
        text.push_str(&format!(
            "{flag:<margin$}{}\n",
            lines.next().unwrap_or_default()
        ));
        lines.for_each(|line| text.push_str(&format!("{:margin$}{line}\n", "")));
    }
    text
}

/// `  -m, --memory bytes`; a switch needs no value.
fn flag(arg: &Arg) -> String {
    let short = arg
        .get_short()
        .map_or_else(|| "      ".to_owned(), |short| format!("  -{short}, "));
    let long = arg.get_long().unwrap_or_default();
    let is_switch = arg
        .get_num_args()
        .is_some_and(|range| range.min_values() == 0);
    let value = arg
        .get_value_names()
        .and_then(<[_]>::first)
        .filter(|_| !is_switch);
    match (value, arg.get_action()) {
        (Some(value), ArgAction::Set | ArgAction::Append) => format!("{short}--{long} {value}"),
        _ => format!("{short}--{long}"),
    }
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_aligned_and_wrapped() {
        let command = Command::new("x")
            .arg(
                Arg::new("all")
                    .long("all")
                    .short('a')
                    .action(ArgAction::Set)
                    .num_args(0..=1)
                    .help("Show all"),
            )
            .arg(
                Arg::new("format")
                    .long("format")
                    .value_name("string")
                    .help("one two three four five six"),
            )
            .arg(Arg::new("secret").long("secret").hide(true));
        assert_eq!(
            options(&command, 45),
            "  -a, --all             Show all\n      --format string   one two three four five\n                        six\n"
        );
    }
}
