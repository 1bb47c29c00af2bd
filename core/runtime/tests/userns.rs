//! Containers in user namespaces that were made before them, and what older runtimes are known to lose there.

mod common;

use std::os::unix::fs::MetadataExt;

use common::*;
use gantry_runtime::UserNs;

#[tokio::test(flavor = "multi_thread")]
async fn execs_join_it_filtered_and_without_the_hosts_rights() {
    let bed = Bed::new("userns").await;
    let maps = UserNs::range(3_000_000, 65_536);
    let made = bed.runtime.make_namespaces(&maps).await.unwrap();
    let mut input = bed.shell("exec sleep 1000");
    input.userns = Some(maps);
    input
        .sysctls
        .insert("net.ipv4.ip_forward".into(), "1".into());
    let mut request = bed.request(&input);
    request.userns = Some(made.user);
    request.netns = Some(made.network);
    let process = bed.runtime.create(request).await.unwrap();
    process.start().await.unwrap();
    let script = "cat /proc/self/uid_map; stat -c %u /bin/busybox; touch /made; \
                  cat /proc/sys/net/ipv4/ip_forward; grep -E 'Seccomp:|NoNewPrivs|CapEff' /proc/self/status";
    let (out, err, code) = exec(&process, exec_request(&["sh", "-c", script])).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let lines: Vec<&str> = out.lines().map(str::trim).collect();
    let map: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(map, ["0", "3000000", "65536"]);
    assert_eq!(lines[1..3], ["0", "1"]);
    for line in ["NoNewPrivs:\t0", "Seccomp:\t2", "CapEff:\t00000000a80425fb"] {
        assert!(lines.contains(&line), "{line}: {out}");
    }
    let upper = bed.dir.path().join(input.id.short()).join("upper/made");
    assert_eq!(std::fs::metadata(upper).unwrap().uid(), 0);

    // A network of its own in the namespace of another.
    let user = format!("/proc/{}/ns/user", process.pid());
    let user = std::fs::File::open(user).unwrap().into();
    let network = bed.runtime.make_network_in(&user).await.unwrap();
    let mut second = bed.shell("ls /sys/class/net; cat /proc/self/uid_map");
    second.userns.clone_from(&input.userns);
    let mut request = bed.request(&second);
    request.userns = Some(user);
    request.netns = Some(network);
    let (out, status) = bed.run_request(request).await;
    assert!(status.code == 0 && out.starts_with("lo\n"), "{out}");
    assert!(out.contains("3000000"), "{out}");
    process.delete().await.unwrap();
    bed.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn maps_that_the_kernel_refuses_are_told() {
    let bed = Bed::new("maps").await;
    let none = UserNs::default();
    assert!(bed.runtime.make_namespaces(&none).await.is_err());
    let mut input = bed.shell("true");
    input.userns = Some(UserNs::range(3_000_000, 65_536));
    let made = bed
        .runtime
        .make_namespaces(input.userns.as_ref().unwrap())
        .await
        .unwrap();
    let mut request = bed.request(&input);
    request.runtime = Some("runc".into());
    request.userns = Some(made.user);
    let error = bed.runtime.create(request).await.unwrap_err();
    assert!(error.to_string().contains("user namespaces"), "{error}");
    bed.assert_clean();
}
