//! Processes that join a container.

use gantry_runtime::{ConsoleSize, RuntimeError, StartErrorKind};

use crate::common::*;

#[tokio::test]
async fn execs_have_the_containers_surroundings() {
    let bed = Bed::new("exec").await;
    let mut input = bed.shell("sleep 1000");
    input.env = vec!["FOO=bar".into()];
    input.cwd = "/tmp".into();
    let process = bed.create(&input).await.unwrap();
    process.start().await.unwrap();
    assert_eq!(process.pids().await.unwrap(), [process.pid()]);
    let status = "/proc/self/status";
    let (out, err, code) = exec(&process, exec_request(&["cat", status])).await;
    assert_eq!((err.as_str(), code), ("", 0));
    // The filter and the capabilities are the container's.
    for line in ["Seccomp:\t2\n", "CapEff:\t00000000a80425fb\n", "NSpid:"] {
        assert!(out.contains(line), "no {line:?} in {out}");
    }
    let mut request = exec_request(&["sh", "-c", "pwd; echo $FOO$X; id; echo oops >&2; exit 5"]);
    request.env = vec!["X=y".into()];
    let (out, err, code) = exec(&process, request).await;
    assert!(out.starts_with("/tmp\nbary\nuid=0(root)"), "{out}");
    assert_eq!((err.as_str(), code), ("oops\n", 5));
    let mut request = exec_request(&["sh", "-c", "id; pwd; echo $HOME"]);
    request.user = Some("user".into());
    request.cwd = Some("/".into());
    let (out, ..) = exec(&process, request).await;
    assert!(out.starts_with("uid=1000(user) gid=1001(user)"), "{out}");
    assert!(out.ends_with("\n/\n/home/user\n"), "{out}");
    let mut request = exec_request(&["grep", "-E", "CapEff|Seccomp:", status]);
    request.privileged = true;
    let (out, ..) = exec(&process, request).await;
    let all = format!("CapEff:\t{:016x}\n", bed.runtime.host().bounding_set.bits());
    assert!(out.contains(&all) && out.contains("Seccomp:\t2"), "{out}");
    let error = process
        .exec(exec_request(&["no-such-thing"]))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, RuntimeError::Start(e) if e.kind == StartErrorKind::NotFound),
        "{error:?}"
    );
    process.delete().await.unwrap();
    bed.assert_clean();
}

#[tokio::test]
async fn execs_have_terminals_input_and_signals() {
    let bed = Bed::new("exectty").await;
    let process = bed.create(&bed.shell("sleep 1000")).await.unwrap();
    process.start().await.unwrap();
    let mut request = exec_request(&["sh", "-c", "stty size; echo $TERM; test -t 0 && echo tty"]);
    request.tty = true;
    request.stdin = true;
    request.console_size = Some(ConsoleSize {
        height: 33,
        width: 44,
    });
    let (out, _, code) = exec(&process, request).await;
    assert_eq!((out.as_str(), code), ("33 44\r\nxterm\r\ntty\r\n", 0));
    let mut request = exec_request(&["cat"]);
    request.stdin = true;
    let mut running = process.exec(request).await.unwrap();
    let Some(gantry_runtime::ExecStdio::Pipes { stdin, stdout, .. }) = running.take_stdio() else {
        panic!("no pipes");
    };
    std::io::Write::write_all(&mut std::fs::File::from(stdin.unwrap()), b"through").unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(stdout.unwrap()), &mut text).unwrap();
    assert_eq!(text, "through");
    assert_eq!(within(running.wait()).await.unwrap().code, 0);
    let running = process
        .exec(exec_request(&["sleep", "1000"]))
        .await
        .unwrap();
    running.signal(libc::SIGKILL).await.unwrap();
    assert_eq!(within(running.wait()).await.unwrap().code, 137);
    process.delete().await.unwrap();
    bed.assert_clean();
}
