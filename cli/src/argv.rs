//! Docker's ways with a command line, on top of clap.
//!
//! Go's flag parser takes `--flag=false` for switches, lets later values of a flag win, accepts values that begin with
//! a dash, and words its errors in its own way; scripts depend on all of it.

use std::error::Error as _;

use anyhow::Result;
use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::error::Exit;
use crate::format::units::parse_bool;

/// How a command is called, for help and errors.
pub(crate) struct Usage<'a> {
    /// `docker container ls`.
    pub(crate) path: String,
    /// What follows the path: `[OPTIONS] CONTAINER`.
    pub(crate) arguments: String,
    pub(crate) about: &'a str,
    /// All the command's names, if it has several.
    pub(crate) aliases: Vec<String>,
    /// Text before the options: the commands that there are.
    pub(crate) commands: String,
    pub(crate) options_heading: &'a str,
    /// Text after the options.
    pub(crate) after: String,
}

/// Parses `args` for `command` as Docker's client would.
pub(crate) fn parse(command: Command, usage: &Usage<'_>, args: &[String]) -> Result<ArgMatches> {
    let command = adapt(command);
    let arity = Arity::of(&command);
    let mut command = command;
    command
        .try_get_matches_from_mut(args)
        .map_err(|error| explain(&error, &command, usage, arity, args))
}

fn adapt(command: Command) -> Command {
    let has_h = command
        .get_arguments()
        .any(|arg| arg.get_short() == Some('h'));
    let help = Arg::new("help")
        .long("help")
        .action(ArgAction::Help)
        .hide(true);
    let help = if has_h { help } else { help.short('h') };
    command
        .mut_args(adapt_flag)
        .arg(help)
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true)
}

fn adapt_flag(arg: Arg) -> Arg {
    if arg.is_positional() {
        return arg;
    }
    let is_bool = arg.get_value_parser().type_id() == std::any::TypeId::of::<bool>();
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    if !is_bool && !is_switch {
        return if matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) {
            arg.allow_hyphen_values(true)
        } else {
            arg
        };
    }
    let arg = arg
        .action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_parser(ValueParser::from(
            parse_bool as fn(&str) -> Result<bool, String>,
        ));
    if is_switch {
        arg.default_value("false")
    } else {
        arg
    }
}

/// How many arguments a command takes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Arity {
    min: usize,
    max: usize,
}

impl Arity {
    fn of(command: &Command) -> Self {
        let mut arity = Self { min: 0, max: 0 };
        for arg in command.get_positionals() {
            let many = matches!(arg.get_action(), ArgAction::Append);
            let least = arg
                .get_num_args()
                .map_or(1, |range| range.min_values().max(1));
            if arg.is_required_set() {
                arity.min += least;
            }
            arity.max = if many {
                usize::MAX
            } else {
                arity.max.saturating_add(1)
            };
        }
        arity
    }

    /// Docker's sentence, and the word with which its pointer to the help begins.
    fn sentence(self) -> (String, &'static str) {
        let counted =
            |count: usize| format!("{count} argument{}", if count == 1 { "" } else { "s" });
        match self {
            Self { max: 0, .. } => ("accepts no arguments".into(), "Run"),
            Self { min, max } if min == max => (format!("requires {}", counted(min)), "Run"),
            Self {
                min,
                max: usize::MAX,
            } => (format!("requires at least {}", counted(min)), "See"),
            Self { min: 0, max } => (format!("requires at most {}", counted(max)), "See"),
            Self { min, max } => (
                format!("requires at least {min} and at most {}", counted(max)),
                "See",
            ),
        }
    }
}

fn explain(
    error: &clap::Error,
    command: &Command,
    usage: &Usage<'_>,
    arity: Arity,
    args: &[String],
) -> anyhow::Error {
    if error.kind() == ErrorKind::DisplayHelp {
        return match crate::format::put(&crate::help::render(command, usage)) {
            Ok(()) => Exit::silent(0),
            Err(error) => error,
        };
    }
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let argument = context(ContextKind::InvalidArg);
    let message = match error.kind() {
        ErrorKind::UnknownArgument if argument.starts_with("--") => {
            format!("unknown flag: {argument}")
        }
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            let letter = argument.chars().nth(1).unwrap_or('-');
            format!("unknown shorthand flag: '{letter}' in {argument}")
        }
        ErrorKind::InvalidValue | ErrorKind::NoEquals => missing_value(args),
        ErrorKind::ValueValidation => {
            let value = context(ContextKind::InvalidValue);
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            format!(
                "invalid argument {value:?} for {:?} flag: {}",
                flag_name(command, argument),
                go_words(&cause, value)
            )
        }
        ErrorKind::UnknownArgument
        | ErrorKind::MissingRequiredArgument
        | ErrorKind::TooFewValues
        | ErrorKind::TooManyValues
        | ErrorKind::WrongNumberOfValues => return wrong_count(usage, arity),
        _ => error.to_string(),
    };
    let Usage {
        path, arguments, ..
    } = usage;
    Exit::with(
        125,
        format!(
            "{message}\n\nUsage:  {path} {arguments}\n\nRun '{path} --help' for more information"
        ),
    )
}

fn wrong_count(usage: &Usage<'_>, arity: Arity) -> anyhow::Error {
    let Usage {
        path, arguments, ..
    } = usage;
    let program = path.split(' ').next().unwrap_or_default();
    let (sentence, word) = arity.sentence();
    Exit::with(
        1,
        format!(
            "{program}: '{path}' {sentence}\n\nUsage:  {path} {arguments}\n\n{word} '{path} --help' for more information"
        ),
    )
}

/// The flag at the end of the line is the one that lacks its value.
fn missing_value(args: &[String]) -> String {
    match args.last() {
        Some(flag) if flag.starts_with("--") => format!("flag needs an argument: {flag}"),
        Some(flag) => {
            let letter = flag.chars().last().unwrap_or('-');
            format!("flag needs an argument: '{letter}' in {flag}")
        }
        None => "flag needs an argument".into(),
    }
}

/// `-m, --memory` from clap's `--memory <bytes>`.
fn flag_name(command: &Command, argument: &str) -> String {
    let long = argument.split([' ', '=', '[']).next().unwrap_or(argument);
    let flag = command
        .get_arguments()
        .find(|arg| arg.get_long() == long.strip_prefix("--"));
    match flag.and_then(Arg::get_short) {
        Some(short) => format!("-{short}, {long}"),
        None => long.to_owned(),
    }
}

/// Numbers that do not parse are told of in Go's words.
fn go_words(cause: &str, value: &str) -> String {
    if cause.contains("invalid digit") || cause.contains("cannot parse integer") {
        return format!("strconv.ParseInt: parsing {value:?}: invalid syntax");
    }
    if cause.contains("too large") || cause.contains("too small") || cause.contains("is not in") {
        return format!("strconv.ParseInt: parsing {value:?}: value out of range");
    }
    cause.to_owned()
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    #[derive(Args, Debug)]
    struct Sample {
        #[arg(long, short)]
        interactive: bool,
        #[arg(long, short)]
        tty: bool,
        #[arg(long, default_value = "true", action = ArgAction::Set)]
        sig_proxy: bool,
        #[arg(long)]
        init: Option<bool>,
        #[arg(long, short)]
        memory: Option<i64>,
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    }

    fn sample(line: &str) -> Result<Sample> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let usage = Usage {
            path: "docker x".into(),
            arguments: "[OPTIONS] IMAGE".into(),
            about: "",
            aliases: vec![],
            commands: String::new(),
            options_heading: "Options",
            after: String::new(),
        };
        let mut matches = parse(Sample::augment_args(Command::new("x")), &usage, &args)?;
        Ok(Sample::from_arg_matches_mut(&mut matches)?)
    }

    #[test]
    fn switches_take_values_and_flags_end_at_the_image() {
        let all = sample("-it --sig-proxy=false --init image -i --rm -- x").unwrap();
        assert!(all.interactive && all.tty && !all.sig_proxy && all.init == Some(true));
        assert_eq!(all.command, ["image", "-i", "--rm", "--", "x"]);
        let none = sample("--tty=true --tty=0 image").unwrap();
        assert!(!none.tty && none.sig_proxy && none.init.is_none());
        assert_eq!(sample("--init=false image").unwrap().init, Some(false));
    }

    #[test]
    fn later_values_win_and_may_be_negative() {
        assert_eq!(sample("-m 1 --memory -1 x").unwrap().memory, Some(-1));
        assert_eq!(sample("-- x -- y").unwrap().command, ["x", "--", "y"]);
    }

    #[test]
    fn errors_read_like_dockers() {
        for (line, start, code) in [
            (
                "--foo x",
                "unknown flag: --foo\n\nUsage:  docker x [OPTIONS] IMAGE\n\nRun 'docker x --help'",
                125,
            ),
            ("-Z x", "unknown shorthand flag: 'Z' in -Z\n", 125),
            ("-m", "flag needs an argument: 'm' in -m\n", 125),
            ("--memory", "flag needs an argument: --memory\n", 125),
            (
                "-m y x",
                "invalid argument \"y\" for \"-m, --memory\" flag: strconv.ParseInt: parsing \"y\": invalid syntax\n",
                125,
            ),
            (
                "--tty=x y",
                "invalid argument \"x\" for \"-t, --tty\" flag: strconv.ParseBool: parsing \"x\": invalid syntax\n",
                125,
            ),
            (
                "",
                "docker: 'docker x' requires at least 1 argument\n\nUsage:  docker x [OPTIONS] IMAGE\n\nSee",
                1,
            ),
        ] {
            let error = sample(line).unwrap_err();
            let exit: &Exit = error.downcast_ref().unwrap();
            assert!(exit.message.starts_with(start), "{line}: {}", exit.message);
            assert_eq!(exit.code, code, "{line}");
        }
    }
}
