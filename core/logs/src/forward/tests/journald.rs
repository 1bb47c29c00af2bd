//! The journal's native protocol.

use std::io::Read;

use tokio::net::UnixDatagram;

use super::*;

#[tokio::test]
async fn journald_speaks_the_native_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let socket = UnixDatagram::bind(&path).unwrap();
    let place = path.to_str().unwrap();
    let pairs = [
        ("journald-socket", place),
        ("tag", "{{.Name}}"),
        ("labels", "cc"),
        ("env", "A"),
    ];
    let mut journald = driver("journald", &pairs);
    journald.connect().await.unwrap();
    let two_lines = message("one\ntwo", true);
    journald
        .send(&[message("hello", false), two_lines])
        .await
        .unwrap();
    let mut buffer = vec![0; 65536];
    let read = socket.recv(&mut buffer).await.unwrap();
    let text = String::from_utf8(buffer[..read].to_vec()).unwrap();
    let mut fields: Vec<&str> = text.lines().collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "A=x=y",
            "CC=3",
            "CONTAINER_ID=0123456789ab",
            &format!("CONTAINER_ID_FULL={}", subject().id),
            "CONTAINER_NAME=web",
            "CONTAINER_TAG=web",
            "IMAGE_NAME=busybox:1",
            "MESSAGE=hello",
            "PRIORITY=6",
            "SYSLOG_IDENTIFIER=web",
            "SYSLOG_TIMESTAMP=1970-01-01T00:00:01.5Z",
        ]
    );
    let read = socket.recv(&mut buffer).await.unwrap();
    let second = &buffer[..read];
    assert!(second.ends_with(b"MESSAGE\n\x07\0\0\0\0\0\0\0one\ntwo\n"));
    assert!(memchr::memmem::find(second, b"PRIORITY=3\n").is_some());
}

#[tokio::test]
async fn journald_takes_large_messages_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut journald = driver("journald", &[("journald-socket", path.to_str().unwrap())]);
    let large = "x".repeat(4 << 20);
    journald.send(&[message(&large, false)]).await.unwrap();
    socket.readable().await.unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let flags = rustix::net::RecvFlags::empty();
    rustix::net::recvmsg(&socket, &mut [], &mut control, flags).unwrap();
    let fd = control.drain().find_map(|message| match message {
        rustix::net::RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let mut file = std::fs::File::from(fd.expect("a descriptor"));
    std::io::Seek::rewind(&mut file).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert!(text.ends_with(&format!("MESSAGE={large}\n")));
    assert!(file.set_len(0).is_err(), "it is sealed");
}
