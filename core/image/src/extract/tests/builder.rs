//! Archives that no honest program writes.

use tar::{EntryType, Header};

/// An archive under construction, without any of the checks that honest writers make.
#[derive(Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn raw(
        mut self,
        path: &[u8],
        kind: u8,
        link: &[u8],
        data: &[u8],
        change: fn(&mut Header),
    ) -> Self {
        if path.len() > 100 {
            self = self.raw(b"long", b'L', b"", path, |_| {});
        }
        if link.len() > 100 {
            self = self.raw(b"long", b'K', b"", link, |_| {});
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::new(kind));
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header.set_size(data.len() as u64);
        let old = header.as_old_mut();
        let length = path.len().min(100);
        old.name[..length].copy_from_slice(&path[..length]);
        let length = link.len().min(100);
        old.linkname[..length].copy_from_slice(&link[..length]);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    pub(crate) fn file(self, path: &str, data: &str) -> Self {
        self.raw(path.as_bytes(), b'0', b"", data.as_bytes(), |_| {})
    }
    pub(crate) fn dir(self, path: &str) -> Self {
        self.raw(path.as_bytes(), b'5', b"", b"", |_| {})
    }
    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.raw(path.as_bytes(), b'2', target.as_bytes(), b"", |_| {})
    }
    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        self.raw(path.as_bytes(), b'1', target.as_bytes(), b"", |_| {})
    }
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let base = key.len() + value.len() + 3;
            let mut length = base + 1;
            while length != base + length.to_string().len() {
                length = base + length.to_string().len();
            }
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.raw(b"pax", b'x', b"", &data, |_| {})
    }
}
