//! A server in a container's network that says what it hears.

use std::process::{Child, Stdio};

use gantry_fixtures::Namespace;

use crate::Engine;

/// The server, on TCP and UDP over IPv4. It is a process of the test's, and ends with this value: before its container, whose
/// network it would keep alive.
pub struct Echo {
    server: Child,
    /// The program is started by its path, which ends with it.
    _network: Namespace,
}

const SERVER: &str = "
import socket, sys, threading
tcp = socket.create_server(('0.0.0.0', int(sys.argv[1])), backlog=99)
def echo(stream):
    with stream:
        while data := stream.recv(65536):
            stream.sendall(data)
def datagrams(port):
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(('0.0.0.0', port))
    while True:
        data, peer = udp.recvfrom(65536)
        udp.sendto(data, peer)
for port in sys.argv[1:]:
    threading.Thread(target=datagrams, args=(int(port),), daemon=True).start()
while True:
    threading.Thread(target=echo, args=(tcp.accept()[0],), daemon=True).start()
";

impl Echo {
    /// Starts one in a running container: TCP on the first port, UDP on all.
    pub fn inside(engine: &Engine, container: &str, ports: &[u16]) -> Self {
        let pid = engine
            .docker(&["inspect", "-f", "{{.State.Pid}}", container])
            .ok();
        let pid = pid.parse().expect("a container that runs has a process");
        let ports = ports.iter().map(u16::to_string);
        let network = Namespace::of_process(pid);
        let server = network
            .command("python3")
            .args(["-c", SERVER])
            .args(ports)
            .stdin(Stdio::null())
            .spawn()
            .expect("python3 is installed");
        Self {
            server,
            _network: network,
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // It may have ended with its test.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
