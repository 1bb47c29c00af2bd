//! Creation, start, signals and the end.

use std::sync::Arc;

use gantry_model::ContainerId;
use gantry_runtime::spec::MountInput;
use gantry_runtime::{Runtime, RuntimeError, SpecInput, StartErrorKind};
use tokio::io::AsyncReadExt;

use crate::common::*;

#[tokio::test]
async fn a_container_says_hello_and_leaves_nothing() {
    let bed = Bed::new("hello").await;
    let input = bed.shell("echo out; echo err >&2; exit 3");
    let log = bed.log(&input).path;
    let (out, status) = bed.run(&input).await;
    assert_eq!(out, "out\nerr\n");
    assert_eq!((status.code, status.signal, status.oom), (3, None, false));
    assert!(!status.started_at.is_zero() && status.exited_at >= status.started_at);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(
        log.contains(r#"{"log":"out\n","stream":"stdout","time":""#),
        "{log}"
    );
    bed.assert_clean();
}

#[tokio::test]
async fn what_cannot_be_executed_is_told_as_docker_does() {
    let bed = Bed::new("notfound").await;
    let cases = [
        (
            "nothing-of-this-name",
            StartErrorKind::NotFound,
            127,
            r#"exec: "nothing-of-this-name": executable file not found in $PATH"#,
        ),
        (
            "/bin/none",
            StartErrorKind::NotFound,
            127,
            r#"exec: "/bin/none": stat /bin/none: no such file or directory"#,
        ),
        (
            "/etc/not-executable",
            StartErrorKind::Permission,
            126,
            "permission denied",
        ),
        ("/etc", StartErrorKind::Permission, 126, ""),
    ];
    for (program, kind, code, words) in cases {
        let input = SpecInput::new(ContainerId::generate(), vec![program.into()]);
        // It may be seen before the start or at the start.
        let error = match bed.create(&input).await {
            Err(RuntimeError::Start(error)) => error,
            Err(other) => panic!("{other:?}"),
            Ok(process) => {
                let error = within(process.start()).await.unwrap_err();
                assert_eq!(within(process.wait()).await.unwrap().code, code);
                process.delete().await.unwrap();
                error
            }
        };
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    bed.assert_clean();
}

#[tokio::test]
async fn signals_and_exit_codes() {
    let bed = Bed::new("signals").await;
    let input = bed.shell("trap 'echo got; exit 7' TERM; echo ready; while :; do sleep 0.05; done");
    let process = bed.create(&input).await.unwrap();
    let mut attached = process.attach(output()).await.unwrap();
    process.start().await.unwrap();
    let mut head = [0; 14];
    within(attached.stream.read_exact(&mut head)).await.unwrap();
    assert!(process.exited().is_none());
    process.signal(libc::SIGTERM).await.unwrap();
    // Many may wait.
    let (a, b) = within(async { tokio::join!(process.wait(), process.wait()) }).await;
    assert_eq!(a.unwrap().code, 7);
    assert_eq!(b.unwrap().code, 7);
    assert!(matches!(
        process.signal(libc::SIGTERM).await,
        Err(RuntimeError::NotRunning)
    ));
    process.delete().await.unwrap();
    process.delete().await.unwrap();

    let input = bed.shell("sleep 1000");
    let process = bed.create(&input).await.unwrap();
    process.start().await.unwrap();
    process.signal(libc::SIGKILL).await.unwrap();
    let status = within(process.wait()).await.unwrap();
    assert_eq!((status.code, status.signal), (137, Some(9)));
    process.delete().await.unwrap();
    bed.assert_clean();
}

/// A child that ends before anybody looks must be seen to end.
#[tokio::test]
async fn no_exit_is_lost() {
    let bed = Arc::new(Bed::new("quick").await);
    for _ in 0..10 {
        let mut all = tokio::task::JoinSet::new();
        for code in 0..8 {
            let bed = Arc::clone(&bed);
            all.spawn(async move {
                let input = bed.shell(&format!("exit {code}"));
                let process = bed.create(&input).await.unwrap();
                process.start().await.unwrap();
                let status = within(process.wait()).await.unwrap();
                process.delete().await.unwrap();
                assert_eq!(status.code, code);
            });
        }
        while let Some(done) = all.join_next().await {
            done.unwrap();
        }
    }
    bed.assert_clean();
}

#[tokio::test]
async fn a_failed_creation_leaves_nothing() {
    let bed = Bed::new("failed").await;
    let mut input = bed.shell("true");
    input.mounts = vec![MountInput::bind("/no/such/source", "/x")];
    let error = bed.create(&input).await.unwrap_err();
    assert!(
        matches!(&error, RuntimeError::Create { stage, .. } if stage == "mount"),
        "{error:?}"
    );
    let mut input = bed.shell("true");
    input.resources.cpuset_cpus = Some("4000".into());
    let error = bed.create(&input).await.unwrap_err();
    assert!(error.to_string().contains("cpuset.cpus"), "{error}");
    let mut request = bed.request(&bed.shell("true"));
    request.runtime = Some("nope".into());
    let error = bed.runtime.create(request).await.unwrap_err();
    assert_eq!(error.to_string(), "unknown or invalid runtime name: nope");
    bed.assert_clean();
}

#[tokio::test]
async fn a_runtime_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Bed::config(dir.path(), "gantry-none");
    config.zygote = dir.path().join("nothing");
    let error = Runtime::new(config).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Zygote(_)), "{error}");
}
