//! A namespace that stands for another machine.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Child, Command, Stdio};

use crate::Engine;
use crate::run::{Done, eventually, run};

/// Another machine: a network namespace on a wire to the host, which is its router for everything. Both ends have
/// addresses that no other test of this machine uses.
pub struct Far {
    namespace: String,
    link: String,
    net4: Ipv4Addr,
    net6: Ipv6Addr,
    servers: Vec<Child>,
}

/// Answers every connection with the address that it comes from.
const WHO: &str = "
import socket, sys
server = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
server.bind(('::', int(sys.argv[1])))
server.listen(9)
while True:
    stream, peer = server.accept()
    stream.recv(999)
    body = peer[0].removeprefix('::ffff:')
    stream.sendall(('HTTP/1.0 200 OK\\r\\n\\r\\n' + body).encode())
    stream.close()
";

impl Far {
    /// Lays the wire.
    pub fn new(engine: &Engine) -> Self {
        let tag = engine.tag();
        let number = u32::from_str_radix(tag, 16).expect("a tag is hexadecimal");
        let [a, b, c, d] = number.to_be_bytes();
        let far = Self {
            namespace: format!("gn{tag}"),
            link: format!("gh{tag}"),
            net4: Ipv4Addr::new(10, 253, a, b & 0xf8),
            net6: Ipv6Addr::from([0xfd, 0x77, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            servers: Vec::new(),
        };
        let inner = format!("gf{tag}");
        let ip = |line: &str| run("ip", &line.split(' ').collect::<Vec<_>>()).ok();
        let (ns, link) = (&far.namespace, &far.link);
        ip(&format!("netns add {ns}"));
        ip(&format!(
            "link add {link} type veth peer name {inner} netns {ns}"
        ));
        for (address, of) in [(far.host(), 4), (far.second(), 4), (far.host6(), 6)] {
            let (bits, more) = if of == 4 { (29, "") } else { (64, " nodad") };
            ip(&format!("addr add {address}/{bits} dev {link}{more}"));
        }
        ip(&format!("link set {link} up"));
        let ip = |line: &str| ip(&format!("-n {ns} {line}"));
        ip(&format!("addr add {}/29 dev {inner}", far.ip()));
        ip(&format!("addr add {}/64 dev {inner} nodad", far.ip6()));
        ip(&format!("link set {inner} up"));
        ip("link set lo up");
        ip(&format!("route add default via {}", far.host()));
        ip(&format!("route add default via {}", far.host6()));
        far
    }

    fn at(&self, host: u32) -> String {
        Ipv4Addr::from(u32::from(self.net4) + host).to_string()
    }

    fn at6(&self, host: u128) -> String {
        Ipv6Addr::from(u128::from(self.net6) + host).to_string()
    }

    /// The host's address on the wire.
    pub fn host(&self) -> String {
        self.at(1)
    }
    /// A second one.
    pub fn second(&self) -> String {
        self.at(3)
    }
    /// The host's IPv6 address on the wire.
    pub fn host6(&self) -> String {
        self.at6(1)
    }
    /// The other machine's address.
    pub fn ip(&self) -> String {
        self.at(2)
    }
    /// The other machine's IPv6 address.
    pub fn ip6(&self) -> String {
        self.at6(2)
    }
    /// The host's link on the wire.
    pub fn link(&self) -> &str {
        &self.link
    }

    /// Runs a program there.
    pub fn run(&self, args: &[&str]) -> Done {
        run("ip", &[&["netns", "exec", &self.namespace], args].concat())
    }

    /// What an HTTP server says to a client there; none when it is not reached.
    pub fn get(&self, url: &str) -> Option<String> {
        let done = self.run(&["curl", "-gsf", "-m", "1", url]);
        (done.code == 0).then_some(done.out)
    }

    /// Serves HTTP there: clients are told the address that they come from.
    pub fn serve(&mut self, port: u16) {
        let server = Command::new("ip")
            .args(["netns", "exec", &self.namespace, "python3", "-c", WHO])
            .arg(port.to_string())
            .stdin(Stdio::null())
            .spawn()
            .expect("ip runs");
        self.servers.push(server);
        let url = format!("http://127.0.0.1:{port}/");
        eventually("the other machine serves", 30, || self.get(&url));
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        for server in &mut self.servers {
            // It may have ended with its test.
            let _ = server.kill();
            let _ = server.wait();
        }
        run("ip", &["link", "del", &self.link]);
        run("ip", &["netns", "del", &self.namespace]);
    }
}
