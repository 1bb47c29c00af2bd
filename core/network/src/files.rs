//! The files that a container finds at `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname`.
//!
//! They are bind-mounted into running containers, so they are always written in place, never replaced. A container may
//! have edited its `hosts`: lines are added and removed one by one.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{NetworkError, Result, SandboxFiles};

const LOCAL_NAMES: &str = "127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
";

fn failed(path: &Path) -> impl Fn(io::Error) -> NetworkError {
    move |e| NetworkError::io(format_args!("writing {}", path.display()), &e)
}

/// A line of `hosts`: an address and its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostLine {
    pub(crate) address: IpAddr,
    pub(crate) names: String,
}

impl HostLine {
    fn text(&self) -> String {
        format!("{}\t{}\n", self.address, self.names)
    }
}

/// Writes `hosts` anew: local names (or, on the host's network, the host's file) and further lines.
pub(crate) fn write_hosts(
    files: &SandboxFiles,
    host: Option<&Path>,
    lines: &[HostLine],
) -> Result<()> {
    let mut text = match host {
        Some(path) => fs::read_to_string(path).unwrap_or_else(|_| LOCAL_NAMES.to_owned()),
        None => LOCAL_NAMES.to_owned(),
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.extend(lines.iter().map(HostLine::text));
    fs::write(&files.hosts, text).map_err(failed(&files.hosts))
}

/// Adds lines at the end.
pub(crate) fn add_hosts(files: &SandboxFiles, lines: &[HostLine]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let text: String = lines.iter().map(HostLine::text).collect();
    let append = || {
        let mut file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&files.hosts)?;
        file.write_all(text.as_bytes())
    };
    append().map_err(failed(&files.hosts))
}

/// Removes exactly these lines.
pub(crate) fn remove_hosts(files: &SandboxFiles, lines: &[HostLine]) -> Result<()> {
    let before = match fs::read_to_string(&files.hosts) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(&files.hosts)(e)),
    };
    let unwanted: Vec<String> = lines.iter().map(HostLine::text).collect();
    let kept: String = before
        .split_inclusive('\n')
        .filter(|line| !unwanted.iter().any(|text| text == line))
        .collect();
    if kept == before {
        return Ok(());
    }
    fs::write(&files.hosts, kept).map_err(failed(&files.hosts))
}

/// Writes `hostname`.
pub(crate) fn write_hostname(files: &SandboxFiles, hostname: &str) -> Result<()> {
    fs::write(&files.hostname, format!("{hostname}\n")).map_err(failed(&files.hostname))
}

/// Writes `resolv.conf`, unless it is no longer what `before` was.
pub(crate) fn write_resolv(files: &SandboxFiles, text: &str, before: Option<&str>) -> Result<()> {
    if let Some(before) = before
        && fs::read_to_string(&files.resolv_conf).is_ok_and(|now| now != before)
    {
        return Ok(());
    }
    fs::write(&files.resolv_conf, text).map_err(failed(&files.resolv_conf))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_hosts_come_and_go_around_the_users() {
        let dir = tempfile::tempdir().unwrap();
        let files = SandboxFiles::of(dir.path());
        let line = |ip: &str, names: &str| HostLine {
            address: ip.parse().unwrap(),
            names: names.into(),
        };
        write_hosts(&files, None, &[line("10.0.0.9", "extra")]).unwrap();
        add_hosts(&files, &[line("10.0.0.2", "web")]).unwrap();
        let mut text = fs::read_to_string(&files.hosts).unwrap();
        assert!(text.ends_with("10.0.0.9\textra\n10.0.0.2\tweb\n"), "{text}");
        text.push_str("10.0.0.2\tmine\n");
        fs::write(&files.hosts, &text).unwrap();
        remove_hosts(&files, &[line("10.0.0.2", "web")]).unwrap();
        let text = fs::read_to_string(&files.hosts).unwrap();
        assert!(
            text.ends_with("10.0.0.9\textra\n10.0.0.2\tmine\n"),
            "{text}"
        );
    }

    #[test]
    fn an_edited_resolv_conf_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let files = SandboxFiles::of(dir.path());
        write_resolv(&files, "one\n", None).unwrap();
        write_resolv(&files, "two\n", Some("one\n")).unwrap();
        assert_eq!(fs::read_to_string(&files.resolv_conf).unwrap(), "two\n");
        fs::write(&files.resolv_conf, "edited\n").unwrap();
        write_resolv(&files, "three\n", Some("two\n")).unwrap();
        assert_eq!(fs::read_to_string(&files.resolv_conf).unwrap(), "edited\n");
    }
}
