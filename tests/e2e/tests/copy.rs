//! Files in and out of containers: `docker cp`, `gantry cp`, and the archive endpoint itself.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use gantry_e2e::{Engine, run};
use serde_json::Value;

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Starts a container that sleeps, as `name`.
fn sleeper(engine: &Engine, name: &str, flags: &[&str]) {
    let mut args = vec!["run", "-d", "--name", name, "--network", "none"];
    args.extend_from_slice(flags);
    args.extend_from_slice(&["busybox", "sleep", "600"]);
    engine.docker(&args).ok();
}

fn sh(engine: &Engine, name: &str, script: &str) -> String {
    engine.docker(&["exec", name, "sh", "-c", script]).ok()
}

/// The tree that is copied: links of both kinds, holes, attributes, an odd owner, a long name.
fn tree(engine: &Engine) -> PathBuf {
    let tree = engine.dir().join("tree");
    fs::create_dir_all(tree.join("sub/empty")).unwrap();
    fs::write(tree.join("sub/file"), "text").unwrap();
    fs::hard_link(tree.join("sub/file"), tree.join("second")).unwrap();
    symlink("sub/file", tree.join("link")).unwrap();
    fs::write(tree.join("n".repeat(200)), "long").unwrap();
    let holes = fs::File::create(tree.join("holes")).unwrap();
    holes.set_len(64 << 20).unwrap();
    fs::set_permissions(tree.join("sub"), PermissionsExt::from_mode(0o1750)).unwrap();
    std::os::unix::fs::chown(tree.join("sub"), Some(33), Some(44)).unwrap();
    tree
}

#[track_caller]
fn assert_same(tree: &Path, copy: &Path) {
    run(
        "diff",
        &["-r", "--no-dereference", &text(tree), &text(copy)],
    )
    .ok();
    let mode = |at: &Path| at.join("sub").metadata().unwrap().mode();
    assert_eq!(mode(tree), mode(copy));
    assert_eq!(
        fs::read_link(copy.join("link")).unwrap(),
        Path::new("sub/file")
    );
}

#[test]
fn a_tree_goes_in_and_comes_out_of_running_and_stopped_containers() {
    let engine = Engine::start();
    let tree = tree(&engine);
    sleeper(&engine, "running", &[]);
    engine
        .docker(&["create", "--name", "stopped", "busybox"])
        .ok();
    for (number, name) in ["running", "stopped"].into_iter().enumerate() {
        engine
            .docker(&["cp", "-q", "-a", &text(&tree), &format!("{name}:/tree")])
            .ok();
        let out = engine.dir().join(format!("out{number}"));
        engine
            .docker(&["cp", "-q", "-a", &format!("{name}:/tree"), &text(&out)])
            .ok();
        assert_same(&tree, &out);
        // Once more by our own client, into the directory that is there.
        engine
            .gantry(&["cp", &text(&tree), &format!("{name}:/tree")])
            .ok();
        let out = engine.dir().join(format!("again{number}"));
        engine
            .gantry(&["cp", "-a", &format!("{name}:/tree/tree"), &text(&out)])
            .ok();
        assert_same(&tree, &out);
        assert!(out.join("holes").metadata().unwrap().blocks() < 1000);
    }
    let seen = sh(
        &engine,
        "running",
        "cd /tree; stat -c '%u:%g %a' sub; stat -c %h second; stat -c %b holes; readlink link",
    );
    let seen: Vec<&str> = seen.lines().collect();
    assert_eq!(seen[..2], ["33:44 1750", "2"]);
    assert!(seen[2].parse::<u64>().unwrap() < 1000, "{seen:?}");
    assert_eq!(seen[3], "sub/file");
    let made = "mkdir /ids; echo >/ids/file; chown 33:44 /ids/file; chmod 6755 /ids/file";
    sh(&engine, "running", made);
    let out = engine.dir().join("ids");
    engine
        .gantry(&["cp", "-a", "running:/ids", &text(&out)])
        .ok();
    let copy = out.join("file").metadata().unwrap();
    let (mode, owners) = (copy.mode() & 0o7777, (copy.uid(), copy.gid()));
    assert_eq!((mode, owners), (0o6755, (33, 44)));
    engine.docker(&["start", "stopped"]).ok();
    engine.finish();
}

#[test]
fn volumes_binds_and_memory_are_part_of_what_is_copied() {
    let engine = Engine::start();
    let host = engine.dir().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("file"), "bound").unwrap();
    let bind = format!("{}:/bound:ro", host.display());
    let flags = ["-v", "data:/data", "-v", &bind, "--tmpfs", "/memory"];
    sleeper(&engine, "box", &flags);
    sh(
        &engine,
        "box",
        "echo volume >/data/file; echo memory >/memory/file",
    );
    let cat = |path: &str| engine.docker(&["cp", path, "-"]);
    for (path, content) in [
        ("box:/data/file", "volume"),
        ("box:/bound/file", "bound"),
        ("box:/memory/file", "memory"),
    ] {
        assert!(cat(path).ok().contains(content), "{path}");
    }
    fs::write(engine.dir().join("new"), "new").unwrap();
    let new = text(&engine.dir().join("new"));
    engine.docker(&["cp", "-q", &new, "box:/memory/"]).ok();
    assert_eq!(sh(&engine, "box", "cat /memory/new"), "new");
    // A single file that is mounted cannot be replaced; it is written.
    engine.docker(&["cp", "-q", &new, "box:/etc/hosts"]).ok();
    assert_eq!(sh(&engine, "box", "cat /etc/hosts"), "new");
    engine.docker(&["rm", "-f", "box"]).ok();

    // The same mounts in a container that has never run, and so has no places for them yet.
    let create = [
        "create",
        "--name",
        "box",
        "-v",
        "data:/data",
        "-v",
        &bind,
        "busybox",
    ];
    engine.docker(&create).ok();
    assert!(cat("box:/data/file").ok().contains("volume"));
    assert!(cat("box:/bound/file").ok().contains("bound"));
    engine.docker(&["cp", "-q", &new, "box:/data/"]).ok();
    engine
        .docker(&["cp", "-q", &new, "box:/bound/"])
        .fails(1, "mounted volume is marked read-only");
    let look = ["run", "--rm", "-v", "data:/d", "busybox", "cat", "/d/new"];
    assert_eq!(engine.docker(&look).ok(), "new");
    engine.finish();
}

/// The archive endpoint: status, and the words of the error.
fn put(engine: &Engine, path: &str, tar: &Path) -> (u16, String) {
    let (code, body) = engine.send_tar("PUT", &format!("/containers/{path}"), tar);
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let message = body["message"].as_str().unwrap_or_default().to_owned();
    (code, message)
}

#[test]
fn nothing_leads_out_of_a_container() {
    let engine = Engine::start();
    let secret = engine.dir().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("file"), "host").unwrap();
    let secret = text(&secret);
    sleeper(&engine, "box", &[]);
    let links = format!(
        "mkdir -p /t; ln -s {secret} /t/absolute; ln -s ../../../../../../{secret} /t/up; \
         ln -s /proc/self/root/{secret} /t/magic; ln -s /proc/1/root /t/root"
    );
    sh(&engine, "box", &links);
    for _running_then_stopped in 0..2 {
        for path in [
            "absolute/file",
            "up/file",
            "magic/file",
            "root/../../etc/shadow",
        ] {
            engine
                .docker(&["cp", &format!("box:/t/{path}"), "-"])
                .fails(1, "");
        }
        // An archive with a link and a file behind it.
        let evil = engine.dir().join("evil");
        let _ = fs::remove_dir_all(&evil);
        fs::create_dir(&evil).unwrap();
        symlink(&secret, evil.join("way")).unwrap();
        let tar = engine.dir().join("evil.tar");
        let (dir, file) = (text(&evil), text(&tar));
        run("tar", &["-C", &dir, "-cf", &file, "way"]).ok();
        fs::remove_file(evil.join("way")).unwrap();
        fs::create_dir(evil.join("way")).unwrap();
        fs::write(evil.join("way/planted"), "x").unwrap();
        run("tar", &["-C", &dir, "-rf", &file, "way/planted"]).ok();
        let names = ["--transform", "s,^,../../../..//,", "-P"];
        let mut args = vec!["-C", &dir, "-rf", &file];
        args.extend(names);
        args.push("way/planted");
        run("tar", &args).ok();
        put(&engine, "box/archive?path=/t", &tar);
        assert_eq!(fs::read_dir(&secret).unwrap().count(), 1);
        engine.docker(&["stop", "-t", "0", "box"]).ok();
    }
    engine.finish();
}

#[test]
fn refusals_are_in_dockers_words() {
    let engine = Engine::start();
    let flags = [
        "--read-only",
        "-v",
        "ro:/ro:ro",
        "-v",
        "rw:/rw",
        "--tmpfs",
        "/memory",
    ];
    sleeper(&engine, "box", &flags);
    let tar = engine.dir().join("f.tar");
    let tree = engine.dir().join("f");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("name"), "x").unwrap();
    run("tar", &["-C", &text(&tree), "-cf", &text(&tar), "name"]).ok();
    let refused = |path: &str| put(&engine, path, &tar);
    let root = (400, "container rootfs is marked read-only".to_owned());
    assert_eq!(refused("box/archive?path=/tmp"), root);
    assert_eq!(
        refused("box/archive?path=/ro"),
        (400, "mounted volume is marked read-only".into())
    );
    assert_eq!(refused("box/archive?path=/rw").0, 200);
    assert_eq!(refused("box/archive?path=/memory").0, 200);
    assert_eq!(
        refused("box/archive?path=/none"),
        (404, "Could not find the file /none in container box".into())
    );
    assert_eq!(
        refused("box/archive?path=/etc/passwd"),
        (400, "extraction point is not a directory".into())
    );
    assert_eq!(refused("box/archive").0, 400);
    assert_eq!(refused("none/archive?path=/").0, 404);
    sh(&engine, "box", "rm /rw/name; mkdir /rw/name");
    let (status, words) = refused("box/archive?path=/rw&noOverwriteDirNonDir=true");
    assert_eq!(
        (status, words.as_str()),
        (
            500,
            r#"cannot overwrite directory "/rw/name" with non-directory "/rw""#
        )
    );
    assert_eq!(refused("box/archive?path=/rw").0, 200);
    fs::write(&tar, "no archive").unwrap();
    assert_eq!(put(&engine, "box/archive?path=/rw", &tar).0, 400);
    engine
        .docker(&["cp", "box:/none", "-"])
        .fails(1, "Could not find the file /none in container box");
    engine.finish();
}

#[test]
fn copies_belong_to_whom_they_should() {
    let engine = Engine::start();
    let file = engine.dir().join("file");
    fs::write(&file, "x").unwrap();
    std::os::unix::fs::chown(&file, Some(1234), Some(5678)).unwrap();
    let file = text(&file);
    sleeper(&engine, "box", &["-u", "www"]);
    let apart = [
        "run",
        "-d",
        "--name",
        "apart",
        "--network",
        "none",
        "--userns",
        "private",
    ];
    engine
        .gantry(&[&apart[..], &["busybox", "sleep", "600"]].concat())
        .ok();
    for (name, flags, owner) in [
        ("box", vec![], "1234:5678"),
        ("box", vec!["-a"], "33:33"),
        ("apart", vec![], "1234:5678"),
    ] {
        let mut args = vec!["cp", "-q"];
        args.extend(flags);
        let to = format!("{name}:/tmp/copy");
        args.extend([file.as_str(), &to]);
        engine.docker(&args).ok();
        let seen = ["exec", "-u", "0", name, "stat", "-c", "%u:%g", "/tmp/copy"];
        assert_eq!(engine.docker(&seen).ok(), owner, "{name}");
        let out = engine.dir().join("out.tar");
        let script = format!("docker cp {to} - >{}", out.display());
        engine.client("sh", &["-c", &script]).ok();
        let listed = run("tar", &["--numeric-owner", "-tvf", &text(&out)]).ok();
        assert!(listed.contains(&owner.replace(':', "/")), "{listed}");
    }
    engine.finish();
}
