//! Small values of flags, checked as Docker's client checks them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Result, anyhow, bail};

use crate::error::path_error;

/// `name=value` of a `--filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) name: String,
    pub(crate) value: String,
}

pub(crate) fn parse_filter(text: &str) -> Result<Filter, String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("bad format of filter (expected name=value)")?;
    Ok(Filter {
        name: name.trim().to_lowercase(),
        value: value.trim().to_owned(),
    })
}

/// Filters in the API's form: for each name an object of its values. Empty without filters.
pub(crate) fn filters_json(filters: &[Filter]) -> String {
    if filters.is_empty() {
        return String::new();
    }
    let mut all: BTreeMap<&str, BTreeMap<&str, bool>> = BTreeMap::new();
    for Filter { name, value } in filters {
        all.entry(name).or_default().insert(value, true);
    }
    serde_json::json!(all).to_string()
}

pub(crate) fn parse_ip(text: &str) -> Result<String, String> {
    let ip: IpAddr = text
        .trim()
        .parse()
        .map_err(|_| format!("IP address is not correctly formatted: {text}"))?;
    Ok(ip.to_string())
}

pub(crate) fn parse_stream(text: &str) -> Result<String, String> {
    let stream = text.to_lowercase();
    match stream.as_str() {
        "stdin" | "stdout" | "stderr" => Ok(stream),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".into()),
    }
}

/// `host:ip`, `host=ip` or `host:host-gateway`, in the API's form with a colon.
pub(crate) fn parse_extra_host(text: &str) -> Result<String, String> {
    let bad = || format!("bad format for add-host: {text:?}");
    let (name, ip) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(bad)?;
    if name.is_empty() || name.contains(':') {
        return Err(bad());
    }
    if ip == "host-gateway" {
        return Ok(format!("{name}:{ip}"));
    }
    let bare = ip
        .strip_prefix('[')
        .and_then(|ip| ip.strip_suffix(']'))
        .unwrap_or(ip);
    let ip = parse_ip(bare).map_err(|_| format!("invalid IP address in add-host: {bare:?}"))?;
    Ok(format!("{name}:{ip}"))
}

pub(crate) fn parse_label(text: &str) -> Result<String, String> {
    match text.split('=').next() {
        Some("") | None => Err(format!("invalid label '{text}': empty name")),
        Some(_) => Ok(text.to_owned()),
    }
}

pub(crate) fn parse_sysctl(text: &str) -> Result<String, String> {
    const NAMES: &[&str] = &[
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let name = text.split_once('=').map(|(name, _)| name);
    match name {
        Some(name)
            if NAMES.contains(&name)
                || name.starts_with("net.")
                || name.starts_with("fs.mqueue.") =>
        {
            Ok(text.to_owned())
        }
        _ => Err(format!("sysctl '{text}' is not allowed")),
    }
}

/// A variable; one without a value takes it from our own environment, and is unset in the container without one.
pub(crate) fn parse_env(text: &str) -> Result<String, String> {
    if text.starts_with('=') || text.is_empty() {
        return Err(format!("invalid environment variable: {text}"));
    }
    Ok(with_own_value(text).unwrap_or_else(|| text.to_owned()))
}

fn with_own_value(text: &str) -> Option<String> {
    if text.contains('=') {
        return Some(text.to_owned());
    }
    Some(format!(
        "{text}={}",
        std::env::var_os(text)?.to_string_lossy()
    ))
}

/// Variables from files, then from flags, which win.
pub(crate) fn environment(files: &[String], flags: &[String]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for file in files {
        all.extend(key_value_file(Path::new(file), with_own_value)?);
    }
    all.extend_from_slice(flags);
    Ok(all)
}

/// Labels from files and flags.
pub(crate) fn labels(files: &[String], flags: &[String]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for file in files {
        all.extend(key_value_file(Path::new(file), |line| {
            Some(line.to_owned())
        })?);
    }
    all.extend_from_slice(flags);
    Ok(all)
}

/// A file of `NAME=VALUE` lines; `bare` decides about lines without a value.
fn key_value_file(path: &Path, bare: impl Fn(&str) -> Option<String>) -> Result<Vec<String>> {
    let bytes = std::fs::read(path).map_err(|error| path_error("open", path, &error))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        anyhow!(
            "env file {} contains invalid utf8 bytes at byte {}",
            path.display(),
            error.valid_up_to()
        )
    })?;
    let mut values = Vec::new();
    for line in text.trim_start_matches('\u{feff}').lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line
            .split_once('=')
            .map_or((line, None), |(name, value)| (name, Some(value)));
        let name = name.trim_start();
        if name.is_empty() {
            bail!(
                "invalid env file ({}): no variable name on line '{line}'",
                path.display()
            );
        }
        if name.contains(char::is_whitespace) {
            bail!(
                "invalid env file ({}): variable '{name}' contains whitespaces",
                path.display()
            );
        }
        match value {
            Some(value) => values.push(format!("{name}={value}")),
            None => values.extend(bare(name)),
        }
    }
    Ok(values)
}

/// Splits `key=value` items; later ones win.
pub(crate) fn key_values(items: &[String]) -> BTreeMap<String, String> {
    items
        .iter()
        .map(|item| item.split_once('=').unwrap_or((item, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// A list as the API takes it: none rather than an empty one.
pub(crate) fn list<T: Clone>(items: &[T]) -> Option<Vec<T>> {
    (!items.is_empty()).then(|| items.to_vec())
}

/// The fields of one line of comma-separated values, with double quotes round those that contain commas.
pub(crate) fn csv(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        let mut field = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next() {
                    Some('"') if chars.next_if_eq(&'"').is_some() => field.push('"'),
                    Some('"') => break,
                    Some(c) => field.push(c),
                    None => {
                        return Err(
                            "parse error on line 1: extraneous or missing \" in quoted-field"
                                .into(),
                        );
                    }
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                if c == '"' {
                    return Err("parse error on line 1: bare \" in non-quoted-field".into());
                }
                field.push(c);
            }
        }
        fields.push(field);
        match chars.next() {
            None => return Ok(fields),
            Some(',') => {}
            Some(_) => {
                return Err(
                    "parse error on line 1: extraneous or missing \" in quoted-field".into(),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_hosts_take_the_apis_form() {
        for (text, form) in [
            ("a:1.2.3.4", "a:1.2.3.4"),
            ("a=::1", "a:::1"),
            ("a=[::1]", "a:::1"),
            ("a:host-gateway", "a:host-gateway"),
            ("a:::1", "a:::1"),
        ] {
            assert_eq!(parse_extra_host(text).as_deref(), Ok(form), "{text}");
        }
        assert_eq!(
            parse_extra_host("a"),
            Err("bad format for add-host: \"a\"".into())
        );
        assert_eq!(
            parse_extra_host("a:x"),
            Err("invalid IP address in add-host: \"x\"".into())
        );
    }

    #[test]
    fn environment_files_are_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            &file,
            "# note\nA=1\n  B = x\nPATH\nNOT_SET_ANYWHERE_42\nC=\n",
        )
        .unwrap();
        let path = file.path().display().to_string();
        let error = environment(std::slice::from_ref(&path), &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("variable 'B ' contains whitespaces"),
            "{error}"
        );
        std::fs::write(&file, "# note\nA=1\nPATH\nNOT_SET_ANYWHERE_42\nC=\n").unwrap();
        let values = environment(&[path], &["A=2".into()]).unwrap();
        assert_eq!(values[0], "A=1");
        assert!(values[1].starts_with("PATH=/"), "{values:?}");
        assert_eq!(values[2..], ["C=", "A=2"]);
        let error = environment(&["/no/such".into()], &[])
            .unwrap_err()
            .to_string();
        assert_eq!(error, "open /no/such: no such file or directory");
    }

    #[test]
    fn quoted_fields_may_hold_commas() {
        assert_eq!(
            csv(r#"type=bind,"volume-opt=o=a,b",x"#).unwrap(),
            ["type=bind", "volume-opt=o=a,b", "x"]
        );
        assert_eq!(csv(r#""a""b""#).unwrap(), ["a\"b"]);
        assert!(csv("\"a").is_err());
        assert!(csv("a\"b").is_err());
        assert_eq!(csv("").unwrap(), [""]);
    }

    #[test]
    fn filters_of_one_name_are_collected() {
        let filters: Vec<_> = ["label=a=b", "label=c", "Status = exited"]
            .iter()
            .map(|f| parse_filter(f).unwrap())
            .collect();
        assert_eq!(
            filters_json(&filters),
            r#"{"label":{"a=b":true,"c":true},"status":{"exited":true}}"#
        );
        assert_eq!(filters_json(&[]), "");
    }
}
