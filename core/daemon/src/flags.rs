//! The command line.

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value};

use crate::fsck::Mode;
use crate::options::{OPTIONS, Opt, Shape};
use crate::values;

/// What was asked for beside the options of the table.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    /// Options given, by key, in the form they have in the file.
    pub(crate) given: Map<String, Value>,
    /// `--config-file`, when given.
    pub(crate) config_file: Option<String>,
    /// `--plugin-dir`, when given.
    pub(crate) plugin_dir: Option<String>,
    /// `--validate`.
    pub(crate) validate: bool,
    /// `--fsck`.
    pub(crate) fsck: Option<Mode>,
}

/// The whole command.
pub(crate) fn command() -> Command {
    let mut command = Command::new("gantryd")
        .about("A container engine that speaks the Docker Engine API")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .arg(
            Arg::new("version")
                .short('v')
                .long("version")
                .action(ArgAction::Version)
                .help("Print version information and quit"),
        )
        .arg(
            Arg::new("config-file")
                .long("config-file")
                .value_name("string")
                .help("Configuration file (default \"/etc/gantry/daemon.json\")"),
        )
        .arg(
            Arg::new("plugin-dir")
                .long("plugin-dir")
                .value_name("string")
                .help("Directory of driver plugins (default: that of the executable, then /usr/lib/gantry)"),
        )
        .arg(
            Arg::new("validate")
                .long("validate")
                .action(ArgAction::SetTrue)
                .help("Check the configuration and exit"),
        )
        .arg(
            Arg::new("fsck")
                .long("fsck")
                .value_name("words")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("check")
                .value_parser(Mode::parse)
                .help("Check the data-root and exit; words are check, repair, quick and json (\"repair,json\")"),
        )
        .arg(
            // Deprecated in dockerd and without effect there too.
            bool_arg("restart", "restart").hide(true),
        );
    for option in OPTIONS {
        if let Some(arg) = argument(option) {
            command = command.arg(arg);
        }
    }
    command
}

fn bool_arg(id: &'static str, flag: &'static str) -> Arg {
    Arg::new(id)
        .long(flag)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .action(ArgAction::Set)
        .overrides_with(id)
        .hide_possible_values(true)
        .value_parser(|text: &str| values::boolean(text).map(Value::Bool))
}

fn argument(option: &'static Opt) -> Option<Arg> {
    let base = Arg::new(option.key).long(option.flag());
    let arg = match option.shape {
        Shape::FileOnly => return None,
        Shape::Bool => bool_arg(option.key, option.flag()),
        Shape::Int => base
            .value_name("int")
            .allow_negative_numbers(true)
            .overrides_with(option.key)
            .value_parser(|text: &str| values::integer(text)),
        Shape::Text => base
            .value_name("string")
            .overrides_with(option.key)
            .value_parser(|text: &str| Ok::<_, String>(Value::from(text))),
        Shape::Bytes => base
            .value_name("bytes")
            .overrides_with(option.key)
            .value_parser(|text: &str| values::bytes(text).map(Value::from)),
        Shape::List => base
            .value_name("list")
            .action(ArgAction::Append)
            .value_parser(|text: &str| Ok::<_, String>(Value::from(text))),
        Shape::Map => base
            .value_name("map")
            .action(ArgAction::Append)
            .value_parser(|text: &str| values::pair(text)),
        Shape::Ulimits => base
            .value_name("ulimit")
            .action(ArgAction::Append)
            .value_parser(|text: &str| values::ulimit(text)),
        Shape::Pools => base
            .value_name("pool-options")
            .action(ArgAction::Append)
            .value_parser(|text: &str| values::pool(text)),
        Shape::Runtimes => base
            .value_name("runtime")
            .action(ArgAction::Append)
            .value_parser(|text: &str| values::runtime(text)),
        Shape::NetworkOptions => base
            .value_name("mapmap")
            .action(ArgAction::Append)
            .value_parser(|text: &str| values::network_option(text)),
    };
    let arg = match option.short {
        Some(short) => arg.short(short),
        None => arg,
    };
    Some(arg.help(option.help))
}

/// Reads the matches of [`command`].
pub(crate) fn read(matches: &ArgMatches) -> Flags {
    let text = |id: &str| matches.get_one::<String>(id).cloned();
    let mut flags = Flags {
        config_file: text("config-file"),
        plugin_dir: text("plugin-dir"),
        validate: matches.get_flag("validate"),
        fsck: matches.get_one("fsck").copied(),
        given: Map::new(),
    };
    for option in OPTIONS.iter().filter(|o| o.shape != Shape::FileOnly) {
        let Some(given) = matches.get_many::<Value>(option.key) else {
            continue;
        };
        let given: Vec<Value> = given.cloned().collect();
        flags
            .given
            .insert(option.key.into(), combine(option.shape, given));
    }
    flags
}

/// Joins the values of a repeated flag as the file would hold them.
fn combine(shape: Shape, given: Vec<Value>) -> Value {
    match shape {
        Shape::List | Shape::Pools => Value::Array(given),
        Shape::Map | Shape::Ulimits | Shape::Runtimes | Shape::NetworkOptions => {
            let mut all = Map::new();
            for value in given {
                merge(&mut all, value);
            }
            Value::Object(all)
        }
        _ => given.into_iter().next_back().unwrap_or(Value::Null),
    }
}

/// Adds an object's members; members that are objects in both are joined.
fn merge(into: &mut Map<String, Value>, value: Value) {
    let Value::Object(members) = value else {
        return;
    };
    for (key, value) in members {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(old)), new @ Value::Object(_)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(line: &str) -> Flags {
        read(&command().get_matches_from(line.split_whitespace()))
    }

    #[test]
    fn command_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_shape() {
        let flags = parse(
            "gantryd -H unix:///a -H fd:// -D --icc=false --live-restore --mtu 1400 --default-shm-size 64M \
             --default-ulimit nofile=1:2 --default-address-pool base=10.0.0.0/8,size=24 --add-runtime runc=/r \
             --default-network-opt bridge=a=b --default-network-opt bridge=c=d --log-opt max-size=1m \
             --config-file /dev/null --validate -l warn",
        );
        assert_eq!(
            Value::Object(flags.given),
            json!({
                "debug": true,
                "default-address-pools": [{"base": "10.0.0.0/8", "size": 24}],
                "default-network-opts": {"bridge": {"a": "b", "c": "d"}},
                "default-shm-size": 67_108_864u64,
                "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1, "Hard": 2}},
                "hosts": ["unix:///a", "fd://"],
                "icc": false,
                "live-restore": true,
                "log-level": "warn",
                "log-opts": {"max-size": "1m"},
                "mtu": 1400,
                "runtimes": {"runc": {"path": "/r"}},
            })
        );
        assert!(flags.validate);
        assert_eq!(flags.config_file.as_deref(), Some("/dev/null"));
    }
}
