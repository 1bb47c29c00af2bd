use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use gantry_plugin_sdk::ErrorCode;
use gantry_plugin_sdk::serde_json::{Value, json};

use super::*;

const ID: &str = "eeee000000000000000000000000000000000000000000000000000000000001";

/// A plugin that writes down what it is told, and makes a link when it is the first.
const PLUGIN: &str = r#"#!/bin/sh
name=$(basename "$0")
cat > "$(dirname "$0")/$name.$CNI_COMMAND"
echo "$CNI_COMMAND $name $CNI_IFNAME $CNI_ARGS" >> "$(dirname "$0")/calls"
[ "$CNI_COMMAND" = ADD ] || exit 0
[ "$name" = one ] && nsenter --net="$CNI_NETNS" ip link add "$CNI_IFNAME" type bridge
cat <<END
{"cniVersion": "1.0.0",
 "interfaces": [{"name": "host0"}, {"name": "$CNI_IFNAME", "mac": "02:00:00:00:00:01", "sandbox": "$CNI_NETNS"}],
 "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1}],
 "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.2.0.0/16", "gw": "10.1.0.9"}]}
END
"#;

const REFUSES: &str = r#"#!/bin/sh
echo "$CNI_COMMAND refuses" >> "$(dirname "$0")/calls"
[ "$CNI_COMMAND" = ADD ] || exit 0
cat <<'END'
{"cniVersion": "1.0.0", "code": 7, "msg": "no such thing", "details": "look at\nit"}
END
exit 1
"#;

const HANGS: &str = r#"#!/bin/sh
[ "$CNI_COMMAND" = ADD ] || exit 0
sleep 600 &
echo $! > "$(dirname "$0")/pid"
wait
"#;

struct Rig {
    dir: tempfile::TempDir,
    driver: CniNetwork,
    sandbox: OwnedFd,
}

fn open(dir: &Path) -> CniNetwork {
    let config = DriverConfig {
        name: "cni".into(),
        root: dir.join("root"),
        run: dir.join("run"),
        tag: "0123abcd".into(),
        options: json!({"bin": [dir], "conf": dir.join("net.d"), "timeout": 60}),
    };
    CniNetwork::new(config, Log::none()).unwrap()
}

fn network(options: &[(&str, &str)]) -> NetworkSpec {
    let option = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    NetworkSpec {
        id: "n".repeat(64),
        name: "lan".into(),
        subnets: Vec::new(),
        internal: false,
        options: options.iter().map(option).collect(),
    }
}

fn list(plugins: &[&str]) -> String {
    let plugin = |kind: &&str| json!({"type": kind, "capabilities": {"mac": *kind != "two"}});
    let plugins: Vec<_> = plugins.iter().map(plugin).collect();
    json!({"cniVersion": "1.0.0", "name": "lan", "plugins": plugins}).to_string()
}

impl Rig {
    fn new(plugins: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let programs = [
            ("one", PLUGIN),
            ("two", PLUGIN),
            ("refuses", REFUSES),
            ("hangs", HANGS),
        ];
        for (name, text) in programs {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let driver = open(dir.path());
        let spec = network(&[("conflist", &list(plugins))]);
        driver.create_network(&Call::default(), spec).unwrap();
        let (sandbox, ()) = netns::create(|| Ok(())).unwrap();
        Self {
            dir,
            driver,
            sandbox,
        }
    }

    fn endpoint(&self) -> EndpointSpec {
        EndpointSpec {
            network: "n".repeat(64),
            id: ID.into(),
            addresses: Vec::new(),
            mac: Some("02:00:00:00:00:07".into()),
            link: "eth0".into(),
            options: [("cni.args".to_owned(), "A=1".to_owned())].into(),
        }
    }

    fn join(&self, call: &Call<'_>) -> DriverResult<JoinPlan> {
        let fds = [self.sandbox.as_fd()];
        self.driver.join(&call.with_fds(&fds), self.endpoint())
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.dir.path().join("calls"));
        calls.lines().map(str::to_owned).collect()
    }

    fn told(&self, plugin: &str, command: &str) -> Value {
        let path = self.dir.path().join(format!("{plugin}.{command}"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }
}

#[test]
fn plugins_are_told_of_each_other_and_undone_in_reverse() {
    let rig = Rig::new(&["one", "two"]);
    let plan = rig.join(&Call::default()).unwrap();
    assert!(plan.configured && plan.link == "eth0", "{plan:?}");
    assert_eq!(plan.addresses, ["10.1.0.2/24".parse().unwrap()]);
    assert_eq!(
        plan.gateways,
        ["10.1.0.1".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(rig.calls(), ["ADD one eth0 A=1", "ADD two eth0 A=1"]);
    let (one, two) = (rig.told("one", "ADD"), rig.told("two", "ADD"));
    assert_eq!(
        (&one["name"], &one["cniVersion"]),
        (&json!("lan"), &json!("1.0.0"))
    );
    assert_eq!(one["runtimeConfig"], json!({"mac": "02:00:00:00:00:07"}));
    assert_eq!(one["prevResult"], Value::Null);
    assert_eq!(
        two["runtimeConfig"],
        Value::Null,
        "it did not say that it can"
    );
    assert_eq!(two["prevResult"]["ips"][0]["address"], "10.1.0.2/24");

    // Attaching what is attached looks whether it is all there.
    assert_eq!(rig.join(&Call::default()).unwrap(), plan);
    assert_eq!(rig.calls(), ["CHECK one eth0 A=1", "CHECK two eth0 A=1"]);
    let port = PortLease {
        protocol: gantry_plugin_sdk::network::Protocol::Tcp,
        host: "0.0.0.0:8080".parse().unwrap(),
        container_port: 80,
    };
    let request = SetExternal {
        endpoint: rig.endpoint(),
        ports: vec![port],
    };
    let intents = rig.driver.set_external(&Call::default(), request).unwrap();
    assert!(
        matches!(&intents[..], [FirewallIntent::Publish { target, link, .. }]
            if *target == "10.1.0.2:80".parse().unwrap() && link == "host0"),
        "{intents:?}"
    );

    // The next process knows as much, and removes what nobody has.
    let next = open(rig.dir.path());
    next.reconcile(&Call::default(), Reconcile::default())
        .unwrap();
    assert_eq!(rig.calls(), ["DEL two eth0 A=1", "DEL one eth0 A=1"]);
    assert_eq!(
        rig.told("one", "DEL")["prevResult"]["ips"][0]["address"],
        "10.1.0.2/24"
    );
    next.reconcile(&Call::default(), Reconcile::default())
        .unwrap();
    assert!(rig.calls().is_empty());
}

#[test]
fn a_plugin_that_fails_leaves_nothing() {
    let rig = Rig::new(&["one", "refuses"]);
    let error = rig.join(&Call::default()).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArgument, "{error}");
    assert_eq!(
        error.message,
        "CNI plugin \"refuses\" failed to ADD: no such thing: look at it"
    );
    assert_eq!(
        rig.calls(),
        [
            "ADD one eth0 A=1",
            "ADD refuses",
            "DEL refuses",
            "DEL one eth0 A=1"
        ]
    );
    assert!(rig.driver.endpoints.all().is_empty());
}

#[test]
fn a_plugin_that_hangs_is_killed_with_its_children() {
    let rig = Rig::new(&["hangs"]);
    // Long enough for it to have its child.
    let call = Call::default().with_timeout(Duration::from_secs(3));
    let error = rig.join(&call).unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{error}");
    assert_eq!(
        error.message,
        "CNI plugin \"hangs\" did not end its ADD in time and was killed"
    );
    let child = fs::read_to_string(rig.dir.path().join("pid")).unwrap();
    let runs = || {
        let status = fs::read_to_string(format!("/proc/{}/stat", child.trim()));
        status.is_ok_and(|status| !status.contains(") Z "))
    };
    // Who is killed ends when it gets a processor.
    let end = Instant::now() + Duration::from_secs(60);
    while runs() {
        assert!(Instant::now() < end, "its child runs on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn networks_are_found_by_name() {
    let rig = Rig::new(&["one"]);
    let conf = rig.dir.path().join("net.d");
    fs::create_dir(&conf).unwrap();
    fs::write(
        conf.join("10-other.conflist"),
        list(&["one"]).replace("lan", "other"),
    )
    .unwrap();
    fs::write(
        conf.join("20-single.conf"),
        r#"{"cniVersion": "0.4.0", "name": "single", "type": "two"}"#,
    )
    .unwrap();
    fs::write(conf.join("30-broken.conflist"), "{").unwrap();
    fs::write(
        conf.join("40-old.conf"),
        r#"{"cniVersion": "0.2.0", "name": "old", "type": "one"}"#,
    )
    .unwrap();
    fs::write(conf.join("50-ignored.txt"), list(&["one"])).unwrap();
    let validate =
        |options: &[(&str, &str)]| rig.driver.validate(&Call::default(), network(options));
    validate(&[("conf", "other")]).unwrap();
    validate(&[("conf", "single")]).unwrap();
    validate(&[
        ("conflist", &list(&["two"])),
        ("com.docker.network.driver.mtu", "1400"),
    ])
    .unwrap();
    let dir = rig.dir.path().display();
    for (options, words) in [
        (
            vec![],
            format!(
                "there is no CNI network \"lan\" in {dir}/net.d or the driver's options; {dir}/net.d/30-broken.conflist: EOF"
            ),
        ),
        (
            vec![("conf", "old")],
            format!(
                "invalid CNI network \"old\" in {dir}/net.d/40-old.conf: cniVersion \"0.2.0\" is not supported"
            ),
        ),
        (
            vec![("conflist", &*list(&["absent"]))],
            format!("there is no CNI plugin \"absent\" in {dir}"),
        ),
        (
            vec![("conflist", &*list(&["../one"]))],
            "\"../one\" is no plugin's type".into(),
        ),
        (
            vec![("conflist", &*list(&[]))],
            "invalid value for conflist: it has no plugins".into(),
        ),
        (
            vec![("conflist", "{")],
            "invalid value for conflist: EOF".into(),
        ),
        (
            vec![("conf", "a"), ("conflist", "{}")],
            "exclude each other".into(),
        ),
        (vec![("config", "a")], "unknown option \"config\"".into()),
    ] {
        let error = validate(&options).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument, "{error}");
        assert!(
            error.message.contains(&words),
            "{error} does not tell {words}"
        );
    }
    let mut wishing = rig.endpoint();
    wishing.addresses = vec!["10.1.0.3/32".parse().unwrap()];
    let error = rig
        .driver
        .create_endpoint(&Call::default(), wishing)
        .unwrap_err();
    assert!(
        error
            .message
            .contains("no plugin of CNI network \"lan\" has the capability \"ips\""),
        "{error}"
    );
}
