//! Edges of a container's life that clients and scripts lean on: filters of lists, starts that fail, signs and sizes.

use gantry_e2e::Engine;

/// The names that `docker ps --all` shows with filters, sorted.
fn shown(engine: &Engine, filters: &[&str]) -> String {
    let mut line = vec!["ps", "--all", "--format", "{{.Names}}"];
    line.extend(filters.iter().flat_map(|filter| ["--filter", filter]));
    let out = engine.docker(&line).ok();
    let mut names: Vec<&str> = out.lines().collect();
    names.sort_unstable();
    names.join(" ")
}

#[test]
fn filters_of_ps() {
    let engine = Engine::start();
    let docker = |line: &str| engine.docker(&line.split(' ').collect::<Vec<_>>());
    docker("network create net1").ok();
    docker("create --name one --label k=v --label z busybox true").ok();
    docker(
        "run --detach --name two --label k=w --network net1 --volume vol1:/data --volume /tmp:/host \
         --publish 127.0.0.1::80 --publish 127.0.0.1::81/udp --expose 90 busybox sleep 1000",
    )
    .ok();
    let three = engine.docker(&["run", "--name", "three", "busybox", "sh", "-c", "exit 3"]);
    assert_eq!(three.code, 3, "{}", three.err);
    docker("commit three child").ok();
    docker("run --name four child true").ok();
    docker("run --detach --name five --health-cmd true busybox sleep 1000").ok();
    docker("pause five").ok();
    let all = "five four one three two";
    let public = |port: &str| {
        let out = engine.docker(&["port", "two", port]).ok();
        let (_, port) = out.rsplit_once(':').expect("an address and a port");
        port.to_owned()
    };
    let (tcp, udp) = (public("80"), public("81/udp"));
    let network = docker("network inspect --format {{.Id}} net1").ok();
    let image = docker("images --quiet busybox").ok();
    for (filter, want) in [
        ("name=one", "one"),
        ("name=^/one$", "one"),
        ("name=^one$", "one"),
        ("name=^t(wo|hree)$", "three two"),
        ("name=o[nx]e", "one"),
        ("name=[", ""),
        ("id=nope", ""),
        ("label=k", "one two"),
        ("label=k=v", "one"),
        ("label=none", ""),
        ("status=running", "two"),
        ("status=created", "one"),
        ("status=exited", "four three"),
        ("status=paused", "five"),
        ("exited=3", "three"),
        ("exited=0", "four"),
        ("health=none", "four one three two"),
        ("ancestor=busybox", all),
        ("ancestor=child", "four"),
        ("ancestor=nope", ""),
        (&format!("ancestor={image}"), all),
        ("before=three", "one two"),
        ("since=three", "five four"),
        ("network=net1", "two"),
        (&format!("network={network}"), "two"),
        ("network=nope", ""),
        ("volume=vol1", "two"),
        ("volume=/data", "two"),
        ("volume=/tmp", "two"),
        ("volume=nope", ""),
        (&format!("publish={tcp}"), "two"),
        (&format!("publish={tcp}/tcp"), "two"),
        (&format!("publish={udp}/udp"), "two"),
        (&format!("publish={udp}/sctp"), ""),
        ("publish=80", ""),
        ("publish=1024-65535", "two"),
        ("expose=90", "two"),
        ("expose=80-95/tcp", "two"),
        ("expose=91", ""),
        ("is-task=true", ""),
        ("is-task=false", all),
    ] {
        assert_eq!(shown(&engine, &[filter]), want, "{filter}");
    }
    assert_eq!(shown(&engine, &["label=k", "label=z"]), "one");
    assert_eq!(shown(&engine, &["label=k=v", "label=k=w"]), "");
    assert_eq!(
        shown(&engine, &["status=created", "status=paused"]),
        "five one"
    );
    assert_eq!(docker("ps --last 2 --format {{.Names}}").ok(), "five\nfour");
    for (filter, words) in [
        ("bla=x", "invalid filter 'bla'"),
        ("status=bla", "invalid value for filter: status=bla"),
        ("exited=x", "invalid filter 'exited=x'"),
        ("is-task=bla", "invalid filter 'is-task=[bla]'"),
        ("before=nope", "No such container: nope"),
        (
            "publish=x",
            r#"error while looking up for publish x: strconv.ParseUint: parsing "x": invalid syntax"#,
        ),
        ("expose=9-2", "invalid range specified for port: 9-2"),
        (
            "publish=1:2",
            "filter for 'publish' should not contain ':': 1:2",
        ),
    ] {
        docker(&format!("ps --filter {filter}")).fails(1, words);
    }
    docker("rm --force --volumes one two three four five").ok();
    docker("volume rm vol1").ok();
    docker("network rm net1").ok();
    engine.finish();
}

#[test]
fn starts_that_fail_and_names_that_are_none() {
    let engine = Engine::start();
    let docker = |line: &str| engine.docker(&line.split(' ').collect::<Vec<_>>());
    let not_found = r#"exec: "nope": executable file not found in $PATH: unknown"#;
    for run in ["run --rm", "run --rm --detach"] {
        let said = docker(&format!("{run} busybox nope")).fails(127, not_found);
        // The error, an empty line, and where help is.
        assert_eq!(said.lines().count(), 3, "{run}: {said}");
    }
    assert_eq!(shown(&engine, &[]), "", "a container stayed");
    docker("run --rm busybox /etc").fails(126, "is a directory");

    docker("run --name failed busybox nope").fails(127, not_found);
    let state = "inspect --format {{.State.Status}}/{{.State.ExitCode}} failed";
    assert_eq!(docker(state).ok(), "created/127");
    docker("start --attach failed").fails(1, not_found);
    // A wait that begins after the failure tells of it.
    let (status, answer) = engine.api("POST", "/containers/failed/wait", None);
    assert_eq!(status, 200);
    assert!(answer.contains("executable file not found"), "{answer}");

    docker("kill nope").fails(1, "cannot kill container: nope: No such container: nope");
    docker("kill failed").fails(1, "cannot kill container: failed: container ");
    docker("kill --signal 99 failed").fails(1, "invalid signal: 99");
    docker("rename failed failed").fails(1, "Renaming a container with the same name");
    docker("rename failed -x").fails(125, "unknown shorthand flag");
    docker("rename failed a/b").fails(
        1,
        "Error when allocating new name: Invalid container name (/a/b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
    );
    docker("create --name other busybox").ok();
    docker("rename failed other").fails(
        1,
        r#"Error when allocating new name: Conflict. The container name "/other" is already in use"#,
    );
    docker("run --tmpfs /x:bla busybox").fails(125, r#"invalid tmpfs option ["bla"]"#);

    let experimental = "only supported on a Docker daemon with experimental features enabled";
    docker("checkpoint create failed one").fails(1, experimental);
    let (status, answer) = engine.api("POST", "/containers/failed/start?checkpoint=one", None);
    assert_eq!(status, 400);
    assert!(
        answer.contains("checkpoint is only supported in experimental mode"),
        "{answer}"
    );
    engine.finish();
}

#[test]
fn containers_have_their_sign_and_their_size() {
    let engine = Engine::start();
    let docker = |line: &str| engine.docker(&line.split(' ').collect::<Vec<_>>());
    let sign = ["test", "-f", "/.dockerenv"];
    for options in [
        &[][..],
        &["--read-only"],
        &["--user", "65534"],
        &["--privileged"],
    ] {
        engine
            .docker(&[&["run", "--rm"], options, &["busybox"], &sign].concat())
            .ok();
    }
    docker("run --detach --name signed busybox sleep 1000").ok();
    assert_eq!(docker("diff signed").ok(), "");
    let sizes = || docker("inspect --size --format {{.SizeRw}}/{{.SizeRootFs}} signed").ok();
    let fresh = sizes();
    let (own, whole) = fresh.split_once('/').expect("two sizes");
    assert_eq!(own, "0", "{fresh}");
    engine
        .docker(&[
            "exec",
            "signed",
            "sh",
            "-c",
            "echo hello > /root/x; ln /root/x /root/y",
        ])
        .ok();
    let whole: u64 = whole.parse().expect("a size");
    assert_eq!(sizes(), format!("6/{}", whole + 6));
    docker("commit signed made").ok();
    assert_eq!(docker("diff signed").ok(), "C /root\nA /root/x\nA /root/y");
    let files = engine
        .client(
            "sh",
            &["-c", "docker export signed | tar --list | grep dockerenv"],
        )
        .ok();
    assert_eq!(files, ".dockerenv");
    // Made anew by each start, so no image has it.
    docker("create --name never-started made").ok();
    docker("cp never-started:/.dockerenv -").fails(1, "Could not find the file /.dockerenv");
    engine.finish();
}
