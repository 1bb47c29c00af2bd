//! Asking the name server of a sandbox, and being the one that it asks.
// Each test binary uses a part of it.
#![allow(dead_code)]

use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, Query};

pub(crate) const SERVER: &str = "127.0.0.11:53";

/// The reply to a question, asked by the calling thread's namespace.
pub(crate) fn over_udp(query: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(patience))?;
    socket.send_to(query, SERVER)?;
    let mut reply = vec![0; 65535];
    let (length, from) = socket.recv_from(&mut reply)?;
    assert_eq!(
        from.to_string(),
        SERVER,
        "resolvers refuse answers from another port"
    );
    reply.truncate(length);
    Ok(reply)
}

/// The reply to a message, with nothing in it yet.
pub(crate) fn reply_to(query: &Message) -> Message {
    let mut reply = Message::response(query.metadata.id, OpCode::Query);
    reply.queries.clone_from(&query.queries);
    reply
}

/// A server on the host; `fill` puts into the reply what it says to a question.
pub(crate) fn upstream(fill: impl Fn(&Query, &mut Message) + Send + 'static) {
    let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let mut reply = reply_to(&query);
            fill(&query.queries[0], &mut reply);
            socket.send_to(&reply.to_vec().unwrap(), from).unwrap();
        }
    });
}
