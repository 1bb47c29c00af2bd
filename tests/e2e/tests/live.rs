//! Ports and mounts of running containers: `gantry update`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use gantry_e2e::{Done, Engine, eventually, free_port};

/// Runs a client with words that have no spaces in them.
fn docker(engine: &Engine, line: &str) -> Done {
    engine.docker(&line.split(' ').collect::<Vec<_>>())
}

fn update(engine: &Engine, line: &str) -> Done {
    let mut args = vec!["update"];
    args.extend(line.split(' '));
    engine.gantry(&args)
}

fn page(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.contains("page").then_some(text)
}

fn serves(port: u16) {
    eventually("the page is served", 30, || page(port));
}

const WEB: &str = "mkdir -p /www; echo page > /www/index.html; exec httpd -f -p 80 -h /www";

#[test]
fn ports_come_and_go() {
    let mut engine = Engine::start();
    let (first, second, taken) = (free_port(), free_port(), free_port());
    let run = |name: &str, flags: &[&str]| {
        let mut args = vec!["run", "-d", "--name", name];
        args.extend(flags);
        args.extend(["busybox", "sh", "-c", WEB]);
        engine.docker(&args).ok();
    };
    run("web", &[]);
    run("other", &["-p", &format!("{taken}:80")]);
    let began = docker(&engine, "info -f {{.SystemTime}}").ok();
    update(&engine, &format!("--publish-add {first}:80 web")).ok();
    serves(first);
    let shown = format!("80/tcp -> 0.0.0.0:{first}");
    assert!(docker(&engine, "port web").ok().contains(&shown));
    let ps = docker(&engine, "ps --filter name=web --format {{.Ports}}").ok();
    assert!(ps.contains(&format!("0.0.0.0:{first}->80/tcp")), "{ps}");
    let bindings = "inspect -f {{json .HostConfig.PortBindings}}{{json .Config.ExposedPorts}} web";
    let bindings = |engine: &Engine| {
        let (format, name) = bindings["inspect -f ".len()..].rsplit_once(' ').unwrap();
        engine.docker(&["inspect", "-f", format, name]).ok()
    };
    let before = bindings(&engine);
    assert!(
        before.contains(&format!("\"HostPort\":\"{first}\"")),
        "{before}"
    );
    assert!(before.contains("{\"80/tcp\":{}}"), "{before}");

    // Refused as a whole, in Docker's words; what was there goes on.
    update(
        &engine,
        &format!("--publish-rm 80/tcp --publish-add {second}:80 --publish-add {taken}:80 web"),
    )
    .fails(
        1,
        &format!("Bind for 0.0.0.0:{taken} failed: port is already allocated"),
    );
    update(&engine, "--publish-rm 81/tcp web")
        .fails(1, "no public port '81/tcp' published for web");
    assert_eq!(bindings(&engine), before);
    serves(first);
    assert!(page(second).is_none());

    // It outlives the daemon and the container's own restart.
    engine.kill9();
    serves(first);
    engine.boot();
    assert!(docker(&engine, "port web").ok().contains(&shown));
    docker(&engine, "restart -t 0 web").ok();
    serves(first);
    assert!(docker(&engine, "port web").ok().contains(&shown));

    update(&engine, "--publish-rm 80/tcp web").ok();
    assert!(page(first).is_none());
    assert_eq!(docker(&engine, "port web").ok(), "");
    docker(&engine, "stop -t 0 web").ok();
    update(&engine, &format!("--publish-add 127.0.0.1:{second}:80 web")).ok();
    docker(&engine, "start web").ok();
    serves(second);
    let until = docker(&engine, "info -f {{.SystemTime}}").ok();
    let events = docker(
        &engine,
        &format!(
            "events --since {began} --until {until} --filter event=update --format {{{{.Action}}}}"
        ),
    );
    assert_eq!(events.ok().lines().count(), 3);

    docker(
        &engine,
        "run -d --name hosted --network host busybox sleep 60",
    )
    .ok();
    update(&engine, &format!("--publish-add {first}:80 hosted")).fails(
        1,
        "conflicting options: port publishing and the host network mode",
    );
    engine.finish();
}

#[test]
fn mounts_come_and_go() {
    let mut engine = Engine::start();
    let host = engine.dir().join("host");
    fs::create_dir_all(host.join("below")).unwrap();
    fs::write(host.join("file"), "from the host\n").unwrap();
    let source = host.display().to_string();
    docker(&engine, "run -d --name box busybox sleep 600").ok();
    let sh = |engine: &Engine, script: &str| engine.docker(&["exec", "box", "sh", "-c", script]);
    update(
        &engine,
        &format!("--mount-add type=bind,src={source},dst=/live/here,readonly box"),
    )
    .ok();
    assert_eq!(sh(&engine, "cat /live/here/file").ok(), "from the host");
    sh(&engine, "echo x > /live/here/new").fails(1, "Read-only file system");
    sh(&engine, "mkdir /www; echo kept > /www/f").ok();
    update(&engine, "--mount-add type=volume,src=data,dst=/www --mount-add type=tmpfs,dst=/fast,tmpfs-size=1m box").ok();
    assert_eq!(
        sh(&engine, "cat /www/f").ok(),
        "kept",
        "a new volume has what was there"
    );
    assert!(sh(&engine, "df -k /fast").ok().contains("1024"));
    assert!(
        sh(&engine, "mount")
            .ok()
            .contains("tmpfs on /fast type tmpfs (rw,nosuid,nodev,noexec")
    );
    docker(&engine, "volume rm data").fails(1, "volume is in use");
    let mounts = "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}};{{end}}";
    let shown = |engine: &Engine| engine.docker(&["inspect", "-f", mounts, "box"]).ok();
    let all = shown(&engine);
    for one in [
        "bind /live/here false;",
        "volume /www true;",
        "tmpfs /fast true;",
    ] {
        assert!(
            all.contains(one) || one.starts_with("tmpfs"),
            "{one}: {all}"
        );
    }

    // Refused in Docker's words, and nothing is left of what came before the mistake.
    for (line, why) in [
        (
            format!("--mount-add type=bind,src={source},dst=/www box"),
            "Duplicate mount point: /www",
        ),
        (
            "--mount-add type=bind,src=/nonexistent,dst=/x box".to_owned(),
            "bind source path does not exist: /nonexistent",
        ),
        (
            format!("--mount-add type=bind,src={source},dst=/proc/sys box"),
            "cannot be mounted because it is inside /proc",
        ),
        (
            format!(
                "--mount-rm /www --mount-add type=tmpfs,dst=/other --mount-add type=bind,src={source},dst=/etc/passwd box"
            ),
            "Are you trying to mount a directory onto a file (or vice-versa)?",
        ),
        (
            "--mount-rm /nowhere box".to_owned(),
            "container box has no mount at /nowhere",
        ),
    ] {
        update(&engine, &line).fails(1, why);
    }
    assert_eq!(shown(&engine), all);
    assert_eq!(
        sh(&engine, "ls -d /other 2>&1; cat /www/f").ok(),
        "ls: /other: No such file or directory\nkept"
    );

    // In use, then not.
    engine
        .docker(&[
            "exec",
            "-d",
            "box",
            "sh",
            "-c",
            "cd /live/here/below; exec sleep 600",
        ])
        .ok();
    eventually("it is there", 30, || {
        let there = sh(&engine, "ls -l /proc/[0-9]*/cwd").out;
        there.contains("/live/here/below").then_some(())
    });
    update(&engine, "--mount-rm /live/here box")
        .fails(1, "it is busy: a process of the container uses it");
    sh(&engine, "for p in /proc/[0-9]*; do [ \"$(readlink $p/cwd)\" = /live/here/below ] && kill -9 ${p#/proc/}; done; true").ok();
    eventually("the mount goes", 30, || {
        (update(&engine, "--mount-rm /live/here box").code == 0).then_some(())
    });
    assert_eq!(
        sh(&engine, "ls /live").ok(),
        "",
        "its place was made for it"
    );

    // The next daemon and the next start know the rest.
    engine.kill9();
    engine.boot();
    assert_eq!(sh(&engine, "cat /www/f").ok(), "kept");
    docker(&engine, "restart -t 0 box").ok();
    assert_eq!(sh(&engine, "cat /www/f").ok(), "kept");
    assert!(sh(&engine, "mount").ok().contains(" /fast "));
    update(&engine, "--mount-rm /www --mount-rm /fast box").ok();
    assert!(!sh(&engine, "mount").ok().contains(" /fast "));
    docker(&engine, "volume rm data").ok();

    // One that does not run.
    docker(&engine, "stop -t 0 box").ok();
    update(
        &engine,
        &format!("--mount-add type=bind,src={source},dst=/again box"),
    )
    .ok();
    docker(&engine, "start box").ok();
    assert_eq!(sh(&engine, "cat /again/file").ok(), "from the host");
    engine.finish();
}

#[test]
fn a_user_namespace_owns_what_it_is_given() {
    let engine = Engine::start();
    let args = "run -d --name apart --userns private --egress-allow none busybox sleep 600";
    engine.gantry(&args.split(' ').collect::<Vec<_>>()).ok();
    let sh = |script: &str| engine.docker(&["exec", "apart", "sh", "-c", script]);
    sh("mkdir /old && echo old > /old/f && chown 5:6 /old/f").ok();
    update(
        &engine,
        "--mount-add type=volume,src=data,dst=/new/place --mount-add type=volume,src=filled,dst=/old \
         --mount-add type=tmpfs,dst=/fast apart",
    )
    .ok();
    let owners = sh(
        "touch /new/place/x /fast/x; stat -c %u:%g /new /new/place /new/place/x /fast /fast/x /old/f",
    );
    assert_eq!(owners.ok(), "0:0\n0:0\n0:0\n0:0\n0:0\n5:6");
    // The volume is anybody's: it is not stored under the container's own numbers.
    let mine = "run --rm -v data:/d -v filled:/f busybox stat -c %u:%g /d/x /f/f";
    assert_eq!(docker(&engine, mine).ok(), "0:0\n5:6");
    update(&engine, "--mount-rm /new/place --mount-rm /fast apart").ok();
    assert_eq!(sh("ls -A /new; ls -d /fast 2>/dev/null | wc -l").ok(), "0");
    engine.finish();
}
