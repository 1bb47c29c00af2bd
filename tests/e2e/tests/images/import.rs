//! Images made of a plain file system.

use std::fs;
use std::process::{Command, Stdio};

use gantry_e2e::{Engine, busybox_tar, eventually, free_port, run};

#[test]
fn archives_are_compressed_in_any_way() {
    let engine = Engine::with(Default::default());
    for (program, suffix) in [
        ("gzip", "gz"),
        ("bzip2", "bz2"),
        ("xz", "xz"),
        ("zstd", "zst"),
    ] {
        let file = engine
            .dir()
            .join(format!("fs.tar.{suffix}"))
            .display()
            .to_string();
        let line = format!("{program} -1 < {} > {file}", busybox_tar());
        run("sh", &["-c", &line]).ok();
        let name = format!("from-{suffix}");
        engine.docker(&["import", &file, &name]).ok();
        assert_eq!(
            engine
                .docker(&["run", "--rm", &name, "/bin/echo", "hi"])
                .ok(),
            "hi"
        );
    }
    // The same files are the same layer, however they came.
    let layers = |name: &str| {
        let format = "{{index .RootFS.Layers 0}}";
        engine
            .docker(&["image", "inspect", "-f", format, name])
            .ok()
    };
    assert_eq!(layers("from-xz"), layers("from-zst"));
    // An archive of images can be compressed as well.
    let saved = engine.dir().join("saved.tar").display().to_string();
    engine.docker(&["save", "-o", &saved, "from-gz"]).ok();
    for program in ["bzip2", "xz", "zstd"] {
        run(
            "sh",
            &["-c", &format!("{program} -1 < {saved} > {saved}.{program}")],
        )
        .ok();
        engine.docker(&["rmi", "from-gz"]).ok();
        let loaded = engine
            .docker(&["load", "-i", &format!("{saved}.{program}")])
            .ok();
        assert_eq!(loaded, "Loaded image: from-gz:latest");
    }
    engine.finish();
}

#[test]
fn an_import_says_what_it_is() {
    let engine = Engine::with(Default::default());
    let change = |text: &str| format!("--change={text}");
    engine
        .docker(&[
            "import",
            "--platform=linux/arm/v6",
            "-m=by hand",
            &change("CMD [\"sh\"]"),
            &change("ENV A=b"),
            &change("LABEL k=v"),
            busybox_tar(),
            "made:1",
        ])
        .ok();
    let format = "{{.Architecture}}{{.Variant}} {{.Comment}} {{.Config.Cmd}} {{.Config.Env}} {{.Config.Labels}}";
    let shown = engine
        .docker(&["image", "inspect", "-f", format, "made:1"])
        .ok();
    assert_eq!(shown, "armv6 by hand [sh] [A=b] map[k:v]");
    let bytes = fs::read(busybox_tar()).unwrap();
    engine
        .docker_stdin(&["import", "-", "piped:1"], &bytes)
        .ok();
    let shown = engine
        .docker(&["image", "inspect", "-f", "{{.Comment}}", "piped:1"])
        .ok();
    assert_eq!(shown, "Imported from -");
    engine
        .docker(&["import", &change("RUN x"), busybox_tar()])
        .fails(1, "run is not a valid change command");
    engine.finish();
}

#[test]
fn an_archive_is_imported_from_a_server() {
    let engine = Engine::with(Default::default());
    let site = engine.dir().join("site");
    fs::create_dir(&site).unwrap();
    fs::copy(busybox_tar(), site.join("fs.tar")).unwrap();
    let port = free_port();
    let mut server = Command::new("busybox")
        .args(["httpd", "-f", "-p", &format!("127.0.0.1:{port}"), "-h"])
        .arg(&site)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the server answers", 30, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let url = format!("http://127.0.0.1:{port}/fs.tar");
    let said = engine.docker(&["import", &url, "fetched:1"]).ok();
    assert!(said.contains(&format!("Downloading from {url}")), "{said}");
    assert_eq!(
        engine
            .docker(&["run", "--rm", "fetched:1", "/bin/echo", "hi"])
            .ok(),
        "hi"
    );
    let missing = format!("http://127.0.0.1:{port}/missing");
    let wording = format!("failed to GET {missing} with status 404 Not Found");
    engine.docker(&["import", &missing]).fails(1, &wording);
    server.kill().unwrap();
    server.wait().unwrap();
    engine
        .docker(&["import", &url])
        .fails(1, "connection refused");
    assert_eq!(engine.docker(&["images", "-q"]).ok().lines().count(), 1);
    engine.finish();
}
