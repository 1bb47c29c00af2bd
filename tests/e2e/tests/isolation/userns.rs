//! User namespaces: of one container, of all of them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use gantry_e2e::{Engine, Options};

use crate::{refused, sh, start};

/// First number outside and how many, of a running container's users.
#[track_caller]
fn range(engine: &Engine, name: &str) -> (u32, u32) {
    let map = engine
        .docker(&["exec", name, "cat", "/proc/self/uid_map"])
        .ok();
    let numbers: Vec<u32> = map.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert_eq!((numbers.len(), numbers[0]), (3, 0), "{map}");
    (numbers[1], numbers[2])
}

#[test]
fn ranges_of_their_own() {
    let mut engine = Engine::start();
    let secret = engine.dir().join("secret");
    fs::write(&secret, "of the host's root").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let mapped = engine.dir().join("mapped");
    fs::create_dir(&mapped).unwrap();
    let binds = format!(
        r#""UsernsMode":"private","Binds":["data:/etc","{}:/secret","{}:/mapped:idmap"]"#,
        secret.display(),
        mapped.display()
    );
    start(&engine, "first", &binds);
    start(&engine, "second", r#""UsernsMode":"auto:size=2000""#);
    let (a, b) = (range(&engine, "first"), range(&engine, "second"));
    assert_eq!((a.1, b.1), (65_536, 2000));
    assert!(a.0 + a.1 <= b.0 || b.0 + b.1 <= a.0, "{a:?} {b:?}");
    let script = "stat -c '%n %u' / /bin/busybox /etc/passwd /etc/hosts /dev/null /secret; cat /secret; \
                  touch /mapped/file && echo made > /made && echo more >> /etc/passwd && echo x > /dev/null && echo wrote; \
                  ls /sys/class/net; grep -E 'Seccomp:|CapEff' /proc/self/status; mknod /x c 1 3; id -u";
    let seen = engine.docker(&["exec", "first", "sh", "-c", script]);
    for line in [
        "/ 0\n/bin/busybox 0\n/etc/passwd 0\n/etc/hosts 0\n/dev/null 0\n/secret 65534",
        "wrote\neth0\nlo\n",
        "CapEff:\t00000000a80425fb\nSeccomp:\t2",
    ] {
        assert!(seen.out.contains(line), "{line}: {seen:?}");
    }
    assert!(
        seen.err.contains("can't open '/secret': Permission denied"),
        "{seen:?}"
    );
    assert!(
        seen.err.contains("mknod: /x: Operation not permitted"),
        "{seen:?}"
    );
    // From outside: the process is nobody of the host's, its files are root's in the volume.
    let pid = engine
        .docker(&["inspect", "-f", "{{.State.Pid}}", "first"])
        .ok();
    let process = fs::metadata(format!("/proc/{pid}")).unwrap();
    assert_eq!(process.uid(), a.0);
    assert_eq!(fs::metadata(mapped.join("file")).unwrap().uid(), 0);
    let volume = ["volume", "inspect", "-f", "{{.Mountpoint}}", "data"];
    let volume = engine.docker(&volume).ok();
    assert_eq!(fs::metadata(format!("{volume}/passwd")).unwrap().uid(), 0);

    // Containers that share namespaces share the numbers; one on the bridge reaches the other.
    start(
        &engine,
        "third",
        r#""UsernsMode":"private","NetworkMode":"container:first","PidMode":"container:first""#,
    );
    assert_eq!(range(&engine, "third"), a);
    let ps = engine.docker(&["exec", "third", "ps"]).ok();
    assert!(ps.matches("sleep 600").count() == 2, "{ps}");
    engine
        .docker(&[
            "exec", "-d", "first", "nc", "-l", "-p", "80", "-e", "echo", "heard",
        ])
        .ok();
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = engine.docker(&["inspect", "-f", address, "first"]).ok();
    let call = format!("until nc {address} 80 </dev/null; do sleep 0.1; done");
    let heard = engine.docker(&["exec", "second", "timeout", "10", "sh", "-c", &call]);
    assert_eq!(heard.ok(), "heard");

    // A range is kept over restarts of daemon and container, and free again afterwards.
    engine.kill9();
    engine.boot();
    engine.docker(&["restart", "-t", "0", "second"]).ok();
    assert_eq!(range(&engine, "second"), b);
    engine.docker(&["rm", "-f", "second"]).ok();
    start(&engine, "fourth", r#""UsernsMode":"auto:size=2000""#);
    assert_eq!(range(&engine, "fourth"), b);

    let private = |more: &str| format!(r#""UsernsMode":"private",{more}"#);
    refused(
        &engine,
        &private(r#""Privileged":true"#),
        400,
        "privileged mode is incompatible with user namespaces",
    );
    refused(
        &engine,
        &private(r#""NetworkMode":"host""#),
        400,
        "cannot share the host's network namespace",
    );
    refused(
        &engine,
        &private(r#""PidMode":"host""#),
        400,
        "cannot share the host PID namespace",
    );
    refused(
        &engine,
        r#""Binds":["/tmp:/tmp:idmap"]"#,
        400,
        "invalid mode: idmap: the container has the host's users",
    );
    refused(
        &engine,
        r#""UsernsMode":"keep-id""#,
        400,
        "invalid user namespace mode: keep-id",
    );
    engine.finish();
}

#[test]
fn everybody_remapped() {
    let engine = Engine::with(Options {
        args: vec!["--userns-remap".into(), "nobody".into()],
        files: vec![
            ("/etc/subuid", "nobody:700000:65536\n".into()),
            ("/etc/subgid", "nobody:800000:65536\n".into()),
        ],
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    let info = engine.docker(&["info", "-f", "{{.SecurityOptions}}"]).ok();
    assert!(info.contains("name=userns"), "{info}");
    let dir = engine.dir().join("bound");
    fs::create_dir(&dir).unwrap();
    let bind = format!("{}:/bound", dir.display());
    let script = "cat /proc/self/uid_map /proc/self/gid_map; touch /vol/mine && stat -c %u /vol/mine; touch /bound/x; \
                  cat /proc/sys/net/ipv4/ip_unprivileged_port_start; id; sysctl -n net.ipv4.ip_forward; cat /proc/sys/kernel/domainname";
    let options = [
        "-v",
        "named:/vol",
        "-v",
        &bind,
        "-u",
        "www",
        "--group-add",
        "0",
        "--domainname",
        "example.org",
        "--sysctl",
        "net.ipv4.ip_forward=1",
        "--tmpfs",
        "/t",
        "--shm-size",
        "1m",
        "--ulimit",
        "core=5:5",
    ];
    let seen = sh(&engine, &options, script);
    assert!(seen.out.contains("0     700000      65536\n"), "{seen:?}");
    assert!(seen.out.contains("0     800000      65536\n"), "{seen:?}");
    assert!(
        seen.err.contains("touch: /bound/x: Permission denied"),
        "{seen:?}"
    );
    assert!(
        seen.out
            .contains("uid=33(www) gid=33(www) groups=0(root),33(www),44(extra)\n1\nexample.org"),
        "{seen:?}"
    );
    let own = sh(
        &engine,
        &["-v", "named:/vol"],
        "touch /vol/mine; stat -c %u /vol/mine; echo $$",
    );
    assert_eq!(own.ok(), "0\n1");
    let host = sh(
        &engine,
        &["--userns", "host", "-v", &bind],
        "cat /proc/self/uid_map; touch /bound/y",
    );
    assert!(host.ok().contains("4294967295"));
    sh(&engine, &["--privileged"], "true").fails(125, "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode");
    let script = "true";
    let line = ["run", "--rm", "--network", "host", "busybox", script];
    engine.docker(&line).fails(
        125,
        "cannot share the host's network namespace when user namespaces are enabled",
    );
    sh(&engine, &["--pid", "host"], "true").fails(
        125,
        "cannot share the host PID namespace when user namespaces are enabled",
    );
    sh(&engine, &["--runtime", "runc"], "true").fails(
        125,
        "user namespaces are not supported with the runtime runc",
    );
    engine.finish();
}
