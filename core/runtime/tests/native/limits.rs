//! Mounts, limits and settings of the kernel.

use gantry_runtime::spec::{MountInput, TmpfsInput, Ulimit};

use crate::common::*;

#[tokio::test]
async fn mounts_limits_and_settings() {
    let bed = Bed::new("mounts").await;
    let host = bed.dir.path().join("shared");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), "from the host").unwrap();
    let script = "cat /data/file; echo new >/data/new; (echo x >/ro/file) 2>/dev/null || echo read-only; \
                  cat /etc/one; echo; (echo x >/rootfile) 2>/dev/null || echo root-read-only; echo y >/t/y && echo t; \
                  cat /proc/sys/net/ipv4/ip_forward; ulimit -n; cat /proc/self/oom_score_adj; \
                  grep ' /t ' /proc/mounts; ls /sys/firmware | wc -l; echo 1 2>/dev/null >/proc/sys/kernel/pid_max || echo locked";
    let out = bed
        .script(script, |i| {
            let mut ro = MountInput::bind(&host, "/ro");
            ro.read_only = true;
            i.mounts = vec![
                MountInput::bind(host.join("file"), "/etc/one"),
                ro,
                MountInput::bind(&host, "/data"),
            ];
            i.tmpfs = vec![TmpfsInput {
                target: "/t".into(),
                options: vec!["size=1m".into(), "exec".into()],
            }];
            i.readonly_root = true;
            i.sysctls.insert("net.ipv4.ip_forward".into(), "1".into());
            i.ulimits = vec![Ulimit {
                name: "nofile".into(),
                soft: 100,
                hard: 200,
            }];
            i.oom_score_adj = 500;
        })
        .await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines[..3],
        ["from the hostread-only", "from the host", "root-read-only"],
        "{out}"
    );
    assert_eq!(lines[3..7], ["t", "1", "100", "500"], "{out}");
    assert!(
        lines[7].contains("nosuid,nodev")
            && !lines[7].contains("noexec")
            && lines[7].contains("size=1024k"),
        "{out}"
    );
    assert_eq!(lines[8..], ["0", "locked"], "{out}");
    assert_eq!(std::fs::read_to_string(host.join("new")).unwrap(), "new\n");
    bed.assert_clean();
}

#[tokio::test]
async fn a_link_in_the_image_leads_no_mount_outside() {
    let bed = Bed::new("links").await;
    let outside = bed.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, bed.dir.path().join("lower/evil")).unwrap();
    let host = bed.dir.path().join("shared");
    std::fs::create_dir(&host).unwrap();
    let input = {
        let mut input = bed.shell("touch /evil/deep/file; true");
        input.mounts = vec![MountInput::bind(&host, "/evil/deep")];
        input
    };
    let (_, status) = bed.run(&input).await;
    assert_eq!(status.code, 0);
    assert!(host.join("file").exists());
    assert!(!outside.join("deep").exists());
    bed.assert_clean();
}

#[tokio::test]
async fn limits_are_in_the_cgroup() {
    let bed = Bed::new("limits").await;
    let mut input = bed.shell("sleep 1000");
    input.resources.memory = Some(64 << 20);
    input.resources.pids_limit = Some(50);
    input.resources.cpu_shares = Some(512);
    let process = bed.create(&input).await.unwrap();
    process.start().await.unwrap();
    let stats = process.stats().await.unwrap();
    assert_eq!((stats.memory.limit, stats.pids.limit), (64 << 20, Some(50)));
    let update = gantry_runtime::spec::Resources {
        memory: Some(128 << 20),
        memory_swap: Some(256 << 20),
        pids_limit: Some(-1),
        ..Default::default()
    };
    drop(process.update(&update).await.unwrap());
    let stats = process.stats().await.unwrap();
    assert_eq!((stats.memory.limit, stats.pids.limit), (128 << 20, None));
    process.pause().await.unwrap();
    assert!(process.is_paused().await.unwrap());
    process.unpause().await.unwrap();
    assert!(!process.is_paused().await.unwrap());
    process.pause().await.unwrap();
    // A paused one can be removed.
    process.delete().await.unwrap();
    assert_eq!(within(process.wait()).await.unwrap().code, 137);
    bed.assert_clean();
}

#[tokio::test]
async fn the_out_of_memory_killer_is_told_of() {
    let bed = Bed::new("oom").await;
    let mut input = bed.shell("exec dd if=/dev/zero of=/dev/null bs=200M count=1");
    input.resources.memory = Some(32 << 20);
    input.resources.memory_swap = Some(32 << 20);
    let (_, status) = bed.run(&input).await;
    assert_eq!((status.code, status.oom), (137, true));
    bed.assert_clean();
}
