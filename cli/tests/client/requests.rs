//! Connections, versions, errors and bodies against a scripted daemon.

use crate::fake::{Daemon, Done};

fn done(code: i32, out: &str, err: &str) -> Done {
    Done {
        code: Some(code),
        out: out.into(),
        err: err.into(),
    }
}

#[test]
fn an_older_daemon_is_spoken_to_in_its_version() {
    let daemon = Daemon::start(|request, peer| {
        match request.version.as_str() {
        "1.41" => peer.reply(204, ""),
        version => peer.reply(
            400,
            &format!(r#"{{"message":"client version {version} is too new. Maximum supported API version is 1.41"}}"#),
        ),
    }
    });
    assert_eq!(daemon.run("stop a b"), done(0, "a\nb\n", ""));
    let versions: Vec<_> = daemon
        .seen()
        .iter()
        .map(|request| request.version.clone())
        .collect();
    assert_eq!(versions, ["1.51", "1.41", "1.41"]);
    assert_eq!(daemon.connections(), 1);
}

#[test]
fn a_pinned_version_is_not_negotiated() {
    let daemon = Daemon::start(|_, peer| peer.reply(200, "[]"));
    let output = daemon
        .client("ps -q")
        .env("DOCKER_API_VERSION", "1.40")
        .output()
        .unwrap();
    assert_eq!(Done::from(output), done(0, "", ""));
    assert_eq!(daemon.seen()[0].version, "1.40");
}

#[test]
fn an_upload_asks_for_the_version_first() {
    let daemon = Daemon::start(|request, peer| match request.path.as_str() {
        "/_ping" => {
            peer.write(b"HTTP/1.1 200 OK\r\nApi-Version: 1.43\r\nContent-Length: 2\r\n\r\nOK")
        }
        _ => peer.lines(&[r#"{"stream":"Loaded image: app:latest\n"}"#]),
    });
    let archive = daemon.home().join("image.tar");
    std::fs::write(&archive, vec![7; 3 << 20]).unwrap();
    let loaded = daemon.run(&format!("load -i {}", archive.display()));
    assert_eq!(loaded, done(0, "Loaded image: app:latest\n", ""));
    let load = daemon.wait_for("/images/load");
    assert_eq!(
        (load.version.as_str(), load.query.as_str()),
        ("1.43", "quiet=1")
    );
    assert!(load.body == vec![7; 3 << 20]);
}

#[test]
fn the_daemons_words_are_shown() {
    let daemon = Daemon::start(|request, peer| match request.path.as_str() {
        "/containers/a/stop" => peer.reply(404, r#"{"message":"No such container: a"}"#),
        "/containers/b/stop" => peer.reply(204, ""),
        _ => peer.write(b"HTTP/1.1 500 X\r\nContent-Length: 5\r\n\r\nplain"),
    });
    assert_eq!(
        daemon.run("stop a b"),
        done(
            1,
            "b\n",
            "Error response from daemon: No such container: a\n"
        )
    );
    assert_eq!(
        daemon.run("info -f {{.Name}}"),
        done(1, "", "Error response from daemon: plain\n")
    );
}

#[test]
fn an_absent_daemon_is_named() {
    let daemon = Daemon::start(|_, _| {});
    let output = daemon
        .client("-H unix:///no/such.sock ps")
        .output()
        .unwrap();
    let err = "Cannot connect to the Docker daemon at unix:///no/such.sock. Is the docker daemon running?\n";
    assert_eq!(Done::from(output), done(1, "", err));
}

#[test]
fn force_makes_a_missing_container_no_error() {
    let daemon = Daemon::start(|_, peer| peer.reply(404, r#"{"message":"No such container: a"}"#));
    let err = "Error response from daemon: No such container: a\n";
    assert_eq!(daemon.run("rm -f a"), done(0, "", err));
    assert_eq!(daemon.run("rm a"), done(1, "", err));
}

#[test]
fn inspect_tries_one_kind_after_the_other() {
    let daemon = Daemon::start(|request, peer| match request.path.as_str() {
        "/volumes/data" => peer.reply(200, r#"{"Name":"data","Labels":{"a":"<&>"}}"#),
        _ => peer.reply(404, r#"{"message":"nothing here"}"#),
    });
    let text = "[\n    {\n        \"Name\": \"data\",\n        \"Labels\": {\n            \"a\": \"<&>\"\n        }\n    }\n]\n";
    assert_eq!(
        daemon.run("inspect data nope"),
        done(1, text, "Error: No such object: nope\n")
    );
    assert_eq!(daemon.run("inspect -f {{.Labels data").code, Some(64));
    assert_eq!(
        daemon.run("inspect -f {{.Labels.a}} data"),
        done(0, "<&>\n", "")
    );
    let first: Vec<_> = daemon.seen_lines().into_iter().take(4).collect();
    assert_eq!(
        first,
        [
            "GET /containers/data/json",
            "GET /images/data/json",
            "GET /networks/data",
            "GET /volumes/data"
        ]
    );
}

#[test]
fn a_login_is_kept_and_used() {
    let daemon = Daemon::start(|request, peer| match request.path.as_str() {
        "/auth" if request.json()["password"] == "secret" => {
            peer.reply(200, r#"{"Status":"Login Succeeded","IdentityToken":""}"#);
        }
        "/auth" => peer.reply(401, r#"{"message":"unauthorized"}"#),
        _ => peer.lines(&[r#"{"status":"Status: Image is up to date"}"#]),
    });
    let bad = daemon.run("login -u me -p wrong reg.test:5000");
    assert_eq!(
        (bad.code, daemon.home().join(".docker/config.json").exists()),
        (Some(1), false)
    );
    let good = daemon.run("login -u me -p secret reg.test:5000");
    assert_eq!(
        (good.code, good.out.as_str()),
        (Some(0), "Login Succeeded\n")
    );
    let pulled = daemon.run("pull reg.test:5000/app:1");
    assert_eq!(
        pulled,
        done(0, "Status: Image is up to date\nreg.test:5000/app:1\n", "")
    );
    // {"username":"me","password":"secret","serveraddress":"reg.test:5000"}
    let sent = daemon
        .wait_for("/images/create")
        .header("x-registry-auth")
        .unwrap()
        .to_owned();
    assert_eq!(
        sent,
        "eyJ1c2VybmFtZSI6Im1lIiwicGFzc3dvcmQiOiJzZWNyZXQiLCJzZXJ2ZXJhZGRyZXNzIjoicmVnLnRlc3Q6NTAwMCJ9"
    );
    assert_eq!(daemon.run("logout reg.test:5000").code, Some(0));
    let kept = std::fs::read_to_string(daemon.home().join(".docker/config.json")).unwrap();
    assert!(!kept.contains("reg.test"), "{kept}");
}

#[test]
fn an_error_in_a_pull_is_an_error() {
    let daemon = Daemon::start(|_, peer| {
        peer.lines(&[
            r#"{"status":"Pulling fs layer","id":"a"}"#,
            r#"{"errorDetail":{"message":"no space"},"error":"no space"}"#,
        ]);
    });
    assert_eq!(
        daemon.run("pull app:1"),
        done(1, "a: Pulling fs layer\n", "no space\n")
    );
}

#[test]
fn called_docker_it_calls_itself_docker() {
    let daemon = Daemon::start(|_, _| {});
    let link = daemon.home().join("docker");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_gantry"), &link).unwrap();
    let output = std::process::Command::new(link)
        .arg("stop")
        .output()
        .unwrap();
    assert_eq!(
        Done::from(output).err,
        "docker: 'docker stop' requires at least 1 argument\n\nUsage:  docker stop [OPTIONS] CONTAINER [CONTAINER...]\n\nSee 'docker stop --help' for more information\n"
    );
}

#[test]
fn drivers_are_listed() {
    let daemon = Daemon::start(|request, peer| {
        match request.path.as_str() {
        "/gantry/drivers" => peer.reply(
            200,
            r#"[{"Kind":"storage","Name":"overlayfs","Version":"0.1.0","Protocol":1,"State":"ready","Isolation":"in-process","Generation":1,"Default":true,"Capabilities":["diff"],"Path":"/x.so"}]"#,
        ),
        _ => peer.reply(200, r#"{"Kind":"storage","Name":"overlayfs"}"#),
    }
    });
    assert_eq!(
        daemon.run("driver ls").out,
        "KIND      NAME        VERSION   ISOLATION    DEFAULT   STATE     REASON\nstorage   overlayfs   0.1.0     in-process   yes       ready     \n"
    );
    assert_eq!(
        daemon.run("driver inspect -f {{.Name}} storage/overlayfs"),
        done(0, "overlayfs\n", "")
    );
    assert_eq!(
        daemon.seen()[1].line(),
        "GET /gantry/drivers/storage/overlayfs"
    );
}

#[test]
fn an_installed_plugin_is_a_command() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = Daemon::start(|_, _| {});
    let directory = daemon.home().join(".docker/cli-plugins");
    std::fs::create_dir_all(&directory).unwrap();
    let plugin = directory.join("docker-compose");
    std::fs::write(&plugin, "#!/bin/sh\necho \"$@\" on $DOCKER_HOST\n").unwrap();
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).unwrap();
    let out = format!(
        "compose up --detach on unix://{}\n",
        daemon.socket().display()
    );
    assert_eq!(daemon.run("compose up --detach"), done(0, &out, ""));
    assert_eq!(daemon.run("../compose up").code, Some(1));
}
