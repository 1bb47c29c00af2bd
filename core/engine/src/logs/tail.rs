//! Where the last lines of a log begin, found from its end.

use std::io;
use std::os::unix::fs::FileExt;

use super::files::LogFile;

const BLOCK: u64 = 64 << 10;

/// The file (by index) and offset at which the last `lines` lines begin.
pub(super) fn start(files: &[LogFile], lines: u64) -> io::Result<(usize, u64)> {
    let mut left = lines;
    for (index, file) in files.iter().enumerate().rev() {
        match last(file, left)? {
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

fn last(file: &LogFile, lines: u64) -> io::Result<Found> {
    let size = file.file.metadata()?.len();
    if lines == 0 {
        return Ok(Found::At(size));
    }
    let mut block = vec![0u8; usize::try_from(BLOCK).unwrap_or(0)];
    let (mut end, mut seen) = (size, 0u64);
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        let length = usize::try_from(end - begin).unwrap_or(0);
        let block = &mut block[..length];
        file.file.read_exact_at(block, begin)?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
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
    let first = u64::from(size > 0);
    match lines - seen - first.min(lines - seen) {
        0 => Ok(Found::At(0)),
        missing => Ok(Found::Missing(missing)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::all;
    use super::*;

    #[test]
    fn counts_over_files_and_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let long = "x".repeat(100_000);
        std::fs::write(dir.path().join("log.1"), "a\nb\n").unwrap();
        std::fs::write(&path, format!("c\n{long}\nd\n")).unwrap();
        let files = all(&path).unwrap();
        assert_eq!(start(&files, 0).unwrap(), (1, 100_005));
        assert_eq!(start(&files, 1).unwrap(), (1, 100_003));
        assert_eq!(start(&files, 2).unwrap(), (1, 2));
        assert_eq!(start(&files, 3).unwrap(), (1, 0));
        assert_eq!(start(&files, 4).unwrap(), (0, 2));
        assert_eq!(start(&files, 5).unwrap(), (0, 0));
        assert_eq!(start(&files, 50).unwrap(), (0, 0));
        std::fs::write(&path, "").unwrap();
        assert_eq!(start(&all(&path).unwrap(), 1).unwrap(), (0, 2));
        assert_eq!(start(&[], 1).unwrap(), (0, 0));
    }
}
