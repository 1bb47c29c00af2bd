//! Engines, zygotes and monitors that end before their containers.

use gantry_runtime::Reconnected;

use crate::common::*;

#[tokio::test]
async fn another_engine_finds_it_again() {
    let bed = Bed::new("again").await;
    let mut input = bed.shell("echo one; sleep 1000");
    input.env = vec!["KEPT=yes".into()];
    let first = bed.create(&input).await.unwrap();
    first.start().await.unwrap();
    let pid = first.pid();
    drop(first);
    let other = bed.again().await;
    let Reconnected::Running(process) = other.reconnect(&input.id).await.unwrap() else {
        panic!("not found");
    };
    assert_eq!(process.pid(), pid);
    assert!(process.started_at().is_some());
    let (out, ..) = exec(
        &process,
        exec_request(&["sh", "-c", "echo $KEPT; grep Seccomp: /proc/self/status"]),
    )
    .await;
    assert_eq!(out, "yes\nSeccomp:\t2\n");
    process.signal(libc::SIGKILL).await.unwrap();
    assert_eq!(within(process.wait()).await.unwrap().code, 137);
    drop(process);
    // The record stays until it is forgotten.
    match other.reconnect(&input.id).await.unwrap() {
        Reconnected::Exited(record) => assert_eq!(record.code, 137),
        left => panic!("{left:?}"),
    }
    assert_eq!(
        other.known().await.unwrap(),
        std::slice::from_ref(&input.id)
    );
    other.forget(&input.id).await.unwrap();
    other.forget(&input.id).await.unwrap();
    assert!(matches!(
        other.reconnect(&input.id).await.unwrap(),
        Reconnected::Gone
    ));
    bed.assert_clean();
}

#[tokio::test]
async fn a_dead_zygote_is_replaced_and_disturbs_nobody() {
    let bed = Bed::new("zygote").await;
    let process = bed.create(&bed.shell("sleep 1000")).await.unwrap();
    process.start().await.unwrap();
    let pid = bed.runtime.zygote_pid();
    kill(pid);
    let (out, _) = bed.run(&bed.shell("echo again")).await;
    assert_eq!(out, "again\n");
    assert_ne!(bed.runtime.zygote_pid(), pid);
    assert!(process.exited().is_none());
    process.signal(libc::SIGKILL).await.unwrap();
    assert_eq!(within(process.wait()).await.unwrap().code, 137);
    process.delete().await.unwrap();
    bed.assert_clean();
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_container_whose_monitor_is_killed_ends() {
    let bed = Bed::new("lost").await;
    let process = bed.create(&bed.shell("sleep 1000")).await.unwrap();
    process.start().await.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let parent = status
        .lines()
        .find_map(|l| l.strip_prefix("PPid:"))
        .unwrap();
    kill(parent.trim().parse().unwrap());
    let status = within(process.wait()).await.unwrap();
    assert_eq!(status.code, 137);
    process.delete().await.unwrap();
    bed.assert_clean();
}
