//! The commands of the documentation, as they are printed there.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Child;

use super::*;

const TEXT: &str = include_str!("../../../../docs/networks-overlay.md");

/// A process that ends with its test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The block of commands with this in it, for the hosts of a test.
fn block(with: &str) -> String {
    let blocks = TEXT.split("```sh\n").skip(1);
    let mut blocks = blocks.filter_map(|rest| rest.split("```").next());
    let found = blocks.find(|block| block.contains(with));
    found
        .expect("it is documented")
        .replace("10.0.0.", "192.0.2.")
}

/// Writes a program that does nothing.
fn idle(bin: &Path, name: &str) {
    std::fs::write(bin.join(name), "#!/bin/sh\n").unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(bin.join(name), mode).unwrap();
}

/// Does on a host what the documentation says, with files below a directory; etcd as Debian's unit starts it.
fn follow(at: &gantry_fixtures::Host, name: &str, dir: &Path) -> (Running, Value) {
    let commands = block("apt-get install -y etcd-server");
    let (first, rest) = commands.split_once('\n').unwrap();
    assert_eq!(first, "NAME=one; IP=192.0.2.1");
    for made in ["bin", "etc/default", "var/lib/etcd/default"] {
        std::fs::create_dir_all(dir.join(made)).unwrap();
    }
    for program in ["apt-get", "systemctl"] {
        idle(&dir.join("bin"), program);
    }
    let root = dir.display();
    let rest = ["/etc/", "/var/"]
        .iter()
        .fold(rest.to_owned(), |text, path| {
            text.replace(path, &format!("{root}{path}"))
        });
    let ip = at.address;
    let script = format!("PATH={root}/bin:$PATH\nNAME={name}; IP={ip}\n{rest}");
    at.namespace.shell(&script);
    let mut etcd = at.namespace.command("etcd");
    etcd.env("ETCD_NAME", "machine")
        .env("ETCD_DATA_DIR", dir.join("var/lib/etcd/default"));
    for line in std::fs::read_to_string(dir.join("etc/default/etcd"))
        .unwrap()
        .lines()
    {
        match line.split_once('=').unwrap() {
            ("DAEMON_ARGS", flags) => drop(etcd.args(flags.split_whitespace())),
            (key, value) => drop(etcd.env(key, value)),
        }
    }
    let log = std::fs::File::create(dir.join("log")).unwrap();
    etcd.stderr(log.try_clone().unwrap()).stdout(log);
    let running = Running(etcd.spawn().unwrap());
    let config = std::fs::read_to_string(dir.join("etc/gantry/daemon.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    (
        running,
        config["drivers"]["network"]["overlay"]["options"].take(),
    )
}

#[test]
fn a_cluster_is_made_and_has_users_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = Hosts::new(3);
    let names = ["one", "two", "three"];
    let members: Vec<_> = hosts
        .iter()
        .zip(names)
        .map(|(at, name)| follow(at, name, &dir.path().join(name)))
        .collect();
    let [one, two] = [0, 1].map(|n| Host::new(hosts.host(n as u8 + 1), &members[n].1));
    let logs = || names.map(|name| std::fs::read_to_string(dir.path().join(name).join("log")));
    let end = Instant::now() + Duration::from_secs(60);
    while one.status("Member") != "yes" || two.status("Member") != "yes" {
        assert!(Instant::now() < end, "{:?}", logs());
        std::thread::sleep(Duration::from_millis(50));
    }
    one.share(network_of("n")).unwrap();
    for host in [&one, &two] {
        host.create("n");
    }
    one.sandbox("n", "a").reaches(&two.sandbox("n", "b"));
    // Passwords are asked for at a terminal only.
    let commands = block("etcdctl auth enable");
    let with = |text: String, user: &str| {
        let asked = format!("etcdctl user add {user} ");
        assert!(text.contains(&asked), "{text}");
        text.replace(&asked, &format!("etcdctl user add {user}:of-{user} "))
    };
    let commands = with(with(commands, "gantry"), "root");
    let bin = dir.path().join("one/bin");
    let script = format!("PATH={}:$PATH\n{commands}", bin.display());
    hosts.host(1).namespace.shell(&script);
    let refused = one.share(network_of("m")).unwrap_err();
    assert_eq!(refused.code, gantry_plugin_sdk::ErrorCode::Unavailable);
    let password = dir.path().join("password");
    std::fs::write(&password, "of-gantry\n").unwrap();
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut options = members[0].1.clone();
    options["user"] = json!("gantry");
    options["password_file"] = json!(password);
    let host = Host::new(hosts.host(3), &options);
    eventually("it is let in", || host.share(network_of("m")).is_ok());
}
