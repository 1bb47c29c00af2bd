//! The files that a container finds at `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname`.
//!
//! They are bind-mounted into running containers, so they are always written in place, never replaced. A container may
//! have edited its `hosts`: lines are added and removed one by one. A `resolv.conf` that it edited is its own.

use std::fs;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
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

/// Files longer than this are the container's own affair.
const LONGEST: u64 = 1024 * 1024;

/// What a file has by now; none of one that is longer than any of the engine's.
fn read(file: &fs::File) -> io::Result<Option<Vec<u8>>> {
    let mut now = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut now)?;
    Ok(Some(now).filter(|now| now.len() as u64 <= LONGEST))
}

/// Opens a file that is in use; none: it is gone.
fn open(path: &Path) -> io::Result<Option<fs::File>> {
    match fs::OpenOptions::new().read(true).write(true).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        file => Ok(Some(file?)),
    }
}

/// Gives a file that is in use, and had `before` bytes, another text, in one write: readers, and whoever comes after a crash,
/// find the text of before or the new one, perhaps with empty lines after it. Who is handed the file's pages themselves
/// (sendfile) sees them change.
fn overwrite(file: &fs::File, text: &[u8], before: usize) -> io::Result<()> {
    let mut bytes = text.to_vec();
    bytes.resize(text.len().max(before), b'\n');
    file.write_all_at(&bytes, 0)?;
    // It may have grown meanwhile.
    file.set_len(text.len() as u64)
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
    let unwanted: Vec<String> = lines.iter().map(HostLine::text).collect();
    let remove = || {
        let Some(file) = open(&files.hosts)? else {
            return Ok(());
        };
        let Some(before) = read(&file)? else {
            return Ok(());
        };
        let lines = before.split_inclusive(|byte| *byte == b'\n');
        let kept = lines.filter(|line| !unwanted.iter().any(|text| text.as_bytes() == *line));
        let kept = kept.collect::<Vec<_>>().concat();
        match kept == before {
            true => Ok(()),
            false => overwrite(&file, &kept, before.len()),
        }
    };
    remove().map_err(failed(&files.hosts))
}

/// Writes `hostname`.
pub(crate) fn write_hostname(files: &SandboxFiles, hostname: &str) -> Result<()> {
    fs::write(&files.hostname, format!("{hostname}\n")).map_err(failed(&files.hostname))
}

/// Writes `resolv.conf` of a sandbox that nobody is in yet.
pub(crate) fn write_resolv(files: &SandboxFiles, text: &str) -> Result<()> {
    fs::write(&files.resolv_conf, text).map_err(failed(&files.resolv_conf))
}

/// Writes `resolv.conf` of a running container, unless it is none of `ours` any more.
pub(crate) fn rewrite_resolv(files: &SandboxFiles, text: &str, ours: &[&str]) -> Result<()> {
    let path = &files.resolv_conf;
    let rewrite = || {
        let Some(file) = open(path)? else {
            return fs::write(path, text);
        };
        let Some(now) = read(&file)? else {
            return Ok(());
        };
        let kept = now.trim_ascii_end();
        match ours.iter().any(|text| text.trim_end().as_bytes() == kept) {
            true => overwrite(&file, text.as_bytes(), now.len()),
            false => Ok(()),
        }
    };
    rewrite().map_err(failed(path))
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
        // Bytes that are no text stay; a file that only a mischief-maker has is left alone.
        fs::write(&files.hosts, b"\xff\n10.0.0.2\tweb\n\xfe").unwrap();
        remove_hosts(&files, &[line("10.0.0.2", "web")]).unwrap();
        assert_eq!(fs::read(&files.hosts).unwrap(), b"\xff\n\xfe");
        let file = fs::File::create(&files.hosts).unwrap();
        file.set_len(1 << 40).unwrap();
        remove_hosts(&files, &[line("10.0.0.2", "web")]).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1 << 40);
    }

    #[test]
    fn an_edited_resolv_conf_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let files = SandboxFiles::of(dir.path());
        let text = || fs::read(&files.resolv_conf).unwrap();
        write_resolv(&files, "one\n").unwrap();
        rewrite_resolv(&files, "two\n", &["zero\n", "one\n"]).unwrap();
        assert_eq!(text(), b"two\n");
        for edited in [&b"edited\n"[..], b"two\nthree\n", b"\xff\n", b""] {
            fs::write(&files.resolv_conf, edited).unwrap();
            rewrite_resolv(&files, "four\n", &["two\n"]).unwrap();
            assert_eq!(text(), edited);
        }
        // Padded with what is trimmed, and longer than memory.
        let mut padded = b"two\n".to_vec();
        padded.resize(LONGEST as usize, b'\n');
        fs::write(&files.resolv_conf, &padded).unwrap();
        let file = fs::OpenOptions::new()
            .write(true)
            .open(&files.resolv_conf)
            .unwrap();
        file.set_len(1 << 40).unwrap();
        rewrite_resolv(&files, "four\n", &["two\n"]).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1 << 40);
        file.set_len(LONGEST).unwrap();
        rewrite_resolv(&files, "four\n", &["two\n"]).unwrap();
        assert_eq!(text(), b"four\n");
    }

    #[test]
    fn a_file_in_use_is_never_half_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let files = SandboxFiles::of(dir.path());
        let (long, short) = ("nameserver 192.0.2.1\n".repeat(9), "nameserver ::1\n");
        write_resolv(&files, &long).unwrap();
        let written = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2000 {
                    rewrite_resolv(&files, short, &[&long]).unwrap();
                    rewrite_resolv(&files, &long, &[short]).unwrap();
                }
                written.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            while !written.load(std::sync::atomic::Ordering::Relaxed) {
                let read = fs::read(&files.resolv_conf).unwrap();
                assert!(read.len() >= short.len(), "{read:?}");
            }
        });
        assert_eq!(fs::read_to_string(&files.resolv_conf).unwrap(), long);
        // A crash before the end was cut off: it is known again.
        fs::write(&files.resolv_conf, format!("{short}\n\n\n")).unwrap();
        rewrite_resolv(&files, &long, &[short]).unwrap();
        assert_eq!(fs::read_to_string(&files.resolv_conf).unwrap(), long);
    }
}
