//! Where the last lines of a log begin, found from its end.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use memchr::{memchr_iter, memrchr_iter};

use crate::files::LogFile;

const BLOCK: usize = 64 << 10;

/// The file (by index) and offset at which the last `lines` lines begin. The files after
/// it are at their begin; it is at any place itself.
pub(crate) fn start(files: &mut [LogFile], lines: u64) -> io::Result<(usize, u64)> {
    let mut left = lines;
    for (index, file) in files.iter_mut().enumerate().rev() {
        let found = match file.plain() {
            Some(plain) => last(plain, left)?,
            None => last_packed(file, left)?,
        };
        match found {
            Found::At(offset) => return Ok((index, offset)),
            Found::Missing(missing) => left = missing,
        }
    }
    Ok((0, 0))
}

enum Found {
    /// The lines begin here.
    At(u64),
    /// The file has so many lines too few.
    Missing(u64),
}

fn last(file: &File, lines: u64) -> io::Result<Found> {
    let size = file.metadata()?.len();
    if lines == 0 {
        return Ok(Found::At(size));
    }
    let mut block = vec![0u8; BLOCK];
    let (mut end, mut seen) = (size, 0u64);
    while end > 0 {
        let begin = end.saturating_sub(BLOCK as u64);
        let length = usize::try_from(end - begin).unwrap_or(0);
        let block = &mut block[..length];
        file.read_exact_at(block, begin)?;
        for at in memrchr_iter(b'\n', block) {
            let position = begin + at as u64;
            // The newline at the very end closes the last line; every other one closes the line before.
            if position + 1 == size {
                continue;
            }
            seen += 1;
            if seen == lines {
                return Ok(Found::At(position + 1));
            }
        }
        end = begin;
    }
    Ok(whole(lines, seen + u64::from(size > 0)))
}

/// A compressed file is read twice: to count its lines, and to find the one.
fn last_packed(file: &mut LogFile, lines: u64) -> io::Result<Found> {
    if lines == 0 {
        return Ok(Found::At(u64::MAX));
    }
    let (mut count, mut offset) = (0, 0);
    scan(file, |_| {
        count += 1;
        true
    })?;
    if count <= lines {
        file.seek(0)?;
        return Ok(whole(lines, count));
    }
    let mut skip = count - lines;
    scan(file, |end| {
        skip -= 1;
        offset = end;
        skip > 0
    })?;
    Ok(Found::At(offset))
}

/// Calls with the end of each line, until told to stop.
fn scan(file: &mut LogFile, mut each: impl FnMut(u64) -> bool) -> io::Result<()> {
    file.seek(0)?;
    let mut block = vec![0u8; BLOCK];
    let mut before = 0u64;
    loop {
        let read = file.read(&mut block)?;
        for at in memchr_iter(b'\n', &block[..read]) {
            if !each(before + at as u64 + 1) {
                return Ok(());
            }
        }
        before += read as u64;
        if read == 0 {
            return Ok(());
        }
    }
}

/// The whole file is wanted, and perhaps more.
fn whole(wanted: u64, lines: u64) -> Found {
    match wanted.saturating_sub(lines) {
        0 => Found::At(0),
        missing => Found::Missing(missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::list;
    use crate::files::tests::{entry, pack};

    #[test]
    fn counts_over_files_blocks_and_compression() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (a, b, c) = (entry("a", 1), entry("b", 2), entry("c", 3));
        let long = entry(&"x".repeat(100_000), 4);
        let (a_len, c_len) = (a.len() as u64, c.len() as u64);
        let newest = format!("{c}{long}{}", entry("d", 5));
        std::fs::write(&path, &newest).unwrap();
        let before = dir.path().join("log.1");
        std::fs::write(&before, format!("{a}{b}")).unwrap();
        let check = |lines, want: (usize, u64)| {
            assert_eq!(
                start(&mut list(&path).unwrap(), lines).unwrap(),
                want,
                "{lines}"
            );
        };
        for packed in [false, true] {
            if packed {
                pack(&dir.path().join("log.1.gz"), &format!("{a}{b}"));
                std::fs::remove_file(&before).unwrap();
            }
            check(0, (1, newest.len() as u64));
            check(1, (1, c_len + long.len() as u64));
            check(2, (1, c_len));
            check(3, (1, 0));
            check(4, (0, a_len));
            check(5, (0, 0));
            check(50, (0, 0));
        }
        assert_eq!(start(&mut [], 1).unwrap(), (0, 0));
    }
}
