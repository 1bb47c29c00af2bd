//! Names, ports and attachments.

use std::io::{Read, Write};
use std::net::TcpStream;

use gantry_e2e::{eventually, free_port};
use serde_json::{Value, json};

use crate::lab::{Container, Lab, Seen};

/// Name servers, search domains, hosts.
pub(crate) fn resolver(lab: &Lab<'_>, seen: &Seen) {
    let config = json!({"NetworkMode": "bridge", "Dns": ["192.0.2.53"], "DnsOptions": ["ndots:3"], "DnsSearch": ["example.test", "example.org"],
        "ExtraHosts": ["db:192.0.2.7", "six:[2001:db8::1]", "gate:host-gateway"]});
    let script = "echo ns=$(grep ^nameserver /etc/resolv.conf); echo search=$(grep ^search /etc/resolv.conf); echo options=$(grep ^options /etc/resolv.conf)
echo db=$(grep 'db$' /etc/hosts | cut -f1); echo six=$(grep 'six$' /etc/hosts | cut -f1); echo gate=$(grep 'gate$' /etc/hosts | cut -f1)
echo router=$(ip route | awk '/default/ {print $3}')";
    let inside = lab.run(&json!({"HostConfig": config}), script);
    seen.eq("HostConfig.Dns", inside.get("ns"), "nameserver 192.0.2.53");
    seen.eq(
        "HostConfig.DnsSearch",
        inside.get("search"),
        "search example.test example.org",
    );
    seen.eq(
        "HostConfig.DnsOptions",
        inside.get("options"),
        "options ndots:3",
    );
    seen.eq(
        "HostConfig.ExtraHosts",
        (inside.get("db"), inside.get("six")),
        ("192.0.2.7", "2001:db8::1"),
    );
    seen.holds(
        "HostConfig.ExtraHosts",
        !inside.get("gate").is_empty() && inside.get("gate") == inside.get("router"),
        inside.get("gate"),
    );
    for (entry, words) in [
        ("wat", "bad format for add-host: \"wat\""),
        ("a:b", "invalid IP address in add-host: \"b\""),
    ] {
        let reply = lab.refusal(&json!({"HostConfig": {"ExtraHosts": [entry]}}));
        seen.refused("HostConfig.ExtraHosts", reply, 400, words);
    }
    let off = lab.run(
        &json!({"NetworkDisabled": true, "HostConfig": {"NetworkMode": "bridge"}}),
        "echo links=$(ls /sys/class/net)",
    );
    seen.eq("Config.NetworkDisabled", off.get("links"), "lo");
}

fn fetch(port: &str) -> Option<String> {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).ok()?;
    stream.write_all(b"GET /group HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.contains("extra:x:44").then_some(text)
}

/// Published ports, answered by a server inside.
pub(crate) fn ports(lab: &Lab<'_>, seen: &Seen) {
    let port = free_port().to_string();
    let container = lab.hold(&json!({
        "Cmd": ["sh", "-c", "httpd -p 80 -h /etc; httpd -f -p 81 -h /etc"], "ExposedPorts": {"81/tcp": {}, "82/udp": {}},
        "HostConfig": {"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}]}, "PublishAllPorts": true}
    }));
    let answer = eventually("the published port answers", 30, || fetch(&port));
    for property in [
        "HostConfig.PortBindings",
        "PortBinding.HostPort",
        "PortBinding.HostIp",
    ] {
        seen.holds(property, answer.contains("200 OK"), &answer);
    }
    let shown = container.inspect()["NetworkSettings"]["Ports"].take();
    seen.eq(
        "PortBinding.HostIp",
        &shown["80/tcp"],
        &json!([{"HostIp": "127.0.0.1", "HostPort": port}]),
    );
    let chosen = shown["81/tcp"][0]["HostPort"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let answer = eventually("the chosen port answers", 30, || fetch(&chosen));
    seen.holds(
        "HostConfig.PublishAllPorts",
        answer.contains("200 OK"),
        &answer,
    );
    seen.holds(
        "Config.ExposedPorts",
        shown["82/udp"][0]["HostPort"].is_string(),
        &shown,
    );
    for (key, binding, words) in [
        ("x", json!({}), "invalid port specification: \"x\""),
        (
            "80/tcp",
            json!({"HostPort": "x"}),
            "invalid port specification: \"x\"",
        ),
    ] {
        let reply = lab.refusal(&json!({"HostConfig": {"PortBindings": {key: [binding]}}}));
        seen.refused("PortBinding.HostPort", reply, 400, words);
    }
}

/// A user network that goes with the check.
struct Net<'a>(&'a Lab<'a>, String);

impl<'a> Net<'a> {
    fn new(lab: &'a Lab<'a>, name: &str, subnet: &str, more: &[&str]) -> Self {
        let mut args = vec!["network", "create", "--subnet", subnet];
        args.extend(more);
        args.push(name);
        lab.engine.docker(&args).ok();
        Self(lab, name.to_owned())
    }
}

impl Drop for Net<'_> {
    fn drop(&mut self) {
        self.0.engine.docker(&["network", "rm", &self.1]);
    }
}

fn attached(lab: &Lab<'_>, mode: &str, endpoints: Value) -> Value {
    let _ = lab;
    json!({"HostConfig": {"NetworkMode": mode}, "NetworkingConfig": {"EndpointsConfig": endpoints}, "Cmd": ["sleep", "1000"]})
}

fn endpoint(container: &Container<'_>, network: &str) -> Value {
    container.inspect()["NetworkSettings"]["Networks"][network].take()
}

/// Names, hardware addresses, driver options, several networks.
pub(crate) fn endpoints(lab: &Lab<'_>, seen: &Seen) {
    let _one = Net::new(lab, "prop-one", "10.213.1.0/24", &[]);
    let _two = Net::new(lab, "prop-two", "10.213.2.0/24", &[]);
    let options = json!({"com.docker.network.endpoint.ifname": "lan7", "com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1"});
    let body = attached(
        lab,
        "prop-one",
        json!({
            "prop-one": {"MacAddress": "02:42:0a:d5:01:63", "Aliases": ["nick"], "DriverOpts": options, "GwPriority": 0},
            "prop-two": {"GwPriority": 7}
        }),
    );
    let container = lab.hold(&body);
    let inside = container.exec("echo mac=$(cat /sys/class/net/lan7/address); echo links=$(ls /sys/class/net | wc -l)
echo martians=$(cat /proc/sys/net/ipv4/conf/lan7/log_martians); echo router=$(ip route | awk '/default/ {print $3}')");
    seen.eq(
        "EndpointSettings.MacAddress",
        inside.get("mac"),
        "02:42:0a:d5:01:63",
    );
    seen.eq("EndpointSettings.DriverOpts", inside.get("martians"), "1");
    seen.eq("NetworkingConfig.EndpointsConfig", inside.get("links"), "3");
    seen.eq(
        "EndpointSettings.GwPriority",
        inside.get("router"),
        "10.213.2.1",
    );
    let shown = endpoint(&container, "prop-one");
    let id = &lab.api("GET", "/v1.51/networks/prop-one", None).1["Id"];
    seen.eq("EndpointSettings.NetworkID", &shown["NetworkID"], id);
    seen.holds(
        "EndpointSettings.EndpointID",
        shown["EndpointID"]
            .as_str()
            .is_some_and(|id| id.len() == 64),
        &shown,
    );
    let names: Vec<&str> = shown["DNSNames"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    seen.holds(
        "EndpointSettings.DNSNames",
        names.contains(&"nick") && names.contains(&&container.id[..12]),
        &shown,
    );
    let peer = lab.hold(&attached(lab, "prop-one", json!({"prop-one": {}})));
    let found = peer.exec("echo nick=$(nslookup nick 127.0.0.11 2>/dev/null | awk '/^Address/ {a=$NF} END {print a}')");
    seen.eq(
        "EndpointSettings.Aliases",
        found.get("nick"),
        shown["IPAddress"].as_str().unwrap_or_default(),
    );
    // Clients before 1.44 say it at the container.
    let old = json!({"Image": "busybox", "Cmd": ["cat", "/sys/class/net/eth0/address"], "MacAddress": "02:42:0a:d5:01:64", "HostConfig": {"NetworkMode": "prop-one"}});
    let (status, answer) = lab.api("POST", "/v1.43/containers/create", Some(&old));
    let id = answer["Id"].as_str().unwrap_or_default();
    let out = lab.engine.docker(&["start", "-a", id]).out;
    lab.engine.docker(&["rm", id]).ok();
    seen.eq(
        "Config.MacAddress",
        (status, out.trim()),
        (201, "02:42:0a:d5:01:64"),
    );
}

/// Addresses: wanted, given, shown.
pub(crate) fn addresses(lab: &Lab<'_>, seen: &Seen) {
    let _net = Net::new(
        lab,
        "prop-six",
        "10.213.3.0/24",
        &["--ipv6", "--subnet", "fd00:213:3::/64"],
    );
    let ipam = json!({"IPv4Address": "10.213.3.99", "IPv6Address": "fd00:213:3::99", "LinkLocalIPs": ["169.254.99.7"]});
    let container = lab.hold(&attached(
        lab,
        "prop-six",
        json!({"prop-six": {"IPAMConfig": ipam}}),
    ));
    let inside = container.exec("echo four=$(ip -4 -o addr show eth0 scope global | awk '{print $4}' | head -1); echo local=$(ip -4 -o addr show eth0 | grep -c 169.254.99.7)
echo six=$(ip -6 -o addr show eth0 scope global | awk '{print $4}'); echo router=$(ip route | awk '/default/ {print $3}'); echo router6=$(ip -6 route | awk '/default/ {print $3}')");
    seen.eq(
        "EndpointIPAMConfig.IPv4Address",
        inside.get("four"),
        "10.213.3.99/24",
    );
    seen.eq(
        "EndpointIPAMConfig.IPv6Address",
        inside.get("six"),
        "fd00:213:3::99/64",
    );
    seen.eq("EndpointIPAMConfig.LinkLocalIPs", inside.get("local"), "1");
    let shown = endpoint(&container, "prop-six");
    seen.eq("EndpointSettings.IPAMConfig", &shown["IPAMConfig"], &ipam);
    seen.eq(
        "EndpointSettings.IPAddress",
        &shown["IPAddress"],
        "10.213.3.99",
    );
    seen.eq("EndpointSettings.IPPrefixLen", &shown["IPPrefixLen"], 24);
    seen.eq(
        "EndpointSettings.GlobalIPv6Address",
        &shown["GlobalIPv6Address"],
        "fd00:213:3::99",
    );
    seen.eq(
        "EndpointSettings.GlobalIPv6PrefixLen",
        &shown["GlobalIPv6PrefixLen"],
        64,
    );
    seen.eq(
        "EndpointSettings.Gateway",
        inside.get("router"),
        shown["Gateway"].as_str().unwrap_or("none"),
    );
    seen.eq(
        "EndpointSettings.IPv6Gateway",
        inside.get("router6"),
        shown["IPv6Gateway"].as_str().unwrap_or("none"),
    );
    let outside = attached(
        lab,
        "prop-six",
        json!({"prop-six": {"IPAMConfig": {"IPv4Address": "10.213.4.1"}}}),
    );
    let (status, said) = lab.refusal(&outside);
    seen.holds(
        "EndpointIPAMConfig.IPv4Address",
        status >= 400 && said.contains("subnet"),
        format!("{status} {said}"),
    );
}

/// Links: of the default bridge, and of a user network.
pub(crate) fn links(lab: &Lab<'_>, seen: &Seen) {
    let _net = Net::new(lab, "prop-links", "10.213.5.0/24", &[]);
    let target =
        lab.hold(&json!({"HostConfig": {"NetworkMode": "bridge"}, "ExposedPorts": {"80/tcp": {}}}));
    let address = endpoint(&target, "bridge")["IPAddress"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let config = json!({"NetworkMode": "bridge", "Links": [format!("{}:db", target.id)]});
    let inside = lab.run(
        &json!({"HostConfig": config}),
        "echo db=$(awk '$2 == \"db\" {print $1}' /etc/hosts)",
    );
    seen.eq("HostConfig.Links", inside.get("db"), address.as_str());
    let unknown = lab.refusal(
        &json!({"Cmd": ["true"], "HostConfig": {"NetworkMode": "bridge", "Links": ["nope:x"]}}),
    );
    seen.holds(
        "HostConfig.Links",
        unknown.0 >= 400 && unknown.1.contains("could not get container for nope"),
        format!("{unknown:?}"),
    );
    let peer = lab.hold(&attached(lab, "prop-links", json!({"prop-links": {}})));
    let address = endpoint(&peer, "prop-links")["IPAddress"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let name = peer.inspect()["Name"]
        .as_str()
        .unwrap_or_default()
        .trim_start_matches('/')
        .to_owned();
    let user = lab.hold(&attached(
        lab,
        "prop-links",
        json!({"prop-links": {"Links": [format!("{name}:store")]}}),
    ));
    let found = user.exec("echo store=$(nslookup store 127.0.0.11 2>/dev/null | awk '/^Address/ {a=$NF} END {print a}')");
    seen.eq(
        "EndpointSettings.Links",
        found.get("store"),
        address.as_str(),
    );
}
