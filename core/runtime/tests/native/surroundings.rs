//! What a process finds around it: users, capabilities, system call filter, devices, namespaces.

use gantry_runtime::spec::{DeviceInput, NamespaceMode, SeccompChoice, ShmInput};

use crate::common::*;

#[tokio::test]
async fn dockers_surroundings() {
    let bed = Bed::new("defaults").await;
    let script = "hostname; pwd; env; id; cat /proc/self/status; ls /dev; cat /proc/mounts; ls -l /dev/fd /dev/ptmx; \
         cat /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /proc/self/cgroup";
    let mut input = bed.shell(script);
    input.env = vec!["A=1".into(), "B=2".into(), "B=3".into()];
    input.cwd = "/made/here".into();
    let (out, status) = bed.run(&input).await;
    assert_eq!(status.code, 0, "{out}");
    let has = |text: &str| assert!(out.contains(text), "no {text:?} in {out}");
    assert!(
        out.starts_with(&format!("{}\n/made/here\n", input.id.short())),
        "{out}"
    );
    has("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n");
    has(&format!("HOSTNAME={}\n", input.id.short()));
    has("HOME=/root\n");
    has("B=3\n");
    has("uid=0(root) gid=0(root) groups=0(root),10(wheel)\n");
    has("CapEff:\t00000000a80425fb\n");
    has("CapBnd:\t00000000a80425fb\n");
    has("CapInh:\t0000000000000000\n");
    has("NoNewPrivs:\t0\n");
    has("Seccomp:\t2\n");
    has("Seccomp_filters:\t1\n");
    for device in [
        "null", "zero", "full", "random", "urandom", "tty", "ptmx", "shm", "mqueue",
    ] {
        has(&format!("{device}\n"));
    }
    has(" /proc proc rw,nosuid,nodev,noexec");
    has(" /sys sysfs ro,nosuid,nodev,noexec");
    has(" /dev tmpfs rw,nosuid,size=65536k,mode=755");
    has(" /dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k");
    has(" /sys/fs/cgroup");
    has("/proc/self/fd\n");
    has("pts/ptmx\n");
    bed.assert_clean();
}

#[tokio::test]
async fn users_are_found_inside() {
    let bed = Bed::new("users").await;
    let script = "id; cd; pwd; grep CapEff /proc/self/status";
    let out = bed
        .script(script, |i| {
            i.user = "user".into();
            i.additional_groups = vec!["extra".into(), "4242".into()];
        })
        .await;
    assert!(out.contains("uid=1000(user) gid=1001(user)"), "{out}");
    for group in ["29(audio)", "77(extra)", "4242"] {
        assert!(out.contains(group), "{out}");
    }
    assert!(out.contains("CapEff:\t0000000000000000"), "{out}");
    let out = bed.script("id", |i| i.user = "5:29".into()).await;
    assert!(out.starts_with("uid=5 gid=29(audio)"), "{out}");
    let mut input = bed.shell("true");
    input.user = "stranger".into();
    let error = bed.create(&input).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "unable to find user stranger: no matching entries in passwd file"
    );
    bed.assert_clean();
}

#[tokio::test]
async fn seccomp_choices() {
    let bed = Bed::new("seccomp").await;
    let show = "grep -E 'Seccomp:|NoNewPrivs' /proc/self/status";
    let out = bed
        .script(show, |i| i.seccomp = SeccompChoice::Unconfined)
        .await;
    assert_eq!(out, "NoNewPrivs:\t0\nSeccomp:\t0\n");
    // A filter does not need no_new_privs, whoever the user is.
    let out = bed.script(show, |i| i.user = "user".into()).await;
    assert_eq!(out, "NoNewPrivs:\t0\nSeccomp:\t2\n");
    let out = bed
        .script(show, |i| {
            i.no_new_privileges = true;
            i.user = "user".into();
        })
        .await;
    assert_eq!(out, "NoNewPrivs:\t1\nSeccomp:\t2\n");
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#;
    let out = bed
        .script("mkdir /x 2>&1 || true", |i| {
            i.seccomp = SeccompChoice::Profile(profile.into());
        })
        .await;
    assert!(out.contains("not supported"), "{out}");
    let mut input = bed.shell("true");
    input.seccomp = SeccompChoice::Profile(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#.into());
    assert!(bed.runtime.build_spec(&input).is_err());
    let out = bed.script(show, |i| i.privileged = true).await;
    assert_eq!(out, "NoNewPrivs:\t0\nSeccomp:\t0\n");
    bed.assert_clean();
}

#[tokio::test]
async fn devices_are_limited() {
    let bed = Bed::new("devices").await;
    // Nodes may be made, but only allowed ones opened: the kernel's log is not, unless given. (To write to it takes no
    // capability.)
    let script = "mknod /tmp/log c 1 11 && { true >/tmp/log; } 2>/dev/null && echo open || echo refused; \
                  head -c1 /dev/zero | wc -c; echo x >/dev/null && echo ok";
    let out = bed.script(script, |_| {}).await;
    assert_eq!(out, "refused\n1\nok\n");
    let out = bed
        .script(script, |i| i.device_cgroup_rules = vec!["c 1:11 w".into()])
        .await;
    assert_eq!(out, "open\n1\nok\n");
    let out = bed
        .script("ls -l /dev/given; head -c1 /dev/given | wc -c", |i| {
            i.devices = vec![DeviceInput {
                path_on_host: "/dev/zero".into(),
                path_in_container: "/dev/given".into(),
                permissions: "r".into(),
            }];
        })
        .await;
    assert!(out.contains("1,   5") && out.ends_with("\n1\n"), "{out}");
    bed.assert_clean();
}

#[tokio::test]
async fn namespaces_are_joined() {
    let bed = Bed::new("join").await;
    let process = bed.create(&bed.shell("sleep 1000")).await.unwrap();
    process.start().await.unwrap();
    let pid = process.pid();
    let ns = |kind: &str| NamespaceMode::Join(format!("/proc/{pid}/ns/{kind}").into());
    let links =
        "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; ps | grep -c 'sleep 1000' ";
    let out = bed
        .script(links, |i| {
            i.namespaces.network = ns("net");
            i.namespaces.ipc = ns("ipc");
            i.namespaces.pid = ns("pid");
        })
        .await;
    let link = |kind: &str| {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        format!("{}\n", link.display())
    };
    assert!(out.starts_with(&(link("net") + &link("ipc"))), "{out}");
    // A descriptor goes before what the specification says.
    let netns = process.netns().await.unwrap();
    let mut request = bed.request(&bed.shell("readlink /proc/self/ns/net"));
    request.netns = Some(netns);
    let (out, _) = bed.run_request(request).await;
    assert_eq!(out, link("net"));
    let out = bed.script("readlink /proc/self/ns/net", host_network).await;
    assert_ne!(out, link("net"));
    // The other's /dev/shm, as it is seen through its root.
    let (_, err, code) = exec(&process, exec_request(&["touch", "/dev/shm/theirs"])).await;
    assert_eq!((err.as_str(), code), ("", 0));
    let shm = ShmInput::Bind(format!("/proc/{pid}/root/dev/shm").into());
    let out = bed.script("ls /dev/shm", |i| i.shm = shm).await;
    assert_eq!(out, "theirs\n");
    process.delete().await.unwrap();
    bed.assert_clean();
}
