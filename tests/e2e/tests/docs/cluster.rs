//! The cluster in ten lines, what is then typed on any host, and etcd's users.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};

use gantry_e2e::{Engine, Options, eventually, run};
use gantry_fixtures::{Host, Hosts};
use serde_json::{Value, json};

use crate::page::{block, file, idle, instead};

const PAGE: &str = "docs/networks-overlay.md";
const NAMES: [&str; 3] = ["one", "two", "three"];

/// A process that ends with its test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The commands with this in them, for the hosts of a test.
fn commands(with: &str) -> String {
    block(PAGE, "sh", with).replace("10.0.0.", "192.0.2.")
}

/// Does on a host what the documentation says, with files below a directory: the configuration that is written.
fn set_up(host: &Host, name: &str, dir: &Path) -> Value {
    let commands = commands("apt-get install -y etcd-server");
    let own = "NAME=one; IP=192.0.2.1";
    let mut commands = instead(&commands, own, &format!("NAME={name}; IP={}", host.address));
    for path in ["/etc/", "/var/"] {
        commands = instead(&commands, path, &format!("{}{path}", dir.display()));
    }
    for made in ["etc/default", "var/lib/etcd/default"] {
        fs::create_dir_all(dir.join(made)).expect("a new directory");
    }
    let bin = idle(dir);
    host.namespace
        .shell(&format!("PATH={}:$PATH\n{commands}", bin.display()));
    let done = fs::read_to_string(dir.join("done")).expect("some are noted");
    for unit in done
        .lines()
        .filter_map(|line| line.strip_prefix("systemctl "))
    {
        let unit = unit.rsplit(' ').next().expect("a unit is named");
        let ours = file("core/daemon/dist").join(format!("{unit}.service"));
        assert!(unit == "etcd" || ours.exists(), "there is no unit {unit}");
    }
    let config = fs::read(dir.join("etc/gantry/daemon.json")).expect("it is written");
    serde_json::from_slice(&config).expect("it is JSON")
}

/// Starts a host's etcd as Debian's unit does.
fn etcd(host: &Host, dir: &Path) -> Running {
    let log = File::create(dir.join("log")).expect("a log");
    let mut etcd = host.namespace.command("etcd");
    etcd.env("ETCD_NAME", "machine")
        .env("ETCD_DATA_DIR", dir.join("var/lib/etcd/default"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log);
    let settings = fs::read_to_string(dir.join("etc/default/etcd")).expect("it is written");
    for line in settings.lines() {
        match line.split_once('=').expect("a variable") {
            ("DAEMON_ARGS", flags) => etcd.args(flags.split_whitespace()),
            (key, value) => etcd.env(key, value),
        };
    }
    Running(etcd.spawn().expect("nsenter is there"))
}

/// Starts a host's engine, with the images that the page names.
fn engine(host: &Host, config: Value) -> Engine {
    let engine = Engine::with(Options {
        config: Some(config),
        namespace: Some(host.namespace.path()),
        ..Options::default()
    });
    engine.import_busybox("busybox:latest");
    let made = "docker create --name made busybox sleep 1000 && docker commit made redis && docker rm made";
    engine.client("sh", &["-c", made]).ok();
    engine
}

/// The commands that are typed once the cluster is there. Tests have no terminal, and no time for pings without end.
fn typed() -> [String; 3] {
    let commands = block(PAGE, "sh", "docker network create -d overlay");
    let commands = instead(&commands, "run -it --rm", "run --rm");
    let commands = instead(&commands, "ping db", "ping -c 1 db");
    let lines: Vec<_> = commands.lines().map(str::to_owned).collect();
    lines.try_into().expect("three commands")
}

/// Gives etcd users as it is documented. Passwords are asked for at a terminal only, so they are given with the name.
fn add_users(host: &Host, dir: &Path) {
    let commands = commands("etcdctl auth enable");
    let commands = instead(&commands, "user add gantry ", "user add gantry:of-gantry ");
    let commands = instead(&commands, "user add root ", "user add root:of-root ");
    let bin = idle(dir);
    host.namespace
        .shell(&format!("PATH={}:$PATH\n{commands}", bin.display()));
}

#[test]
fn a_cluster_is_made_and_has_users_as_documented() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let hosts = Hosts::new(3);
    let home = |name: &str| dir.path().join(name);
    let configs: Vec<_> = hosts
        .iter()
        .zip(NAMES)
        .map(|(host, name)| set_up(host, name, &home(name)))
        .collect();
    let members = hosts.iter().zip(NAMES);
    let _members: Vec<_> = members
        .map(|(host, name)| etcd(host, &home(name)))
        .collect();
    let [one, two] = [1, 2].map(|n| engine(hosts.host(n), configs[usize::from(n) - 1].clone()));
    let on = |engine: &Engine, command: &str| engine.client("sh", &["-c", command]);

    let [network, db, ping] = typed();
    eventually("a network is made", 60, || {
        (on(&one, &network).code == 0).then_some(())
    });
    on(&one, &db).ok();
    eventually("the name is known on the other host", 60, || {
        (on(&two, &ping).code == 0).then_some(())
    });

    add_users(hosts.host(1), &home(NAMES[0]));
    let refused = two.docker(&["network", "create", "-d", "overlay", "late"]);
    refused.fails(1, "user name is empty");
    let password = dir.path().join("password");
    fs::write(&password, "of-gantry\n").expect("it is written");
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).expect("it is ours");
    for (engine, config) in [&one, &two].into_iter().zip(configs) {
        let mut config = config;
        let options = &mut config["drivers"]["network"]["overlay"]["options"];
        options["user"] = json!("gantry");
        options["password_file"] = json!(password);
        fs::write(engine.dir().join("daemon.json"), config.to_string()).expect("it is written");
        run("kill", &["-HUP", &engine.pid().to_string()]).ok();
    }
    let late = ["network", "create", "-d", "overlay", "late"];
    eventually("it is let in", 60, || {
        (two.docker(&late).code == 0).then_some(())
    });
    eventually("the other is let in, and told", 60, || {
        let seen = one.docker(&["network", "inspect", "late"]);
        (seen.code == 0).then_some(())
    });
    one.finish();
    two.finish();
}
