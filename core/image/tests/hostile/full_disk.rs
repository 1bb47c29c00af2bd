//! A layer that is larger than the disk.

use std::path::Path;

use super::builder::Tar;
use super::common::{Service, noise, run};
use super::loads::{archive_of, docker_archive};
use super::{config, digest};
use gantry_image::{LoadOptions, Settings, Silent};

/// A file system of a few megabytes.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(at: &'a Path) -> Self {
        run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                "size=24m",
                "gantry-test",
                at.to_str().unwrap(),
            ],
        );
        Self(at)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        run("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

#[test]
fn a_full_disk_is_an_error_and_rolled_back() {
    let dir = tempfile::tempdir().unwrap();
    let small = Small::mount(dir.path());
    let service = Service::at(&dir.path().join("data"), Settings::default(), true);
    let layer = archive_of(Tar::default().raw(b"big", b'0', b"", &noise(10 << 20), |_| {}));
    let text = config(&[digest(&layer)]).to_string();
    let archive = docker_archive(text.as_bytes(), &[&layer]);
    let load = || {
        let options = LoadOptions::default();
        let images = &service.images;
        images.load(&mut &archive[..], &options, &Silent).map(drop)
    };
    // The blob fits once; it and what it unpacks to do not.
    std::fs::write(dir.path().join("ballast"), noise(6 << 20)).unwrap();
    let error = load().unwrap_err().to_string();
    assert!(
        error.to_lowercase().contains("no space left on device"),
        "{error}"
    );
    assert!(service.images.list(&Default::default()).unwrap().is_empty());
    assert!(service.content.list().unwrap().is_empty());
    std::fs::remove_file(dir.path().join("ballast")).unwrap();
    run(
        "mount",
        &["-o", "remount,size=64m", dir.path().to_str().unwrap()],
    );
    load().unwrap();
    assert_eq!(service.images.list(&Default::default()).unwrap().len(), 1);
    drop(service);
    drop(small);
}
