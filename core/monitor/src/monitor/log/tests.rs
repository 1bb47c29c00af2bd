use std::io::Read;
use std::path::PathBuf;

use super::*;

fn log(config: &LogConfig, chunks: &[(usize, &[u8])]) -> Log {
    let mut log = Log::open(Some(config)).unwrap();
    for (n, (stream, chunk)) in chunks.iter().enumerate() {
        log.write(*stream, chunk, n as i64 + 1);
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

fn text(config: &LogConfig, suffix: &str) -> String {
    std::fs::read_to_string(name(config, suffix)).unwrap()
}

fn name(config: &LogConfig, suffix: &str) -> PathBuf {
    let mut name = config.path.clone().into_os_string();
    name.push(suffix);
    name.into()
}

/// The lines `"log":"<n>\n"` of a text.
fn numbers(text: &str) -> Vec<u32> {
    let number = |line: &str| {
        let (_, rest) = line.split_once(r#"{"log":""#)?;
        rest.split_once(r"\n")?.0.parse().ok()
    };
    text.lines().map(|line| number(line).expect(line)).collect()
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
        &[
            (1, b"begin\n"),
            (0, b"a\nb"),
            (1, b"err"),
            (0, b"c\n\n"),
            (1, b"or\nend"),
        ],
    );
    let attrs = r#","attrs":{"tag":"t"},"#;
    let want = [
        format!(r#"{{"log":"begin\n","stream":"stderr"{attrs}"#) + &stamp(1),
        format!(r#"{{"log":"a\n","stream":"stdout"{attrs}"#) + &stamp(2),
        format!(r#"{{"log":"bc\n","stream":"stdout"{attrs}"#) + &stamp(4),
        format!(r#"{{"log":"\n","stream":"stdout"{attrs}"#) + &stamp(4),
        format!(r#"{{"log":"error\n","stream":"stderr"{attrs}"#) + &stamp(5),
        format!(
            r#"{{"log":"end","stream":"stderr"{attrs}"time":"1970-01-01T00:00:00.000000099Z"}}"#
        ) + "\n",
    ];
    assert_eq!(text(&c, ""), want.concat());
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
        let text = text(&c, "");
        let lens: Vec<(usize, bool)> = text
            .lines()
            .map(|l| {
                let body = l.split(r#"","stream""#).next().unwrap();
                let body = body.strip_prefix(r#"{"log":""#).unwrap();
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
fn files_rotate_by_size_and_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(&dir);
    (c.max_size, c.max_files) = (200, 3);
    let lines: String = (1..=12).map(|n| format!("{n}\n")).collect();
    let l = log(&c, &[(0, lines.as_bytes())]);
    assert_eq!(numbers(&text(&c, "")), [10, 11, 12]);
    assert_eq!(numbers(&text(&c, ".1")), [7, 8, 9]);
    assert_eq!(numbers(&text(&c, ".2")), [4, 5, 6]);
    assert!(!name(&c, ".3").exists());
    assert_eq!(l.position().0, 3);
    let first = |suffix: &str| {
        let text = text(&c, suffix);
        let line = text.lines().next().unwrap().to_owned();
        line.split_once(r#""time":"#).unwrap().1.to_owned()
    };
    assert!(
        first("") > first(".1") && first(".1") > first(".2"),
        "all came in one chunk"
    );
}

#[test]
fn a_single_file_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(&dir);
    (c.max_size, c.max_files) = (200, 1);
    let lines: String = (1..=8).map(|n| format!("{n}\n")).collect();
    log(&c, &[(0, lines.as_bytes())]);
    assert_eq!(numbers(&text(&c, "")), [7, 8]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_rotation_that_was_cut_short_is_finished_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(&dir);
    (c.max_size, c.max_files) = (60, 4);
    // Killed after `.1` had become `.2`, before the current file had become `.1`.
    std::fs::write(name(&c, ".2"), "two").unwrap();
    std::fs::write(name(&c, ".3"), "three").unwrap();
    log(&c, &[(0, b"1\n2\n")]);
    assert_eq!(text(&c, ".3"), "three");
    assert_eq!(text(&c, ".2"), "two");
    assert_eq!(numbers(&text(&c, ".1")), [1]);
    assert_eq!(numbers(&text(&c, "")), [2]);
}

#[test]
fn rotated_files_are_compressed_whatever_a_crash_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(&dir);
    (c.max_size, c.max_files, c.compress) = (60, 4, true);
    std::fs::write(name(&c, ".1"), "left over").unwrap();
    std::fs::write(name(&c, ".2"), "compressed already").unwrap();
    std::fs::write(name(&c, ".2.gz"), "gz").unwrap();
    std::fs::write(name(&c, ".gz.tmp"), "half").unwrap();
    let mut l = Log::open(Some(&c)).unwrap();
    assert!(!name(&c, ".2").exists(), "only the last step was missing");
    // A rotation while the compression goes on: the result follows its file.
    l.write(0, b"1\n2\n", 1);
    while !name(&c, ".1.gz").exists() {
        let (pid, status) = sys_wait();
        assert!(l.reaped(pid, status));
    }
    l.finish(2);
    let unpacked = |suffix: &str| {
        let file = std::fs::File::open(name(&c, suffix)).unwrap();
        let mut text = String::new();
        let mut decoder = flate2::read::GzDecoder::new(file);
        decoder.read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!(unpacked(".2.gz"), "left over");
    assert_eq!(numbers(&unpacked(".1.gz")), [1]);
    assert_eq!(text(&c, ".3.gz"), "gz");
    for gone in [".1", ".2", ".3", ".gz.tmp"] {
        assert!(!name(&c, gone).exists(), "{gone}");
    }
}

fn sys_wait() -> (i32, i32) {
    let mut status = 0;
    // SAFETY: `status` is a valid place.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, 0) };
    (pid, status)
}

#[test]
fn lost_chunks_are_counted() {
    let mut c = config(&tempfile::tempdir().unwrap());
    c.path = "/dev/full".into();
    let mut l = Log::open(Some(&c)).unwrap();
    l.write(0, b"x\ny\n", 1);
    l.write(0, b"z\n", 1);
    assert_eq!(l.errors, 2);
}

#[test]
fn what_the_writer_in_non_blocking_mode_loses_is_counted() {
    let mut c = config(&tempfile::tempdir().unwrap());
    (c.path, c.buffer) = ("/dev/full".into(), Some(1 << 20));
    let mut l = Log::open(Some(&c)).unwrap();
    l.write(0, b"x\ny\n", 1);
    l.write(0, b"z\n", 1);
    l.finish(2);
    assert_eq!(l.errors, 3);
}

#[test]
fn a_disk_that_stalls_costs_entries_but_no_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(&dir);
    c.buffer = Some(100 << 10);
    // A pipe that nobody reads is such a disk.
    let made = std::process::Command::new("mkfifo").arg(&c.path).status();
    assert!(made.unwrap().success());
    let mut reader = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&c.path)
        .unwrap();
    let mut l = Log::open(Some(&c)).unwrap();
    let lines: Vec<String> = (0..20_000).map(|n| format!("{n}\n")).collect();
    for chunk in lines.chunks(100) {
        l.write(0, chunk.concat().as_bytes(), 1);
    }
    assert!(l.errors > 0 && l.blocked().is_some());
    let reading = std::thread::spawn(move || {
        let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
        while !got.ends_with(b"-end-\n") {
            let read = reader.read(&mut buffer).unwrap();
            got.extend_from_slice(&buffer[..read]);
        }
        String::from_utf8(got).unwrap()
    });
    l.finish(2);
    let mut end = std::fs::OpenOptions::new()
        .write(true)
        .open(&c.path)
        .unwrap();
    std::io::Write::write_all(&mut end, b"-end-\n").unwrap();
    let got = reading.join().unwrap();
    let kept = numbers(got.strip_suffix("-end-\n").unwrap());
    assert!(
        kept.len() > 1000 && kept.len() < lines.len(),
        "{}",
        kept.len()
    );
    assert!(kept.is_sorted() && kept[0] == 0, "whole entries, in order");
}

#[test]
fn the_writer_in_non_blocking_mode_rotates_and_reopens() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(&dir);
    (c.max_size, c.max_files, c.buffer) = (200, 3, Some(1 << 20));
    let lines: String = (1..=12).map(|n| format!("{n}\n")).collect();
    let mut l = log(&c, &[(0, lines.as_bytes())]);
    assert_eq!(numbers(&text(&c, "")), [10, 11, 12]);
    assert_eq!(numbers(&text(&c, ".2")), [4, 5, 6]);
    assert_eq!((l.position().0, l.errors), (3, 0));
    l.write(0, b"x\n", 1);
    assert_eq!(l.errors, 1, "the writer has left");
    std::fs::remove_file(name(&c, ".1")).unwrap();
    std::fs::remove_file(name(&c, ".2")).unwrap();
    let mut l = Log::open(Some(&c)).unwrap();
    std::fs::remove_file(&c.path).unwrap();
    l.reopen().unwrap();
    l.write(0, b"13\n", 1);
    l.finish(2);
    assert_eq!(numbers(&text(&c, "")), [13]);
}
