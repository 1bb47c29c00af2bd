//! Command lines and the bodies that Docker's client 28 makes of them.

use clap::{Args, Command, FromArgMatches};
use serde_json::{Value, json};

use super::*;

#[derive(Args, Debug)]
struct Line {
    #[command(flatten)]
    flags: ContainerFlags,
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

fn body(args: &[&str]) -> Result<Value> {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let usage = crate::argv::Usage {
        path: "docker create".into(),
        arguments: String::new(),
        about: "",
        aliases: Vec::new(),
        commands: String::new(),
        options_heading: "Options",
        after: String::new(),
    };
    let mut matches =
        crate::argv::parse(Line::augment_args(Command::new("create")), &usage, &args)?;
    let line = Line::from_arg_matches_mut(&mut matches)?;
    let body = create_request(&line.flags, &line.command[0], &line.command[1..])?;
    Ok(serde_json::to_value(body)?)
}

/// The members at `pointer` of what a line without quoting makes.
fn part(line: &str, pointer: &str) -> Value {
    let args: Vec<&str> = line.split(' ').collect();
    body(&args)
        .unwrap()
        .pointer(pointer)
        .cloned()
        .unwrap_or(Value::Null)
}

/// A value without the members that say nothing, which the API reads as if they were not there.
fn said(value: Value) -> Value {
    let silent = |value: &Value| {
        [
            json!(null),
            json!(""),
            json!(0),
            json!(false),
            json!([]),
            json!({}),
            json!([0, 0]),
        ]
        .contains(value)
    };
    match value {
        Value::Object(members) => members
            .into_iter()
            .map(|(name, member)| (name, said(member)))
            .filter(|(_, member)| !silent(member))
            .collect(),
        other => other,
    }
}

#[test]
fn a_bare_image_asks_for_nothing_else() {
    assert_eq!(
        said(body(&["busybox"]).unwrap()),
        json!({
            "AttachStdout": true, "AttachStderr": true, "Image": "busybox",
            "HostConfig": {"NetworkMode": "default", "RestartPolicy": {"Name": "no"}},
        })
    );
}

#[test]
fn the_container_itself() {
    for (line, pointer, value) in [
        ("-it x sh -c true", "/Cmd", json!(["sh", "-c", "true"])),
        ("-it x", "/StdinOnce", json!(true)),
        ("-a stdin -a STDOUT -i x", "/AttachStderr", json!(false)),
        ("--entrypoint /bin/x x a", "/Entrypoint", json!(["/bin/x"])),
        ("--entrypoint= x a", "/Entrypoint", json!([""])),
        ("-e A=1 -e B= x", "/Env", json!(["A=1", "B="])),
        ("-l a=b -l c x", "/Labels", json!({"a": "b", "c": ""})),
        ("-h h --domainname d x", "/Domainname", json!("d")),
        ("-u 1000:1000 -w /app x", "/User", json!("1000:1000")),
        ("--stop-timeout 0 x", "/StopTimeout", json!(0)),
        ("--stop-signal INT x", "/StopSignal", json!("INT")),
        ("-v /data x", "/Volumes", json!({"/data": {}})),
        (
            "--expose 80-81/udp x",
            "/ExposedPorts",
            json!({"80/udp": {}, "81/udp": {}}),
        ),
        ("-p 8080:80 x", "/ExposedPorts", json!({"80/tcp": {}})),
        (
            "--no-healthcheck x",
            "/Healthcheck",
            json!({"Test": ["NONE"]}),
        ),
        (
            "--health-cmd true --health-interval 5s --health-retries 3 x",
            "/Healthcheck",
            json!({"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000_i64, "Retries": 3}),
        ),
        (
            "--health-http http://:80/up --health-timeout 1s x",
            "/Healthcheck",
            json!({"Test": ["HTTP", "http://:80/up"], "Timeout": 1_000_000_000_i64}),
        ),
        (
            "--health-tcp 5432 x",
            "/Healthcheck",
            json!({"Test": ["TCP", "5432"]}),
        ),
    ] {
        assert_eq!(part(line, pointer), value, "{line}");
    }
}

#[test]
fn what_the_host_does() {
    for (line, pointer, value) in [
        (
            "-v v:/v:ro -v /a:/b x",
            "/Binds",
            json!(["v:/v:ro", "/a:/b"]),
        ),
        (
            "--tmpfs /run:size=1m --tmpfs /x x",
            "/Tmpfs",
            json!({"/run": "size=1m", "/x": ""}),
        ),
        ("--rm x", "/AutoRemove", json!(true)),
        (
            "--restart on-failure:3 x",
            "/RestartPolicy",
            json!({"Name": "on-failure", "MaximumRetryCount": 3}),
        ),
        (
            "--restart-unhealthy x",
            "/RestartPolicy",
            json!({"Name": "on-failure", "MaximumRetryCount": 0, "Unhealthy": true}),
        ),
        (
            "--requires db,cache:healthy --requires mail x",
            "/Requires",
            json!(["db", "cache:healthy", "mail"]),
        ),
        (
            "--cap-add net_admin --cap-drop ALL x",
            "/CapAdd",
            json!(["CAP_NET_ADMIN"]),
        ),
        (
            "--cap-drop ALL --cap-drop MKNOD x",
            "/CapDrop",
            json!(["ALL"]),
        ),
        (
            "--cap-add SYS_TIME --cap-drop CAP_SYS_TIME x",
            "/CapDrop",
            Value::Null,
        ),
        ("--init=false x", "/Init", json!(false)),
        ("--init x", "/Init", json!(true)),
        ("x", "/Init", Value::Null),
        (
            "--sysctl net.core.somaxconn=5 x",
            "/Sysctls",
            json!({"net.core.somaxconn": "5"}),
        ),
        (
            "--log-driver syslog --log-opt tag=a x",
            "/LogConfig",
            json!({"Type": "syslog", "Config": {"tag": "a"}}),
        ),
        ("--add-host a=::1 x", "/ExtraHosts", json!(["a:::1"])),
        (
            "--dns 1.1.1.1 --dns-opt ndots:1 x",
            "/DnsOptions",
            json!(["ndots:1"]),
        ),
        ("--pid container:web x", "/PidMode", json!("container:web")),
        ("--uts host --ipc host x", "/UTSMode", json!("host")),
        (
            "--security-opt systempaths=unconfined x",
            "/MaskedPaths",
            json!([]),
        ),
        (
            "--security-opt systempaths=unconfined x",
            "/SecurityOpt",
            Value::Null,
        ),
        (
            "--security-opt no-new-privileges --security-opt label:disable x",
            "/SecurityOpt",
            json!(["no-new-privileges", "label:disable"]),
        ),
        (
            "--storage-opt size=5G x",
            "/StorageOpt",
            json!({"size": "5G"}),
        ),
        (
            "-p 127.0.0.1::53/udp x",
            "/PortBindings",
            json!({"53/udp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}),
        ),
        ("-P x", "/PublishAllPorts", json!(true)),
        (
            "--mount type=tmpfs,dst=/t x",
            "/Mounts",
            json!([{"Type": "tmpfs", "Target": "/t"}]),
        ),
        (
            "--network container:web x",
            "/NetworkMode",
            json!("container:web"),
        ),
        ("--net host x", "/NetworkMode", json!("host")),
        ("--cidfile id x", "/ContainerIDFile", json!("id")),
        ("--runtime crun x", "/Runtime", json!("crun")),
    ] {
        assert_eq!(
            part(line, &format!("/HostConfig{pointer}")),
            value,
            "{line}"
        );
    }
}

#[test]
fn limits() {
    for (line, name, value) in [
        ("-m 64m x", "Memory", json!(64 << 20)),
        ("-m 64m --memory-swap -1 x", "MemorySwap", json!(-1)),
        (
            "--memory-reservation 1g x",
            "MemoryReservation",
            json!(1 << 30),
        ),
        ("--memory-swappiness 0 x", "MemorySwappiness", json!(0)),
        ("--shm-size 1k x", "ShmSize", json!(1024)),
        ("--cpus 1.5 x", "NanoCpus", json!(1_500_000_000)),
        ("-c 512 x", "CpuShares", json!(512)),
        ("--cpu-rt-runtime 6 x", "CpuRealtimeRuntime", json!(6)),
        ("--cpuset-cpus 0-1 x", "CpusetCpus", json!("0-1")),
        ("--pids-limit -1 x", "PidsLimit", json!(-1)),
        ("--oom-score-adj -500 x", "OomScoreAdj", json!(-500)),
        ("--oom-kill-disable x", "OomKillDisable", json!(true)),
        (
            "--blkio-weight-device /dev/sda:200 x",
            "BlkioWeightDevice",
            json!([{"Path": "/dev/sda", "Weight": 200}]),
        ),
        (
            "--device-write-iops /dev/sda:20 x",
            "BlkioDeviceWriteIOps",
            json!([{"Path": "/dev/sda", "Rate": 20}]),
        ),
        (
            "--device-read-bps /dev/sda:1mb x",
            "BlkioDeviceReadBps",
            json!([{"Path": "/dev/sda", "Rate": 1 << 20}]),
        ),
        (
            "--ulimit nproc=5 --ulimit nofile=10:20 --ulimit nproc=6 x",
            "Ulimits",
            json!([{"Name": "nofile", "Soft": 10, "Hard": 20}, {"Name": "nproc", "Soft": 6, "Hard": 6}]),
        ),
        (
            "--device /dev/fuse:r x",
            "Devices",
            json!([{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "r"}]),
        ),
        (
            "--gpus all x",
            "DeviceRequests",
            json!([{"Driver": "", "Count": -1, "DeviceIDs": null, "Capabilities": [["gpu"]], "Options": {}}]),
        ),
    ] {
        assert_eq!(part(line, &format!("/HostConfig/{name}")), value, "{line}");
    }
}

#[test]
fn endpoints_are_described() {
    for (line, endpoints) in [
        ("--network net x", json!({})),
        (
            "--network net --network-alias a --ip 10.0.0.5 x",
            json!({"net": {"Aliases": ["a"], "IPAMConfig": {"IPv4Address": "10.0.0.5"}}}),
        ),
        (
            "--network net --link db:d x",
            json!({"net": {"Links": ["db:d"]}}),
        ),
        ("--link db:d x", json!({"default": {}})),
        (
            "--mac-address 92-D0-c6-0a-29-33 x",
            json!({"default": {"MacAddress": "92:d0:c6:0a:29:33"}}),
        ),
        (
            "--network name=a,alias=x,gw-priority=5 --network b x",
            json!({"a": {"Aliases": ["x"], "GwPriority": 5}, "b": {}}),
        ),
    ] {
        assert_eq!(
            said(part(line, "/NetworkingConfig/EndpointsConfig")),
            said(endpoints),
            "{line}"
        );
    }
}

#[test]
fn files_are_read_here() {
    let profile = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        &profile,
        "{ \"defaultAction\": \"SCMP_ACT_ALLOW\",\n \"x\": [1, 2] }",
    )
    .unwrap();
    let line = format!("--security-opt seccomp={} x", profile.path().display());
    let sent = json!([r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW","x":[1,2]}"#]);
    assert_eq!(part(&line, "/HostConfig/SecurityOpt"), sent);
    assert_eq!(
        body(&["--security-opt", "seccomp=/no/such", "x"])
            .unwrap_err()
            .to_string(),
        "opening seccomp profile (/no/such) failed: open /no/such: no such file or directory"
    );
}

#[test]
fn contradictions_are_refused_in_dockers_words() {
    for (line, error) in [
        (
            "--restart always --rm x",
            "conflicting options: cannot specify both --restart and --rm",
        ),
        (
            "--restart no --restart-unhealthy x",
            "conflicting options: --restart-unhealthy needs a policy that restarts",
        ),
        (
            "--restart-unhealthy --rm x",
            "conflicting options: cannot specify both --restart and --rm",
        ),
        (
            "--health-cmd true --health-tcp 1 x",
            "conflicting options: --health-cmd, --health-http and --health-tcp",
        ),
        (
            "--network host --network net x",
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ),
        (
            "--network a --network a x",
            "network \"a\" is specified multiple times",
        ),
        (
            "--network host --network-alias a x",
            "network-scoped aliases are only supported for user-defined networks",
        ),
        (
            "--network name=a,ip=1.1.1.1 --ip 1.1.1.2 x",
            "conflicting options: cannot specify both --ip and per-network IPv4 address",
        ),
        ("--pid foo x", "--pid: invalid PID mode"),
        (
            "--log-driver none --log-opt a=b x",
            "invalid logging opts for driver none",
        ),
        (
            "--no-healthcheck --health-retries 3 x",
            "--no-healthcheck conflicts with --health-* options",
        ),
        (
            "--health-interval -5s x",
            "--health-interval cannot be negative",
        ),
        (
            "--memory-swappiness 101 x",
            "invalid value: 101. Valid memory swappiness range is 0-100",
        ),
        ("--security-opt foo x", "Invalid --security-opt: \"foo\""),
        ("--storage-opt size x", "invalid storage option"),
        ("--mac-address foo x", "foo is not a valid mac address"),
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        assert_eq!(body(&args).unwrap_err().to_string(), error, "{line}");
    }
}
