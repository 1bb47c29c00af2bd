//! The container's log: Docker's json-file, cut into lines as its copier cuts them, rotated by size.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use gantry_monitor::plan::LogConfig;
use gantry_monitor::protocol::Stage;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::fault::{At, Step};
use crate::monitor::json;

/// A longer line is cut into entries of this size; all but the last have no newline.
const MAX_LINE: usize = 16 << 10;

/// So much is encoded before it is written, at most.
const BATCH: usize = 256 << 10;

/// The log of one container. Errors of the disk never stop the container: what cannot be written is dropped and counted.
#[derive(Debug)]
pub(crate) struct Log {
    file: Option<File>,
    streams: [Stream; 2],
    out: Vec<u8>,
    /// The last time that was encoded: the entries of a chunk share theirs.
    stamp: (i64, Vec<u8>),
    /// Chunks that were lost.
    pub(crate) errors: u64,
}

#[derive(Debug)]
struct File {
    config: LogConfig,
    fd: OwnedFd,
    size: u64,
    rotations: u32,
}

/// The unfinished line of one stream, and the time of its first part if parts of it were written.
#[derive(Debug, Default)]
struct Stream {
    line: Vec<u8>,
    since: Option<i64>,
}

impl Log {
    /// Opens the log, or none.
    pub(crate) fn open(config: Option<&LogConfig>) -> Step<Self> {
        let file = match config {
            None => None,
            Some(config) => {
                let (fd, size) = open(&config.path, false).at(Stage::Monitor, || {
                    format!("open log {}", config.path.display())
                })?;
                Some(File {
                    config: config.clone(),
                    fd,
                    size,
                    rotations: 0,
                })
            }
        };
        Ok(Self {
            file,
            streams: Default::default(),
            out: Vec::new(),
            stamp: (0, Vec::new()),
            errors: 0,
        })
    }

    /// Rotations so far, and the size of the file.
    pub(crate) fn position(&self) -> (u32, u64) {
        self.file.as_ref().map_or((0, 0), |f| (f.rotations, f.size))
    }

    /// What of a stream (0 or 1) is not in the log yet.
    pub(crate) fn unfinished(&self, stream: usize) -> &[u8] {
        &self.streams[stream].line
    }

    /// Opens the file anew.
    pub(crate) fn reopen(&mut self) -> Result<(), Errno> {
        if let Some(file) = &mut self.file {
            (file.fd, file.size) = open(&file.config.path, false)?;
        }
        Ok(())
    }

    /// Takes a chunk of a stream (0 or 1) that came at `now`.
    pub(crate) fn write(&mut self, stream: usize, chunk: &[u8], now: i64) {
        if self.file.is_none() {
            return;
        }
        let mut rest = chunk;
        let mut lost = false;
        while !rest.is_empty() {
            let room = MAX_LINE - self.streams[stream].line.len();
            let window = &rest[..rest.len().min(room)];
            let end = memchr::memchr(b'\n', window);
            let take = end.unwrap_or(window.len());
            let complete = end.is_some();
            if !complete && take < room {
                self.streams[stream].line.extend_from_slice(window);
                break;
            }
            lost |= self.entry(stream, &rest[..take], complete, now).is_err();
            rest = &rest[take + usize::from(complete)..];
        }
        self.count(lost);
    }

    /// Writes what is unfinished: the container ended.
    pub(crate) fn finish(&mut self, now: i64) {
        let mut lost = false;
        for stream in 0..2 {
            if !self.streams[stream].line.is_empty() {
                lost |= self.entry(stream, &[], false, now).is_err();
            }
        }
        self.count(lost);
    }

    fn count(&mut self, lost: bool) {
        if self.flush().is_err() || lost {
            self.errors += 1;
            if self.errors == 1 {
                eprintln!("gantry-monitor: cannot write container log, output is lost");
            }
        }
        // The memory of a burst is given back.
        if self.out.capacity() > MAX_LINE {
            self.out = Vec::new();
        }
    }

    /// Encodes one entry: what is unfinished of the stream and `tail`, with a newline when it is a line's end.
    fn entry(&mut self, stream: usize, tail: &[u8], complete: bool, now: i64) -> Result<(), Errno> {
        let mut result = Ok(());
        let full = |f: &File, out: &[u8]| {
            f.config.max_size > 0 && f.size + out.len() as u64 >= f.config.max_size
        };
        if self.file.as_ref().is_some_and(|f| full(f, &self.out)) {
            result = self.flush();
            if let Some(file) = &mut self.file {
                result = result.and(file.rotate());
            }
        }
        let state = &mut self.streams[stream];
        let time = state.since.unwrap_or(now);
        state.since = (!complete).then_some(time);
        let out = &mut self.out;
        out.extend_from_slice(br#"{"log":""#);
        if state.line.is_empty() {
            json::escape(out, tail);
        } else {
            state.line.extend_from_slice(tail);
            json::escape(out, &state.line);
            state.line.clear();
        }
        if complete {
            out.extend_from_slice(br"\n");
        }
        out.extend_from_slice(br#"","stream":""#);
        out.extend_from_slice(if stream == 0 { b"stdout" } else { b"stderr" });
        out.push(b'"');
        if let Some(file) = self.file.as_ref().filter(|f| !f.config.attrs.is_empty()) {
            out.extend_from_slice(br#","attrs":"#);
            out.extend_from_slice(file.config.attrs.as_bytes());
        }
        out.extend_from_slice(br#","time":""#);
        let (of, text) = &mut self.stamp;
        if *of != time || text.is_empty() {
            *of = time;
            text.clear();
            json::rfc3339(text, time);
        }
        out.extend_from_slice(text);
        out.extend_from_slice(b"\"}\n");
        if self.out.len() >= BATCH {
            result = result.and(self.flush());
        }
        result
    }

    fn flush(&mut self) -> Result<(), Errno> {
        let mut rest = self.out.as_slice();
        let mut result = Ok(());
        while let (Some(file), false) = (&mut self.file, rest.is_empty()) {
            match rustix::io::retry_on_intr(|| rustix::io::write(&file.fd, rest)) {
                Ok(n) => {
                    file.size += n as u64;
                    rest = &rest[n..];
                }
                Err(errno) => {
                    result = Err(errno);
                    break;
                }
            }
        }
        self.out.clear();
        result
    }
}

impl File {
    /// Shifts the files by one and begins a new one; with a single file, begins it anew.
    fn rotate(&mut self) -> Result<(), Errno> {
        let path = &self.config.path;
        for n in (1..self.config.max_files).rev() {
            for suffix in ["", ".gz"] {
                let from = if n == 1 && suffix.is_empty() {
                    path.clone()
                } else if n == 1 {
                    continue;
                } else {
                    numbered(path, n - 1, suffix)
                };
                let to = numbered(path, n, suffix);
                match rustix::fs::rename(&from, &to) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        (self.fd, self.size) = open(path, true)?;
        self.rotations += 1;
        Ok(())
    }
}

fn numbered(path: &Path, n: u32, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{n}{suffix}"));
    PathBuf::from(name)
}

fn open(path: &Path, truncate: bool) -> Result<(OwnedFd, u64), Errno> {
    let mut flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
    if truncate {
        flags |= OFlags::TRUNC;
    }
    let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))?;
    let size = rustix::fs::fstat(&fd)?.st_size as u64;
    Ok((fd, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(config: &LogConfig, chunks: &[(usize, &[u8])]) -> Log {
        let mut log = Log::open(Some(config)).unwrap();
        for (n, (stream, chunk)) in chunks.iter().enumerate() {
            log.write(*stream, chunk, n as i64);
        }
        log.finish(99);
        log
    }

    fn config(dir: &tempfile::TempDir) -> LogConfig {
        LogConfig {
            path: dir.path().join("x-json.log"),
            ..LogConfig::default()
        }
    }

    fn stamp(n: u32) -> String {
        format!("\"time\":\"1970-01-01T00:00:00.00000000{n}Z\"}}\n")
    }

    #[test]
    fn lines_are_put_together_per_stream() {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config(&dir);
        c.attrs = r#"{"tag":"t"}"#.into();
        log(
            &c,
            &[(0, b"a\nb"), (1, b"err"), (0, b"c\n\n"), (1, b"or\nend")],
        );
        let text = std::fs::read_to_string(&c.path).unwrap();
        let attrs = r#","attrs":{"tag":"t"},"#;
        let want = [
            format!(r#"{{"log":"a\n","stream":"stdout"{attrs}"time":"1970-01-01T00:00:00Z"}}"#)
                + "\n",
            format!(r#"{{"log":"bc\n","stream":"stdout"{attrs}"#) + &stamp(2),
            format!(r#"{{"log":"\n","stream":"stdout"{attrs}"#) + &stamp(2),
            format!(r#"{{"log":"error\n","stream":"stderr"{attrs}"#) + &stamp(3),
            format!(
                r#"{{"log":"end","stream":"stderr"{attrs}"time":"1970-01-01T00:00:00.000000099Z"}}"#
            ) + "\n",
        ];
        assert_eq!(text, want.concat());
    }

    #[test]
    fn long_lines_are_cut_where_docker_cuts_them() {
        for step in [1000, 16_384, 50_000] {
            let dir = tempfile::tempdir().unwrap();
            let c = config(&dir);
            let mut data = vec![b'x'; 40_000];
            data.extend_from_slice(b"\n");
            data.extend(std::iter::repeat_n(b'y', MAX_LINE));
            data.extend_from_slice(b"\nz\n");
            let chunks: Vec<(usize, &[u8])> = data.chunks(step).map(|c| (0, c)).collect();
            log(&c, &chunks);
            let text = std::fs::read_to_string(&c.path).unwrap();
            let lens: Vec<(usize, bool)> = text
                .lines()
                .map(|l| {
                    let body = l
                        .split(r#"","stream""#)
                        .next()
                        .unwrap()
                        .strip_prefix(r#"{"log":""#)
                        .unwrap();
                    (body.trim_end_matches(r"\n").len(), body.ends_with(r"\n"))
                })
                .collect();
            let want = [
                (16_384, false),
                (16_384, false),
                (7232, true),
                (16_384, false),
                (0, true),
                (1, true),
            ];
            assert_eq!(lens, want, "in chunks of {step}");
        }
    }

    #[test]
    fn files_rotate_by_size_and_errors_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config(&dir);
        (c.max_size, c.max_files) = (130, 3);
        let mut l = log(&c, &[(0, b"1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n")]);
        let at = |n: u32| std::fs::read_to_string(numbered(&c.path, n, "")).unwrap();
        assert!(
            std::fs::read_to_string(&c.path)
                .unwrap()
                .contains(r#""log":"10\n""#)
        );
        assert!(at(1).contains(r#""log":"7\n""#) && at(2).contains(r#""log":"4\n""#));
        assert!(!numbered(&c.path, 3, "").exists());
        assert_eq!(l.position().0, 3);
        let full = rustix::fs::open("/dev/full", OFlags::WRONLY, Mode::empty()).unwrap();
        l.file.as_mut().unwrap().fd = full;
        l.file.as_mut().unwrap().config.max_size = 0;
        l.write(0, b"x\ny\n", 1);
        l.write(0, b"z\n", 1);
        assert_eq!(l.errors, 2);
    }
}
