//! Layers of all kinds, none at all, and as many as Docker allows.

use gantry_e2e::Engine;

use crate::layout::{Compression, Layout, busybox_layer, file_layer};

#[test]
fn layers_are_plain_gzip_or_zstd() {
    let engine = Engine::with(Default::default());
    let mut layout = Layout::new(&engine.dir().join("layout"));
    let image = layout.image(
        "linux/amd64",
        &[
            busybox_layer(Compression::Gzip),
            file_layer("plain", "1", Compression::None),
            file_layer("packed", "2", Compression::Zstd),
        ],
    );
    layout.name(&image, "mixed:1");
    engine.docker(&["load", "-q", "-i", &layout.archive()]).ok();
    let out = engine.docker(&["run", "--rm", "mixed:1", "cat", "/plain", "/packed"]);
    assert_eq!(out.ok(), "12");
    engine.finish();
}

#[test]
fn an_image_without_layers_is_an_image() {
    let engine = Engine::with(Default::default());
    let mut layout = Layout::new(&engine.dir().join("layout"));
    let image = layout.image("linux/amd64", &[]);
    layout.name(&image, "nothing:1");
    engine.docker(&["load", "-q", "-i", &layout.archive()]).ok();
    let size = engine.docker(&[
        "image",
        "inspect",
        "-f",
        "{{.Size}} {{len .RootFS.Layers}}",
        "nothing:1",
    ]);
    assert_eq!(size.ok(), "0 0");
    engine
        .docker(&["run", "--rm", "nothing:1"])
        .fails(127, "executable file not found in $PATH");
    // It lives on as an archive, and with a layer of a container's own.
    let saved = engine.dir().join("saved.tar").display().to_string();
    engine.docker(&["save", "-o", &saved, "nothing:1"]).ok();
    engine
        .docker(&["create", "--name", "made", "nothing:1", "x"])
        .ok();
    engine.docker(&["cp", "/bin/busybox", "made:/busybox"]).ok();
    engine.docker(&["commit", "made", "something:1"]).ok();
    engine.docker(&["rm", "made"]).ok();
    let said = engine.docker(&["run", "--rm", "something:1", "/busybox", "echo", "hi"]);
    assert_eq!(said.ok(), "hi");
    engine.docker(&["rmi", "something:1", "nothing:1"]).ok();
    assert_eq!(
        engine.docker(&["load", "-i", &saved]).ok(),
        "Loaded image: nothing:1"
    );
    engine.finish();
}

#[test]
fn an_image_of_127_layers_runs() {
    let engine = Engine::with(Default::default());
    let mut layout = Layout::new(&engine.dir().join("layout"));
    let mut layers = vec![busybox_layer(Compression::Gzip)];
    layers.extend((1..127).map(|n| file_layer(&format!("file-{n}"), "x", Compression::None)));
    let image = layout.image("linux/amd64", &layers);
    layout.name(&image, "tall:1");
    engine.docker(&["load", "-q", "-i", &layout.archive()]).ok();
    let script = "ls -d /file-* | wc -l; echo y > /file-5; cat /file-5 /file-126";
    let out = engine
        .docker(&["run", "--rm", "tall:1", "sh", "-c", script])
        .ok();
    assert_eq!(out, "126\ny\nx");
    let history = engine.docker(&["history", "-q", "tall:1"]).ok();
    assert_eq!(history.lines().count(), 128);
    engine.finish();
}
