//! Fluentd's forward protocol.

use tokio::io::AsyncWriteExt;

use super::*;

/// The next value of MessagePack, as JSON; extensions as arrays of type and bytes.
fn unpack(bytes: &mut &[u8]) -> serde_json::Value {
    use rmp::decode as d;
    let text = |bytes: &mut &[u8], length: u32| {
        let (text, rest) = bytes.split_at(length as usize);
        *bytes = rest;
        serde_json::Value::from(String::from_utf8_lossy(text).into_owned())
    };
    let mut probe = *bytes;
    match d::read_marker(&mut probe).unwrap() {
        rmp::Marker::FixArray(_) | rmp::Marker::Array16 => {
            let length = d::read_array_len(bytes).unwrap();
            (0..length).map(|_| unpack(bytes)).collect()
        }
        rmp::Marker::FixMap(_) | rmp::Marker::Map16 => {
            let length = d::read_map_len(bytes).unwrap();
            let pairs = (0..length).map(|_| {
                let key = unpack(bytes);
                (key.as_str().unwrap().to_owned(), unpack(bytes))
            });
            serde_json::Value::Object(pairs.collect())
        }
        rmp::Marker::FixStr(_) | rmp::Marker::Str8 | rmp::Marker::Str16 => {
            let length = d::read_str_len(bytes).unwrap();
            text(bytes, length)
        }
        rmp::Marker::FixExt8 => {
            let meta = d::read_ext_meta(bytes).unwrap();
            let (value, rest) = bytes.split_at(8);
            *bytes = rest;
            serde_json::json!([meta.typeid, value])
        }
        _ => d::read_int::<i64, _>(bytes).unwrap().into(),
    }
}

#[tokio::test]
async fn fluentd_forwards_events() {
    let (listener, address) = tcp().await;
    let address = address.to_string();
    let pairs = [
        ("fluentd-address", address.as_str()),
        ("tag", "docker.{{.Name}}"),
        ("labels", "a"),
    ];
    let mut fluentd = driver("fluentd", &pairs);
    fluentd.connect().await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut part = message("part", true);
    part.partial = Some(Partial {
        id: "7".into(),
        ordinal: 2,
        last: true,
    });
    let batch = [message("hello", false), part];
    let (sent, bytes) = tokio::join!(
        fluentd.send(&batch),
        read_until(&mut stream, |b| b.ends_with(b"part"))
    );
    sent.unwrap();
    let mut rest = bytes.as_slice();
    let id = subject().id;
    assert_eq!(
        unpack(&mut rest),
        serde_json::json!(["docker.web", 1, {
            "a": "1", "container_id": id, "container_name": "/web", "source": "stdout", "log": "hello",
        }])
    );
    assert_eq!(
        unpack(&mut rest),
        serde_json::json!(["docker.web", 1, {
            "a": "1", "container_id": id, "container_name": "/web", "source": "stderr", "log": "part",
            "partial_message": "true", "partial_id": "7", "partial_ordinal": "2", "partial_last": "true",
        }])
    );
    assert!(rest.is_empty());
}

#[tokio::test]
async fn fluentd_connections_are_renewed_on_request() {
    let (listener, address) = tcp().await;
    let address = address.to_string();
    let interval = std::time::Duration::from_millis(100);
    for (asynchronous, connections) in [("true", 2), ("false", 1)] {
        let pairs = [
            ("fluentd-address", address.as_str()),
            ("fluentd-async", asynchronous),
            ("fluentd-async-reconnect-interval", "100ms"),
        ];
        let mut fluentd = driver("fluentd", &pairs);
        let mut accepted = Vec::new();
        let mut send = async |accepted: &mut Vec<_>| {
            let batch = [message("x", false)];
            let mut sent = std::pin::pin!(fluentd.send(&batch));
            loop {
                tokio::select! {
                    sent = &mut sent => break sent.unwrap(),
                    taken = listener.accept() => accepted.push(taken.unwrap()),
                }
            }
        };
        send(&mut accepted).await;
        tokio::time::sleep(interval).await;
        send(&mut accepted).await;
        // What was not accepted yet waits for it.
        while accepted.len() < connections {
            accepted.push(listener.accept().await.unwrap());
        }
        let more = std::future::poll_fn(|cx| std::task::Poll::Ready(listener.poll_accept(cx)));
        assert!(more.await.is_pending(), "{asynchronous}");
    }
}

#[tokio::test]
async fn fluentd_gives_a_receiver_the_time_that_was_said() {
    let (listener, address) = tcp().await;
    let address = address.to_string();
    let pairs = [
        ("fluentd-address", address.as_str()),
        ("fluentd-write-timeout", "50ms"),
    ];
    let mut fluentd = driver("fluentd", &pairs);
    fluentd.connect().await.unwrap();
    let (_deaf, _) = listener.accept().await.unwrap();
    // More than the kernel keeps for one that does not read.
    let batch = [message(&"x".repeat(32 << 20), false)];
    let undelivered = fluentd.send(&batch).await.unwrap_err();
    assert_eq!(undelivered.error.kind(), std::io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn fluentd_waits_for_acknowledgements() {
    let (listener, address) = tcp().await;
    let address = format!("tcp://{address}");
    let pairs = [
        ("fluentd-address", address.as_str()),
        ("fluentd-request-ack", "true"),
        ("fluentd-sub-second-precision", "true"),
        ("fluentd-async", "true"),
    ];
    let mut fluentd = driver("fluentd", &pairs);
    assert!(!fluentd.must_be_there());
    let batch = [message("a", false), message("b", false)];
    // The first message is acknowledged, then the connection ends.
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let bytes = read_until(&mut stream, |b| {
            let chunks: Vec<usize> = memchr::memmem::find_iter(b, b"chunk").collect();
            chunks.len() == 2 && b.len() == chunks[1] + 5 + 2 + 32
        });
        let bytes = bytes.await;
        let event = unpack(&mut bytes.as_slice());
        assert_eq!(
            event[1],
            serde_json::json!([0, [0, 0, 0, 1, 29, 205, 101, 0]])
        );
        let chunk = event[3]["chunk"].as_str().unwrap();
        let mut answer = Vec::new();
        rmp::encode::write_map_len(&mut answer, 1).unwrap();
        rmp::encode::write_str(&mut answer, "ack").unwrap();
        rmp::encode::write_str(&mut answer, chunk).unwrap();
        stream.write_all(&answer).await.unwrap();
    };
    let (sent, ()) = tokio::join!(fluentd.send(&batch), serve);
    assert_eq!(sent.unwrap_err().sent, 1);
}
