//! Extended header records.

use std::io;

use super::invalid;
use super::sparse::{Segment, Sparse};

/// What one extended header says, as far as it concerns us.
#[derive(Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Option<Sparse>,
    pub(super) sparse_in_data: bool,
}

/// Reads `length key=value\n` records.
pub(super) fn parse(mut bytes: &[u8]) -> io::Result<Records> {
    let mut records = Records::default();
    let mut sparse = GnuSparse::default();
    while !bytes.is_empty() && bytes[0] != 0 {
        let (key, value, rest) = split(bytes).ok_or_else(|| invalid("invalid extended header"))?;
        bytes = rest;
        match key {
            b"path" => records.path = non_empty(value),
            b"linkpath" => records.link = non_empty(value),
            b"size" => records.size = Some(number(value)?),
            b"uid" => records.uid = Some(number(value)?),
            b"gid" => records.gid = Some(number(value)?),
            b"mtime" => records.mtime = time(value),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    records.xattrs.push((name.into(), value.into()));
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    sparse.record(name, value)?;
                }
            }
        }
    }
    sparse.apply(&mut records)?;
    Ok(records)
}

/// The first record's key and value, and what follows it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&bytes[..space]).ok()?).ok()?;
    if length <= space + 1 {
        return None;
    }
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

fn non_empty(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

pub(super) fn number(value: &[u8]) -> io::Result<u64> {
    std::str::from_utf8(value)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| invalid("invalid number in an extended header"))
}

/// `[-]seconds[.fraction]`.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction
        .chars()
        .take_while(char::is_ascii_digit)
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        // A negative time with a fraction lies after the next lower second.
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

/// The records of the three sparse formats.
#[derive(Default)]
struct GnuSparse {
    major: u64,
    name: Option<Vec<u8>>,
    real_size: Option<u64>,
    segments: Vec<Segment>,
    offset: Option<u64>,
    seen: bool,
}

impl GnuSparse {
    fn record(&mut self, name: &[u8], value: &[u8]) -> io::Result<()> {
        self.seen = true;
        match name {
            b"major" => self.major = number(value)?,
            b"name" => self.name = non_empty(value),
            b"size" | b"realsize" => self.real_size = Some(number(value)?),
            b"offset" => self.offset = Some(number(value)?),
            b"numbytes" => {
                let offset = self.offset.take().unwrap_or(0);
                let length = number(value)?;
                self.segments.push(Segment { offset, length });
            }
            b"map" => {
                let numbers = value
                    .split(|byte| *byte == b',')
                    .map(number)
                    .collect::<io::Result<Vec<_>>>()?;
                self.segments = numbers
                    .chunks_exact(2)
                    .map(|pair| Segment {
                        offset: pair[0],
                        length: pair[1],
                    })
                    .collect();
            }
            _ => {}
        }
        Ok(())
    }

    fn apply(self, records: &mut Records) -> io::Result<()> {
        if !self.seen {
            return Ok(());
        }
        if self.name.is_some() {
            records.path = self.name;
        }
        records.sparse_in_data = self.major == 1;
        records.sparse = Some(Sparse {
            real_size: self
                .real_size
                .ok_or_else(|| invalid("a sparse file without a size"))?,
            segments: self.segments,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let parsed =
            parse(b"12 path=a/b\n30 mtime=1350244992.023960108\n24 SCHILY.xattr.a.b=x\ny\n")
                .unwrap();
        assert_eq!(parsed.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(parsed.mtime, Some((1_350_244_992, 23_960_108)));
        assert_eq!(parsed.xattrs, [(b"a.b".to_vec(), b"x\ny".to_vec())]);
        for bad in [
            &b"99 path=a\n"[..],
            b"3 \n",
            b"x path=a\n",
            b"8 path=a",
            b"8 patha\n",
            b"0 a=b\n",
        ] {
            assert!(parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times() {
        assert_eq!(time(b"5"), Some((5, 0)));
        assert_eq!(time(b"-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time(b"1.0000000019"), Some((1, 1)));
        assert_eq!(time(b"x"), None);
    }
}
