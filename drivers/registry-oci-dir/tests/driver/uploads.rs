//! Uploads in parts.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;

use gantry_plugin_sdk::registry::{BeginUpload, UploadChunk};
use gantry_plugin_sdk::{Call, ErrorCode, Registry};

use crate::place::{Place, at, code, digest};

#[test]
fn an_upload_that_was_cut_off_goes_on() {
    let place = Place::new();
    let bytes = vec![9; 10_000];
    let begin = BeginUpload {
        at: at("a"),
        digest: digest(&bytes),
        mount_from: String::new(),
    };
    let location = place
        .driver
        .begin_upload(&Call::new("t"), begin)
        .unwrap()
        .location;
    let chunk = |offset: u64, size: u64, bytes: &[u8]| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(bytes).unwrap();
        drop(writer);
        let request = UploadChunk {
            at: at("a"),
            location: location.clone(),
            offset,
            size,
        };
        let fds = [reader.as_fd()];
        place
            .driver
            .upload_chunk(&Call::new("t").with_fds(&fds), request)
    };
    assert_eq!(chunk(0, 4_000, &bytes[..4_000]).unwrap().offset, 4_000);
    // The sender died in the middle of the second chunk, and comes again.
    assert_eq!(
        code(chunk(4_000, 4_000, &bytes[..100])),
        ErrorCode::Unavailable
    );
    assert_eq!(code(chunk(9_000, 1, b"x")), ErrorCode::InvalidArgument);
    assert_eq!(chunk(4_000, 4_000, &bytes[..4_000]).unwrap().offset, 8_000);
    place
        .finish("a", &location, &digest(&bytes), &bytes[..2_000])
        .unwrap();
    assert_eq!(place.fetch("a", &digest(&bytes)).unwrap(), bytes);
    assert_eq!(
        code(place.finish("a", &location, &digest(&bytes), b"")),
        ErrorCode::NotFound
    );
    let uploads = place.images().join("a/.gantry/uploads");
    assert_eq!(fs::read_dir(uploads).unwrap().count(), 0);
}
