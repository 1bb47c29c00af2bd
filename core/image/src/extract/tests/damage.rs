//! Damaged archives.

use std::fs as std_fs;
use tar::Header;

use super::*;

/// Archives damaged in every way that a fixed sequence of random numbers brings: an error or not, never a panic, and
/// nothing outside.
#[test]
fn damaged_archives() {
    let place = Place::new();
    let honest = Tar::default()
        .dir("d/")
        .file("d/f", "content")
        .symlink("s", "../outside")
        .file("d/.wh.gone", "")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.name", b"d/sparse"),
            ("GNU.sparse.realsize", b"4096"),
            ("SCHILY.xattr.user.x", b"y"),
        ])
        .raw(b"x", b'0', b"", b"1\n0\n0\n", |_| {})
        .file(&"long/".repeat(30), "x")
        .link("h", "d/f");
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for round in 0..3000 {
        let mut bytes = honest.0.clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = u8::try_from(random(256)).unwrap(),
                1 => bytes.truncate(at.max(1)),
                _ => bytes[at] = b"/.0079\0\xff"[random(8)],
            }
        }
        // Half of the time the checksums are right, so that the damage gets further in.
        if round % 2 == 0 {
            for block in bytes.chunks_exact_mut(512) {
                if block[257..262] == *b"ustar" {
                    let mut header = Header::new_old();
                    header.as_mut_bytes().copy_from_slice(block);
                    header.set_cksum();
                    block.copy_from_slice(header.as_bytes());
                }
            }
        }
        let style = [WhiteoutStyle::Overlay, WhiteoutStyle::Apply][round % 2];
        let _ = extract(&place.root, style, &mut &bytes[..]);
        if round % 100 == 0 {
            place.assert_contained();
            std_fs::remove_dir_all(&place.root).unwrap();
            std_fs::create_dir(&place.root).unwrap();
        }
    }
    place.assert_contained();
}
