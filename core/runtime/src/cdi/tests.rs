//! Specifications as vendors write them.

use std::path::Path;

use gantry_model::ContainerId;
use oci_spec::runtime as oci;

use super::*;
use crate::{SpecInput, UserSpec};

const YAML: &str = r#"
cdiVersion: "0.6.0"
kind: vendor.com/device
devices:
  - name: zero
    containerEdits:
      env: [WHICH=zero]
      deviceNodes:
        - path: /dev/vendor0
          hostPath: /dev/zero
          permissions: r
      intelRdt: {closID: x}
  - name: "null"
    containerEdits:
      deviceNodes: [{path: /dev/null1, type: c, major: 1, minor: 3, fileMode: 0o600, uid: 7}]
containerEdits:
  env: ["VENDOR=yes", "PATH=/vendor"]
  mounts:
    - {hostPath: /usr/share, containerPath: /opt/vendor, options: [ro, nosuid]}
  additionalGids: [44, 0]
  hooks:
    - {hookName: createContainer, path: /usr/bin/vendor-hook, args: [vendor-hook, update]}
"#;

fn spec() -> ContainerSpec {
    let input = SpecInput::new(ContainerId::generate(), vec!["true".into()]);
    let mut oci = oci::Spec::default();
    let mut process = oci::Process::default();
    process.set_env(Some(vec!["PATH=/bin".into()]));
    oci.set_process(Some(process));
    oci.set_mounts(Some(Vec::new()));
    ContainerSpec {
        oci,
        user: UserSpec {
            name: input.user,
            groups: Vec::new(),
        },
    }
}

fn found(files: &[(&str, &str)]) -> (tempfile::TempDir, Devices) {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let dirs = ["low", "high", "none"].map(|d| dir.path().join(d));
    let devices = Devices::discover(&dirs);
    (dir, devices)
}

#[test]
fn a_device_brings_what_its_file_says() {
    let (_dir, devices) = found(&[("low/vendor.yaml", YAML)]);
    assert_eq!(devices.errors, []);
    let names: Vec<&str> = devices.names().collect();
    assert_eq!(names, ["vendor.com/device=null", "vendor.com/device=zero"]);
    let mut spec = spec();
    let wanted = ["vendor.com/device=zero", "vendor.com/device=null"].map(str::to_owned);
    devices.inject(&mut spec, &wanted).unwrap();
    let process = spec.oci.process().clone().unwrap();
    assert_eq!(
        process.env().clone().unwrap(),
        ["PATH=/vendor", "VENDOR=yes", "WHICH=zero"]
    );
    assert_eq!(spec.user.groups, ["44"]);
    let linux = spec.oci.linux().clone().unwrap();
    let nodes = linux.devices().clone().unwrap();
    let numbers: Vec<_> = nodes.iter().map(|d| (d.major(), d.minor())).collect();
    assert_eq!(numbers, [(1, 5), (1, 3)]);
    assert_eq!(
        (nodes[1].file_mode(), nodes[1].uid()),
        (Some(0o600), Some(7))
    );
    let rules = linux.resources().clone().unwrap().devices().clone();
    let access: Vec<_> = rules.unwrap().iter().map(|r| r.access().clone()).collect();
    assert_eq!(access, [Some("r".to_owned()), Some("rwm".to_owned())]);
    let mounts = spec.oci.mounts().clone().unwrap();
    assert_eq!(mounts[0].destination(), Path::new("/opt/vendor"));
    assert_eq!(
        mounts[0].options().clone().unwrap(),
        ["ro", "nosuid", "bind"]
    );
    let hooks = spec.oci.hooks().clone().unwrap();
    assert_eq!(hooks.create_container().as_ref().unwrap().len(), 1);
}

#[test]
fn what_cannot_be_resolved_is_named() {
    let (_dir, devices) = found(&[("low/vendor.yaml", YAML)]);
    let refused = |name: &str| {
        let mut spec = spec();
        devices
            .inject(&mut spec, &[name.to_owned()])
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused("vendor.com/device=other"),
        "CDI device injection failed: unresolvable CDI devices vendor.com/device=other"
    );
    let json = r#"{"cdiVersion":"0.3.0","kind":"a/b","devices":[
        {"name":"gone","containerEdits":{"deviceNodes":[{"path":"/dev/no-such-device"}]}},
        {"name":"net","containerEdits":{"netDevices":[{"hostInterfaceName":"eth9"}]}},
        {"name":"hook","containerEdits":{"hooks":[{"hookName":"never","path":"/x"}]}}]}"#;
    let (_dir, devices) = found(&[("low/a.json", json)]);
    let refused = |name: &str| {
        let mut spec = spec();
        devices
            .inject(&mut spec, &[name.to_owned()])
            .unwrap_err()
            .to_string()
    };
    assert!(refused("a/b=gone").ends_with("\"/dev/no-such-device\": no such file or directory"));
    assert!(refused("a/b=net").contains("network devices"));
    assert!(refused("a/b=hook").contains("invalid hook name \"never\""));
}

#[test]
fn later_directories_win_and_contradictions_count_for_nothing() {
    let device = |version: &str, kind: &str, env: &str| {
        format!(
            r#"{{"cdiVersion":"{version}","kind":"{kind}","devices":[{{"name":"d","containerEdits":{{"env":["{env}"]}}}}]}}"#
        )
    };
    let (low, high) = (
        device("0.5.0", "v.com/c", "A=low"),
        device("1.0.0", "v.com/c", "A=high"),
    );
    let (_dir, devices) = found(&[("low/x.json", &low), ("high/x.json", &high)]);
    let mut spec = spec();
    devices.inject(&mut spec, &["v.com/c=d".into()]).unwrap();
    let env = spec.oci.process().clone().unwrap().env().clone().unwrap();
    assert_eq!(env[1], "A=high");
    let (_dir, devices) = found(&[("low/x.json", &low), ("low/y.json", &high)]);
    assert_eq!(devices.names().count(), 0);
    assert_eq!(devices.errors.len(), 1);
    let bad = [
        ("low/a.json", "{".to_owned()),
        ("low/b.json", device("9.0.0", "v.com/c", "")),
        ("low/c.json", device("0.5.0", "nothing", "")),
        (
            "low/d.yaml",
            "cdiVersion: 0.5.0\nkind: v.com/c\n".to_owned(),
        ),
        ("low/e.txt", "ignored".to_owned()),
    ];
    let bad: Vec<(&str, &str)> = bad.iter().map(|(p, t)| (*p, t.as_str())).collect();
    let (_dir, devices) = found(&bad);
    assert_eq!((devices.names().count(), devices.errors.len()), (0, 4));
}
