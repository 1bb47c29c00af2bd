use std::io::Read;

use super::*;

fn header(name: &str, kind: u8, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_entry_type(EntryType::new(kind));
    header.set_size(size);
    header.set_mode(0o4755);
    header.set_uid(1000);
    header.set_gid(1000);
    header.set_cksum();
    header
}

fn push(archive: &mut Vec<u8>, header: &Header, data: &[u8]) {
    archive.extend_from_slice(header.as_bytes());
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
}

#[test]
fn plain_entries_and_data() {
    let mut archive = Vec::new();
    push(&mut archive, &header("dir/", b'0', 0), b"");
    push(&mut archive, &header("dir/a", b'0', 5), b"hello");
    push(&mut archive, &header("dir/b", b'0', 3), b"abc");
    archive.resize(archive.len() + 1024, 0);
    archive.extend_from_slice(b"trailer");
    let mut reader = TarReader::new(&archive[..]);
    assert_eq!(reader.next().unwrap().unwrap().kind, Kind::Directory);
    let entry = reader.next().unwrap().unwrap();
    assert_eq!((entry.mode, entry.uid, entry.size), (0o4755, 1000, 5));
    // Not reading an entry's data skips it.
    assert_eq!(reader.next().unwrap().unwrap().path, b"dir/b");
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "abc");
    assert!(reader.next().unwrap().is_none());
    reader.drain().unwrap();
}

#[test]
fn long_names_and_pax_apply_to_the_next_entry_alone() {
    let long = "x/".repeat(150) + "end";
    let mut archive = Vec::new();
    let mut data = long.clone().into_bytes();
    data.push(0);
    push(
        &mut archive,
        &header("././@LongLink", b'L', data.len() as u64),
        &data,
    );
    push(&mut archive, &header("short", b'0', 0), b"");
    let record = b"29 SCHILY.xattr.user.k=value\n";
    push(
        &mut archive,
        &header("pax", b'x', record.len() as u64),
        record,
    );
    push(&mut archive, &header("with", b'0', 0), b"");
    push(&mut archive, &header("without", b'0', 0), b"");
    let mut reader = TarReader::new(&archive[..]);
    assert_eq!(reader.next().unwrap().unwrap().path, long.as_bytes());
    assert_eq!(reader.next().unwrap().unwrap().xattrs.len(), 1);
    let last = reader.next().unwrap().unwrap();
    assert_eq!(
        (last.path.as_slice(), last.xattrs.len()),
        (&b"without"[..], 0)
    );
}

#[test]
fn sparse_1_0() {
    let pax = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n24 GNU.sparse.name=real\n29 GNU.sparse.realsize=10000\n";
    let mut map = b"2\n0\n3\n9000\n2\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"abcde");
    let mut archive = Vec::new();
    push(&mut archive, &header("pax", b'x', pax.len() as u64), pax);
    push(
        &mut archive,
        &header("GNUSparseFile.0/real", b'0', map.len() as u64),
        &map,
    );
    let mut reader = TarReader::new(&archive[..]);
    let entry = reader.next().unwrap().unwrap();
    let sparse = entry.sparse.unwrap();
    assert_eq!(
        (entry.path.as_slice(), entry.size, sparse.real_size),
        (&b"real"[..], 5, 10000)
    );
    assert_eq!(
        sparse.segments[1],
        Segment {
            offset: 9000,
            length: 2
        }
    );
}

#[test]
fn hostile_archives_are_errors() {
    let mut huge = header("a", b'0', 0);
    huge.set_size(u64::MAX);
    huge.set_cksum();
    let mut long = header("././@LongLink", b'L', 0);
    long.set_size(1 << 40);
    long.set_cksum();
    let mut bad_sum = header("a", b'0', 0);
    bad_sum.as_mut_bytes()[0] = b'z';
    let mut owner = header("a", b'0', 0);
    owner.set_uid(u64::from(u32::MAX));
    owner.set_cksum();
    for (what, header) in [
        ("size", huge),
        ("long name", long),
        ("checksum", bad_sum),
        ("owner", owner),
        ("type", header("a", b'Q', 0)),
        ("cut off", header("a", b'0', 100_000)),
    ] {
        let mut reader = TarReader::new(&header.as_bytes()[..]);
        let error = match reader.next() {
            Err(error) => error,
            Ok(Some(_)) => reader.next().map(|_| ()).unwrap_err(),
            Ok(None) => panic!("{what}: no entry"),
        };
        assert!(
            matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Other
            ),
            "{what}: {error:?}"
        );
    }
    let mut sparse = Vec::new();
    let pax = b"22 GNU.sparse.major=0\n22 GNU.sparse.minor=1\n25 GNU.sparse.map=5,9,1,1\n26 GNU.sparse.realsize=20\n";
    push(&mut sparse, &header("pax", b'x', pax.len() as u64), pax);
    push(&mut sparse, &header("a", b'0', 10), b"0123456789");
    assert!(
        TarReader::new(&sparse[..]).next().is_err(),
        "overlapping runs"
    );
}

#[test]
fn an_archive_may_end_with_its_last_data() {
    let mut archive = header("a", b'0', 5).as_bytes().to_vec();
    archive.extend_from_slice(b"hello");
    let mut reader = TarReader::new(&archive[..]);
    reader.next().unwrap().unwrap();
    assert!(reader.next().unwrap().is_none());
    let mut cut = TarReader::new(&archive[..archive.len() - 1]);
    cut.next().unwrap().unwrap();
    assert_eq!(cut.next().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}
