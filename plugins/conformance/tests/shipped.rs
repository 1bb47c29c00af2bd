//! Every shipped driver but macvlan and ipvlan, which need a parent link and have tests of their own, keeps its contract, in
//! process and isolated. Needs root and a built workspace.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gantry_driver_registry::Isolation;
use gantry_fixtures::{Etcd, Hosts};
use gantry_plugin_conformance::{
    Outcome, RegistryFixture, Run, driver_host, run, run_inside, shipped,
};

fn verify(driver: &str, isolation: Isolation) {
    let plan = Run {
        plugin: shipped(driver).expect("the plugin is built"),
        isolation,
        options: serde_json::json!({}),
        driver_host: driver_host().expect("gantry-driver-host is built"),
        fixture: None,
    };
    let report = run(&plan).unwrap();
    assert_eq!(report.failed().count(), 0, "\n{report}");
    assert!(report.checks.len() >= 5, "\n{report}");
}

macro_rules! verified {
    ($($driver:ident)*) => { $(
        mod $driver {
            use super::*;

            #[test]
            fn in_process() {
                verify(stringify!($driver), Isolation::None);
            }

            #[test]
            fn isolated() {
                verify(stringify!($driver), Isolation::Process);
            }
        }
    )* };
}

verified! { storage_overlayfs storage_native network_bridge network_host network_none volume_local registry_hub registry_oci_dir }

/// On a host of two, the other of which has the store.
#[test]
fn networks_over_several_hosts() {
    let hosts = Hosts::new(2);
    let etcd = Etcd::start(&[hosts.host(2)]);
    for isolation in [Isolation::None, Isolation::Process] {
        let plan = Run {
            plugin: shipped("network_overlay").expect("the plugin is built"),
            isolation,
            options: serde_json::json!({"etcd": etcd.endpoints()}),
            driver_host: driver_host().expect("gantry-driver-host is built"),
            fixture: None,
        };
        let report = run_inside(&plan, &hosts.host(1).namespace).unwrap();
        assert_eq!(report.failed().count(), 0, "{isolation:?}\n{report}");
        let skipped = |check: &&gantry_plugin_conformance::Check| {
            matches!(check.outcome, Outcome::Skipped(_))
        };
        assert_eq!(report.checks.iter().filter(skipped).count(), 0, "{report}");
    }
}

/// With a plugin whose links go with their sandboxes; a bridge would stay until its network is removed.
#[test]
fn networks_of_cni_plugins() {
    let dir = tempfile::tempdir().unwrap();
    let ipam = serde_json::json!({
        "type": "host-local",
        "dataDir": dir.path(),
        "subnet": "10.213.7.0/24",
        "routes": [{"dst": "0.0.0.0/0"}],
    });
    let list =
        serde_json::json!({"cniVersion": "1.0.0", "plugins": [{"type": "ptp", "ipam": ipam}]});
    for isolation in [Isolation::None, Isolation::Process] {
        let plan = Run {
            plugin: shipped("network_cni").expect("the plugin is built"),
            isolation,
            options: serde_json::json!({"bin": ["/usr/lib/cni"], "networks": {"verify": list}}),
            driver_host: driver_host().expect("gantry-driver-host is built"),
            fixture: None,
        };
        let report = run(&plan).unwrap();
        assert_eq!(report.failed().count(), 0, "{isolation:?}\n{report}");
    }
    let leases = std::fs::read_dir(dir.path().join("verify")).unwrap();
    let left: Vec<_> = leases.flatten().map(|entry| entry.file_name()).collect();
    assert!(
        left.iter()
            .all(|name| !name.to_string_lossy().starts_with("10.")),
        "{left:?}"
    );
}

fn run_tool(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

/// Makes the image `box:1` in the layout `root/box`, and returns the digest of its configuration.
fn make_image(root: &Path) -> String {
    let layout = root.join("box").display().to_string();
    let image = format!("{layout}:1");
    run_tool("umoci", &["init", "--layout", &layout]);
    run_tool("umoci", &["new", "--image", &image]);
    let manifest = Command::new("skopeo")
        .args(["inspect", "--raw", &format!("oci:{image}")])
        .output()
        .unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest.stdout).unwrap();
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}

/// What registries keep, they keep with the registry there. Only what a server does not do may be skipped.
fn verify_with(
    driver: &str,
    isolation: Isolation,
    options: serde_json::Value,
    url: &str,
    blob: &str,
) {
    let plan = Run {
        plugin: shipped(driver).expect("the plugin is built"),
        isolation,
        options,
        driver_host: driver_host().expect("gantry-driver-host is built"),
        fixture: Some(RegistryFixture::new(url, "box", "1", blob)),
    };
    let report = run(&plan).unwrap();
    assert_eq!(report.failed().count(), 0, "\n{report}");
    let skipped = |outcome: &Outcome| matches!(outcome, Outcome::Skipped(_));
    let skipped = report.checks.iter().filter(|c| skipped(&c.outcome)).count();
    assert!(skipped <= 1, "\n{report}");
}

#[test]
fn registries_on_disk() {
    for isolation in [Isolation::None, Isolation::Process] {
        let dir = tempfile::tempdir().unwrap();
        let blob = make_image(dir.path());
        let options = serde_json::json!({"root": dir.path()});
        verify_with(
            "registry_oci_dir",
            isolation,
            options,
            "oci-dir://airgap.local",
            &blob,
        );
    }
}

/// A server that ends with its test, however that ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn registries_on_the_network() {
    let dir = tempfile::tempdir().unwrap();
    let blob = make_image(dir.path());
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = dir.path().join("config.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '127.0.0.1:{port}'}}\nstorage: {{filesystem: \
         {{rootdirectory: {}/data}}, delete: {{enabled: true}}}}\n",
        dir.path().display()
    );
    std::fs::write(&config, text).unwrap();
    let server = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Server(server);
    let until = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "docker-registry does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    let source = format!("oci:{}/box:1", dir.path().display());
    let target = format!("docker://127.0.0.1:{port}/box:1");
    run_tool(
        "skopeo",
        &[
            "copy",
            "--quiet",
            "--insecure-policy",
            "--dest-tls-verify=false",
            &source,
            &target,
        ],
    );
    let url = format!("http://127.0.0.1:{port}");
    verify_with(
        "registry_hub",
        Isolation::None,
        serde_json::json!({}),
        &url,
        &blob,
    );
}
