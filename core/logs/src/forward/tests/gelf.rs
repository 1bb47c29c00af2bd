//! GELF over UDP and TCP.

use std::io::Read;

use tokio::net::UdpSocket;

use super::*;

#[tokio::test]
async fn gelf_over_udp_compressed_and_in_chunks() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = format!("udp://{}", socket.local_addr().unwrap());
    let mut buffer = [0; 2048];
    for form in ["gzip", "zlib", "none"] {
        let pairs = [
            ("gelf-address", address.as_str()),
            ("gelf-compression-type", form),
            ("env", "B"),
        ];
        let mut gelf = driver("gelf", &pairs);
        gelf.send(&[message("hello", true)]).await.unwrap();
        let read = socket.recv(&mut buffer).await.unwrap();
        let mut json = Vec::new();
        match form {
            "gzip" => flate2::read::GzDecoder::new(&buffer[..read]).read_to_end(&mut json),
            "zlib" => flate2::read::ZlibDecoder::new(&buffer[..read]).read_to_end(&mut json),
            _ => Read::read_to_end(&mut &buffer[..read], &mut json),
        }
        .unwrap();
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let subject = subject();
        assert_eq!(
            value,
            serde_json::json!({
                "version": "1.1", "host": crate::tag::hostname(), "short_message": "hello", "timestamp": 1.5,
                "level": 3, "_command": "sh -c date", "_container_id": subject.id, "_container_name": "web",
                "_created": "1970-01-01T00:00:01Z", "_image_id": subject.image_id,
                "_image_name": "busybox:1", "_tag": "0123456789ab", "_B": "2",
            })
        );
    }
    let pairs = [
        ("gelf-address", address.as_str()),
        ("gelf-compression-type", "none"),
    ];
    let long = "y".repeat(3000);
    driver("gelf", &pairs)
        .send(&[message(&long, false)])
        .await
        .unwrap();
    let (mut json, mut ids) = (Vec::new(), Vec::new());
    for number in 0..3 {
        let read = socket.recv(&mut buffer).await.unwrap();
        let chunk = &buffer[..read];
        assert!(read <= 1420 && chunk[..2] == [0x1e, 0x0f]);
        assert_eq!(chunk[10..12], [number, 3]);
        ids.push(chunk[2..10].to_vec());
        json.extend_from_slice(&chunk[12..]);
    }
    assert!(ids[0] == ids[1] && ids[1] == ids[2]);
    let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(value["short_message"], long);
}

#[tokio::test]
async fn gelf_over_tcp_ends_messages_with_a_null_byte() {
    let (listener, address) = tcp().await;
    let address = format!("tcp://{address}");
    let mut gelf = driver("gelf", &[("gelf-address", address.as_str())]);
    let batch = [message("a", false), message("b", false)];
    let receive = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, |b| b.iter().filter(|b| **b == 0).count() == 2).await
    };
    let (sent, bytes) = tokio::join!(gelf.send(&batch), receive);
    sent.unwrap();
    let texts: Vec<String> = bytes
        .split(|b| *b == 0)
        .filter(|json| !json.is_empty())
        .map(|json| serde_json::from_slice::<serde_json::Value>(json).unwrap())
        .map(|value| value["short_message"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(texts, ["a", "b"]);
}
