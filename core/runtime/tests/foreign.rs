//! The same containers by other OCI runtimes. Needs Debian's `runc` and `crun`.

mod common;

use common::*;
use gantry_runtime::spec::SeccompChoice;
use gantry_runtime::{Reconnected, RuntimeError, StartErrorKind};

const RUNTIMES: [&str; 2] = ["runc", "crun"];

/// crun refuses a host that has controllers both in v1 hierarchies and in the unified one. Where it is so, this thread
/// (and all that it starts) goes into a mount namespace without the latter.
fn without_unified() {
    let unified = "/sys/fs/cgroup/unified";
    if !std::path::Path::new(unified).exists() {
        return;
    }
    use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .unwrap();
    unmount(unified, UnmountFlags::DETACH).unwrap();
}

#[tokio::test]
async fn output_exit_codes_and_users() {
    without_unified();
    for name in RUNTIMES {
        let bed = Bed::new(name).await;
        let mut input = bed
            .shell("id; hostname; echo $HOME; grep -E 'Seccomp:|CapBnd' /proc/self/status; exit 4");
        input.user = "user:audio".into();
        let mut request = bed.request(&input);
        request.runtime = Some(name.into());
        let (out, status) = bed.run_request(request).await;
        assert_eq!(status.code, 4, "{name}: {out}");
        assert!(
            out.starts_with("uid=1000(user) gid=29(audio)"),
            "{name}: {out}"
        );
        let rest = format!(
            "\n{}\n/home/user\nCapBnd:\t00000000a80425fb\nSeccomp:\t2\n",
            input.id.short()
        );
        assert!(out.ends_with(&rest), "{name}: {out}");
        bed.assert_clean();
    }
}

#[tokio::test]
async fn life_with_execs_limits_and_a_second_engine() {
    without_unified();
    for name in RUNTIMES {
        let bed = Bed::new(&format!("life-{name}")).await;
        let mut input = bed.shell("echo up; sleep 1000");
        input.resources.pids_limit = Some(33);
        input.resources.memory = Some(64 << 20);
        let mut request = bed.request(&input);
        request.runtime = Some(name.into());
        let process = bed.runtime.create(request).await.unwrap();
        process.start().await.unwrap();
        let stats = process.stats().await.unwrap();
        assert_eq!(
            (stats.memory.limit, stats.pids.limit),
            (64 << 20, Some(33)),
            "{name}"
        );
        let mut request = exec_request(&[
            "sh",
            "-c",
            "echo $A; grep Seccomp: /proc/self/status; exit 6",
        ]);
        request.env = vec!["A=b".into()];
        let (out, err, code) = exec(&process, request).await;
        assert_eq!(
            (out.as_str(), code),
            ("b\nSeccomp:\t2\n", 6),
            "{name}: {err}"
        );
        drop(process);
        let other = bed.again().await;
        let Reconnected::Running(process) = other.reconnect(&input.id).await.unwrap() else {
            panic!("{name}: not found");
        };
        process.pause().await.unwrap();
        process.unpause().await.unwrap();
        process.signal(libc::SIGKILL).await.unwrap();
        let status = within(process.wait()).await.unwrap();
        assert_eq!((status.code, status.signal), (137, Some(9)), "{name}");
        process.delete().await.unwrap();
        bed.assert_clean();
    }
}

#[tokio::test]
async fn a_network_namespace_is_handed_on() {
    without_unified();
    for name in RUNTIMES {
        let bed = Bed::new(&format!("net-{name}")).await;
        let holder = bed.create(&bed.shell("sleep 1000")).await.unwrap();
        let link = std::fs::read_link(format!("/proc/{}/ns/net", holder.pid())).unwrap();
        let mut request = bed.request(&bed.shell("readlink /proc/self/ns/net"));
        request.netns = Some(holder.netns().await.unwrap());
        request.runtime = Some(name.into());
        let (out, _) = bed.run_request(request).await;
        assert_eq!(out.trim_end(), link.to_string_lossy(), "{name}");
        holder.delete().await.unwrap();
        bed.assert_clean();
    }
}

#[tokio::test]
async fn a_terminal() {
    without_unified();
    for name in RUNTIMES {
        let bed = Bed::new(&format!("tty-{name}")).await;
        let mut input = bed.shell("test -t 1 && echo yes");
        input.tty = true;
        let mut request = bed.request(&input);
        request.runtime = Some(name.into());
        let (out, status) = bed.run_request(request).await;
        assert_eq!((out.as_str(), status.code), ("yes\r\n", 0), "{name}");
        bed.assert_clean();
    }
}

#[tokio::test]
async fn failures_leave_nothing() {
    without_unified();
    for name in RUNTIMES {
        let bed = Bed::new(&format!("bad-{name}")).await;
        let mut input = bed.shell("true");
        input.argv = vec!["/no/such/program".into()];
        input.seccomp = SeccompChoice::Unconfined;
        let mut request = bed.request(&input);
        request.runtime = Some(name.into());
        let error = bed.runtime.create(request).await.unwrap_err();
        assert!(
            matches!(&error, RuntimeError::Start(e) if e.kind == StartErrorKind::NotFound),
            "{name}: {error:?}"
        );
        let mut input = bed.shell("true");
        input.user = "stranger".into();
        let mut request = bed.request(&input);
        request.runtime = Some(name.into());
        let error = bed.runtime.create(request).await.unwrap_err();
        assert!(matches!(error, RuntimeError::Spec(_)), "{name}: {error:?}");
        bed.assert_clean();
    }
}
