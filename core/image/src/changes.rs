//! Dockerfile instructions that change a configuration, as `import --change` and `commit --change` take them.
//! Source: Dockerfile reference.

use gantry_model::container::{EmptyObject, HealthConfig};

use crate::config::ContainerDefaults;
use crate::{Error, Result};

/// The shell of instructions in shell form, where the image names none.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Applies instructions in order.
///
/// # Errors
/// [`Error::Invalid`] in Docker's words for instructions that are unknown, not allowed here, or malformed.
pub fn apply(config: &mut ContainerDefaults, changes: &[String]) -> Result<()> {
    let mut cmd_given = false;
    for line in changes
        .iter()
        .flat_map(|change| change.lines())
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let instruction = word.to_uppercase();
        one(config, &instruction, rest.trim())?;
        match instruction.as_str() {
            "CMD" => cmd_given = true,
            // The command was that of another entry point.
            "ENTRYPOINT" if !cmd_given => config.cmd = None,
            _ => {}
        }
    }
    Ok(())
}

fn one(config: &mut ContainerDefaults, instruction: &str, rest: &str) -> Result<()> {
    let empty = || Error::Invalid(format!("{instruction} requires at least one argument"));
    if rest.is_empty() {
        return Err(empty());
    }
    match instruction {
        "CMD" => config.cmd = Some(command(config, rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(config, rest)),
        "ENV" => {
            for (name, value) in pairs(rest, "ENV")? {
                set_env(&mut config.env, &name, &value);
            }
        }
        "LABEL" => config.labels.extend(pairs(rest, "LABEL")?),
        "EXPOSE" => {
            for port in words(rest)? {
                config.exposed_ports.extend(
                    expand_port(&port)?
                        .into_iter()
                        .map(|port| (port, EmptyObject {})),
                );
            }
        }
        "VOLUME" => {
            let paths = match json_list(rest) {
                Some(paths) => paths,
                None => words(rest)?,
            };
            if paths.iter().any(|path| path.trim().is_empty()) {
                return Err(Error::Invalid(
                    "VOLUME specified can not be an empty string".into(),
                ));
            }
            config
                .volumes
                .extend(paths.into_iter().map(|path| (path, EmptyObject {})));
        }
        "USER" => config.user = single(rest, "USER")?,
        "WORKDIR" => {
            let path = single(rest, "WORKDIR")?;
            config.working_dir = join(&config.working_dir, &path);
        }
        "STOPSIGNAL" => config.stop_signal = single(rest, "STOPSIGNAL")?,
        "ONBUILD" => config.on_build.push(rest.into()),
        "SHELL" => {
            config.shell = json_list(rest)
                .filter(|list| !list.is_empty())
                .ok_or_else(|| {
                    Error::Invalid("SHELL requires the arguments to be in JSON form".into())
                })?;
        }
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        other => {
            let other = other.to_lowercase();
            return Err(Error::Invalid(format!(
                "{other} is not a valid change command"
            )));
        }
    }
    Ok(())
}

/// JSON form, or the shell with the line.
fn command(config: &ContainerDefaults, rest: &str) -> Vec<String> {
    json_list(rest).unwrap_or_else(|| {
        let mut words: Vec<String> = if config.shell.is_empty() {
            DEFAULT_SHELL.map(str::to_owned).to_vec()
        } else {
            config.shell.clone()
        };
        words.push(rest.into());
        words
    })
}

fn json_list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[')
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

fn single(rest: &str, instruction: &str) -> Result<String> {
    match words(rest)?.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(Error::Invalid(format!(
            "{instruction} requires exactly one argument"
        ))),
    }
}

fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let text = format!("{name}={value}");
    let same = |have: &&mut String| have.split_once('=').is_some_and(|(have, _)| have == name);
    match env.iter_mut().find(same) {
        Some(have) => *have = text,
        None => env.push(text),
    }
}

/// `name=value ...`, or the old form `name value with spaces`.
fn pairs(rest: &str, instruction: &str) -> Result<Vec<(String, String)>> {
    let list = words(rest)?;
    let first = list.first().cloned().unwrap_or_default();
    if !first.contains('=') {
        let (name, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| Error::Invalid(format!("{instruction} must have two arguments")))?;
        return Ok(vec![(name.into(), value.trim().into())]);
    }
    list.into_iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(Error::Invalid(format!(
                "{instruction} names can not be blank"
            ))),
            Some((name, value)) => Ok((name.into(), value.into())),
            None => Err(Error::Invalid(format!(
                "Syntax error - can't find = in \"{word}\". Must be of the form: name=value"
            ))),
        })
        .collect()
}

/// Splits at blanks, with the shell's quotes and backslashes.
fn words(text: &str) -> Result<Vec<String>> {
    let mut list = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('\''), '\\') => word.get_or_insert_default().push('\\'),
            (_, '\\') => {
                let next = chars.next().unwrap_or('\\');
                let word = word.get_or_insert_default();
                if quote.is_some() && !matches!(next, '"' | '\\' | '$') {
                    word.push('\\');
                }
                word.push(next);
            }
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => list.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(Error::Invalid(format!(
            "unexpected end of statement while looking for matching quote: {text}"
        )));
    }
    list.extend(word);
    Ok(list)
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn expand_port(text: &str) -> Result<Vec<String>> {
    let bad = || Error::Invalid(format!("invalid containerPort: {text}"));
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Error::Invalid(format!("invalid proto: {protocol}")));
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let first: u16 = first.parse().map_err(|_| bad())?;
    let last: u16 = last.parse().map_err(|_| bad())?;
    if first > last {
        return Err(bad());
    }
    Ok((first..=last)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

/// An absolute path from the working directory and what was asked for.
fn join(base: &str, path: &str) -> String {
    let base = if path.starts_with('/') { "" } else { base };
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn healthcheck(rest: &str) -> Result<HealthConfig> {
    let mut check = HealthConfig::default();
    let mut rest = rest;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option
            .split_once(char::is_whitespace)
            .unwrap_or((option, ""));
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| Error::Invalid(format!("Missing a value on flag: {option}")))?;
        let nanoseconds = || {
            crate::filter::duration(value)
                .and_then(|time| i64::try_from(time.as_nanos()).ok())
                .ok_or_else(|| Error::Invalid(format!("invalid duration {value:?} for --{name}")))
        };
        match name {
            "interval" => check.interval = nanoseconds()?,
            "timeout" => check.timeout = nanoseconds()?,
            "start-period" => check.start_period = nanoseconds()?,
            "start-interval" => check.start_interval = nanoseconds()?,
            "retries" => {
                check.retries = value
                    .parse()
                    .map_err(|_| Error::Invalid(format!("invalid --retries {value:?}")))?;
            }
            other => return Err(Error::Invalid(format!("Unknown flag: {other}"))),
        }
        rest = after.trim_start();
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    check.test = match (kind.to_uppercase().as_str(), command.trim()) {
        ("NONE", "") => vec!["NONE".into()],
        ("CMD", command) if !command.is_empty() => match json_list(command) {
            Some(list) => ["CMD".to_owned()].into_iter().chain(list).collect(),
            None => vec!["CMD-SHELL".into(), command.into()],
        },
        ("CMD", _) => {
            return Err(Error::Invalid(
                "Missing command after HEALTHCHECK CMD".into(),
            ));
        }
        (other, _) => {
            return Err(Error::Invalid(format!(
                "Unknown type {other:?} in HEALTHCHECK (try CMD)"
            )));
        }
    };
    Ok(check)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(changes: &[&str]) -> Result<ContainerDefaults> {
        let mut config = ContainerDefaults::default();
        let changes: Vec<String> = changes.iter().map(|line| (*line).to_owned()).collect();
        apply(&mut config, &changes)?;
        Ok(config)
    }

    #[test]
    fn instructions() {
        let config = applied(&[
            "CMD [\"/bin/sh\", \"-l\"]",
            "entrypoint echo hi",
            "ENV A=1 B=\"two words\" A=3",
            "ENV C the rest of it",
            "LABEL x=y",
            "EXPOSE 80 8000-8002/udp",
            "VOLUME /a /b",
            "VOLUME [\"/c d\"]",
            "USER me:us",
            "WORKDIR /x",
            "WORKDIR ../y/z",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN true",
            "HEALTHCHECK --interval=1m30s --retries=3 CMD wget -q localhost",
            "# a comment",
        ])
        .unwrap();
        assert_eq!(config.cmd.unwrap(), ["/bin/sh", "-l"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "echo hi"]);
        assert_eq!(config.env, ["A=3", "B=two words", "C=the rest of it"]);
        assert_eq!(
            config.exposed_ports.keys().collect::<Vec<_>>(),
            ["80/tcp", "8000/udp", "8001/udp", "8002/udp"]
        );
        assert_eq!(
            config.volumes.keys().collect::<Vec<_>>(),
            ["/a", "/b", "/c d"]
        );
        assert_eq!(
            (config.user.as_str(), config.working_dir.as_str()),
            ("me:us", "/y/z")
        );
        let health = config.healthcheck.unwrap();
        assert_eq!(health.test, ["CMD-SHELL", "wget -q localhost"]);
        assert_eq!((health.interval, health.retries), (90_000_000_000, 3));
    }

    #[test]
    fn an_entry_point_takes_the_command_away() {
        let mut config = ContainerDefaults {
            cmd: Some(vec!["old".into()]),
            ..ContainerDefaults::default()
        };
        apply(
            &mut config,
            &["CMD [\"new\"]".into(), "ENTRYPOINT [\"e\"]".into()],
        )
        .unwrap();
        assert_eq!(config.cmd.as_deref(), Some(&["new".to_owned()][..]));
        apply(&mut config, &["ENTRYPOINT [\"f\"]".into()]).unwrap();
        assert_eq!(config.cmd, None);
    }

    #[test]
    fn refused() {
        for bad in [
            "RUN true",
            "FROM x",
            "NONSENSE x",
            "CMD",
            "ENV =x",
            "ENV A",
            "EXPOSE 80/xyz",
            "EXPOSE 90-80",
            "EXPOSE 99999",
            "USER a b",
            "SHELL sh",
            "HEALTHCHECK FOO x",
            "HEALTHCHECK --bad=1 NONE",
            "LABEL \"a=b",
        ] {
            assert!(matches!(applied(&[bad]), Err(Error::Invalid(_))), "{bad}");
        }
    }
}
