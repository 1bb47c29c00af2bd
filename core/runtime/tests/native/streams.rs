//! Standard streams and terminals.

use gantry_runtime::ConsoleSize;

use crate::common::*;

#[tokio::test]
async fn standard_input_is_attached_and_ends() {
    let bed = Bed::new("stdin").await;
    let mut request = bed.request(&bed.shell("cat; echo end"));
    request.open_stdin = true;
    request.stdin_once = true;
    let process = bed.runtime.create(request).await.unwrap();
    let mut attached = process
        .attach(gantry_runtime::Attach {
            stdin: true,
            ..output()
        })
        .await
        .unwrap();
    process.start().await.unwrap();
    feed(&mut attached.stream, b"hello ").await;
    let out = unframe(&drain(attached).await);
    assert_eq!(String::from_utf8_lossy(&out), "hello end\n");
    assert_eq!(within(process.wait()).await.unwrap().code, 0);
    process.delete().await.unwrap();
    bed.assert_clean();
}

#[tokio::test]
async fn a_terminal() {
    let bed = Bed::new("tty").await;
    let mut input =
        bed.shell("stty size; echo $TERM; test -t 1 && echo yes; readlink /proc/self/fd/0");
    input.tty = true;
    let mut request = bed.request(&input);
    request.console_size = Some(ConsoleSize {
        height: 20,
        width: 30,
    });
    let (out, status) = bed.run_request(request).await;
    assert_eq!(status.code, 0);
    assert!(out.starts_with("20 30\r\nxterm\r\nyes\r\n/dev/"), "{out:?}");
    bed.assert_clean();
}
