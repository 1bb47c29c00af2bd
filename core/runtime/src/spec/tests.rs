//! The specification against Docker's.

use std::path::Path;

use gantry_model::ContainerId;
use gantry_sys::host::HostFacts;
use oci_spec::runtime as oci;

use super::*;
use crate::lower::lower;
use crate::seccomp::Seccomp;

struct Bed {
    host: HostFacts,
    seccomp: Seccomp,
}

impl Bed {
    fn new() -> Self {
        let host = crate::tests::host();
        let seccomp = Seccomp::new(&host).unwrap();
        Self { host, seccomp }
    }
    fn build(&self, change: impl FnOnce(&mut SpecInput)) -> Result<ContainerSpec, SpecError> {
        let mut input = SpecInput::new(ContainerId::generate(), vec!["true".into()]);
        change(&mut input);
        let context = Context {
            host: &self.host,
            seccomp: &self.seccomp,
            cgroup_parent: "gantry-x",
            sys: Path::new("/nonexistent"),
        };
        build(&input, &context)
    }
    fn refused(&self, change: impl FnOnce(&mut SpecInput)) -> String {
        self.build(change).unwrap_err().to_string()
    }
}

fn mounts(spec: &ContainerSpec) -> Vec<(String, String)> {
    let mounts = spec.oci.mounts().as_ref().unwrap();
    mounts
        .iter()
        .map(|m| {
            let options = m.options().clone().unwrap_or_default().join(",");
            (m.destination().display().to_string(), options)
        })
        .collect()
}

fn options(spec: &ContainerSpec, target: &str) -> String {
    let all = mounts(spec);
    let found = all.iter().find(|(t, _)| t == target);
    found.map(|(_, o)| o.clone()).unwrap_or_default()
}

fn linux(spec: &ContainerSpec) -> &oci::Linux {
    spec.oci.linux().as_ref().unwrap()
}

#[test]
fn defaults_are_dockers() {
    let spec = Bed::new().build(|_| {}).unwrap();
    let targets: Vec<String> = mounts(&spec).into_iter().map(|(t, _)| t).collect();
    assert_eq!(
        targets,
        [
            "/proc",
            "/dev",
            "/dev/pts",
            "/sys",
            "/sys/fs/cgroup",
            "/dev/mqueue",
            "/dev/shm"
        ]
    );
    assert_eq!(
        options(&spec, "/dev"),
        "nosuid,strictatime,mode=755,size=65536k"
    );
    assert_eq!(
        options(&spec, "/dev/shm"),
        "nosuid,noexec,nodev,mode=1777,size=67108864"
    );
    assert_eq!(options(&spec, "/sys/fs/cgroup"), "ro,nosuid,noexec,nodev");
    assert_eq!(linux(&spec).masked_paths().as_ref().unwrap().len(), 12);
    assert_eq!(linux(&spec).readonly_paths().as_ref().unwrap().len(), 5);
    assert!(linux(&spec).seccomp().is_some());
    let rules = linux(&spec).resources().as_ref().unwrap().devices();
    assert!(!rules.as_ref().unwrap()[0].allow());
    let path = linux(&spec).cgroups_path().as_ref().unwrap();
    assert!(path.starts_with("/gantry-x") && path.components().count() == 3);
}

#[test]
fn a_privileged_container() {
    let spec = Bed::new()
        .build(|i| {
            i.privileged = true;
            i.cap_drop = vec!["ALL".into()];
        })
        .unwrap();
    assert_eq!(options(&spec, "/sys"), "nosuid,noexec,nodev");
    assert_eq!(options(&spec, "/sys/fs/cgroup"), "nosuid,noexec,nodev");
    assert!(linux(&spec).seccomp().is_none());
    assert!(linux(&spec).masked_paths().as_ref().unwrap().is_empty());
    let devices = linux(&spec).devices().as_ref().unwrap();
    assert!(devices.iter().any(|d| d.path() == Path::new("/dev/null")));
    let process = spec.oci.process().as_ref().unwrap();
    let caps = process.capabilities().as_ref().unwrap();
    assert!(
        caps.effective()
            .as_ref()
            .unwrap()
            .contains(&oci::Capability::SysAdmin)
    );
}

#[test]
fn own_mounts_replace_dockers_and_lie_in_order() {
    let spec = Bed::new()
        .build(|i| {
            i.mounts = vec![
                MountInput::bind("/a", "/x/y/z"),
                MountInput::bind("/b", "/x"),
                MountInput::bind("/c", "/dev/shm"),
            ];
            i.mounts[1].read_only = true;
            i.mounts[0].propagation = Propagation::RShared;
            i.init = Some("/usr/bin/tini".into());
            i.readonly_root = true;
        })
        .unwrap();
    let targets: Vec<String> = mounts(&spec).into_iter().map(|(t, _)| t).collect();
    assert_eq!(
        targets[6..],
        ["/x", "/dev/shm", "/x/y/z", "/sbin/docker-init"]
    );
    assert_eq!(options(&spec, "/x"), "rbind,rro,rprivate");
    assert_eq!(options(&spec, "/x/y/z"), "rbind,rshared");
    assert_eq!(linux(&spec).rootfs_propagation().as_deref(), Some("shared"));
    let args = spec.oci.process().as_ref().unwrap().args().clone().unwrap();
    assert_eq!(args, ["/sbin/docker-init", "--", "true"]);
    let spec = Bed::new()
        .build(|i| i.mounts = vec![MountInput::bind("/dev", "/dev/")])
        .unwrap();
    let targets: Vec<String> = mounts(&spec).into_iter().map(|(t, _)| t).collect();
    assert_eq!(targets, ["/proc", "/sys", "/sys/fs/cgroup", "/dev/"]);
    let lowered = lower(
        &spec,
        gantry_driver_api::MountPlan { mounts: Vec::new() },
        &Bed::new().seccomp,
    );
    assert!(lowered.unwrap().plan.devices.is_empty());
}

#[test]
fn environment_is_merged_as_docker_does() {
    let spec = Bed::new()
        .build(|i| {
            i.tty = true;
            i.env = ["PATH=/mine", "A=1", "A=2", "HOSTNAME", "EMPTY=", "NOTHING"]
                .map(str::to_owned)
                .to_vec();
        })
        .unwrap();
    let env = spec.oci.process().as_ref().unwrap().env().clone().unwrap();
    assert_eq!(env, ["PATH=/mine", "TERM=xterm", "A=2", "EMPTY="]);
}

#[test]
fn numbers_of_users_decide_on_capabilities() {
    let bed = Bed::new();
    let effective = |user: &str| {
        let spec = bed.build(|i| i.user = user.into()).unwrap();
        let process = spec.oci.process().clone().unwrap();
        let caps = process.capabilities().clone().unwrap();
        assert_eq!(caps.bounding().as_ref().unwrap().len(), 14);
        caps.effective().as_ref().unwrap().len()
    };
    assert_eq!(
        [effective(""), effective("0:5"), effective("7")],
        [14, 14, 0]
    );
}

#[test]
fn what_has_no_meaning_is_refused() {
    let bed = Bed::new();
    assert_eq!(bed.refused(|i| i.argv.clear()), "no command specified");
    assert!(
        bed.refused(|i| i.cap_add = vec!["NOPE".into()])
            .contains("unknown capability")
    );
    assert!(bed.refused(|i| i.cwd = "here".into()).contains("absolute"));
    for target in ["x", "/", "/../x"] {
        bed.refused(|i| i.mounts = vec![MountInput::bind("/a", target)]);
    }
    let rule = bed.refused(|i| i.device_cgroup_rules = vec!["c 1:1 x".into()]);
    assert_eq!(rule, "invalid device cgroup rule format: 'c 1:1 x'");
    let device = bed.refused(|i| {
        i.devices = vec![DeviceInput {
            path_on_host: "/dev/none".into(),
            path_in_container: "/dev/none".into(),
            permissions: "rwm".into(),
        }];
    });
    assert!(device.contains("no such file or directory"), "{device}");
    let ulimit = |name: &str, soft, hard| {
        bed.refused(|i| {
            i.ulimits = vec![Ulimit {
                name: name.into(),
                soft,
                hard,
            }];
        })
    };
    assert!(ulimit("nofile", 5, 4).contains("less than or equal"));
    assert!(ulimit("nothing", 1, 1).contains("invalid ulimit type"));
}

#[test]
fn every_ulimit_of_docker_is_known() {
    let names = "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack";
    Bed::new()
        .build(|i| {
            let ulimit = |name: &str| Ulimit {
                name: name.into(),
                soft: -1,
                hard: -1,
            };
            i.ulimits = names.split(' ').map(ulimit).collect();
        })
        .unwrap();
}

#[test]
fn limits_survive_the_way_through_the_oci_form() {
    let given = Resources {
        memory: Some(100 << 20),
        memory_reservation: Some(50 << 20),
        kernel_memory_tcp: Some(16 << 20),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        cpuset_cpus: Some("0".into()),
        pids_limit: Some(10),
        ..Resources::default()
    };
    let limits = resources::to_limits(&given).unwrap();
    assert_eq!(limits.memory_swap, Some(200 << 20));
    let there = resources::to_oci(&given).unwrap();
    assert_eq!(resources::from_oci(&there).unwrap(), limits);
}

#[test]
fn a_plan_is_complete() {
    let bed = Bed::new();
    let spec = bed
        .build(|i| {
            i.user = "web".into();
            i.additional_groups = vec!["x".into()];
            i.namespaces.pid = NamespaceMode::Host;
            i.namespaces.ipc = NamespaceMode::Join("/proc/1/ns/ipc".into());
            i.no_new_privileges = true;
        })
        .unwrap();
    let root = gantry_driver_api::MountPlan { mounts: Vec::new() };
    let lowered = lower(&spec, root.clone(), &bed.seccomp).unwrap();
    use gantry_monitor::plan::Namespace;
    assert_eq!(lowered.namespaces.pid, Namespace::Host);
    assert_eq!(
        lowered.namespaces.ipc,
        Namespace::Path("/proc/1/ns/ipc".into())
    );
    assert_eq!(lowered.namespaces.net, Namespace::New);
    let process = &lowered.plan.process;
    assert_eq!(process.capabilities.bounding, 0xa804_25fb);
    assert!(process.no_new_privileges);
    assert!(!process.seccomp.as_ref().unwrap().program.is_empty());
    assert_eq!(lowered.plan.devices.len(), 6);
    // What would be ignored is refused.
    let mut other = spec.clone();
    let mut linux = other.oci.linux().clone().unwrap();
    linux.set_mount_label(Some("label".into()));
    other.oci.set_linux(Some(linux));
    let error = lower(&other, root, &bed.seccomp).unwrap_err();
    assert_eq!(error, SpecError::Unsupported("linux.mountLabel".into()));
}

#[test]
fn a_user_namespace_and_hooks_reach_the_plan() {
    use gantry_monitor::plan::Namespace;
    let bed = Bed::new();
    let maps = crate::UserNs::range(200_000, 65_536);
    let mut spec = bed
        .build(|i| {
            i.userns = Some(maps.clone());
            i.mounts = vec![
                MountInput::bind("/a", "/bound"),
                MountInput {
                    idmapped: true,
                    ..MountInput::bind("/b", "/volume")
                },
            ];
        })
        .unwrap();
    let hooks = r#"{"prestart":[{"path":"/a"}],"createRuntime":[{"path":"/b","args":["b","c"],"timeout":3}]}"#;
    spec.oci.set_hooks(serde_json::from_str(hooks).unwrap());
    let root = gantry_driver_api::MountPlan { mounts: Vec::new() };
    let lowered = lower(&spec, root, &bed.seccomp).unwrap();
    assert_eq!(lowered.namespaces.user, Namespace::New);
    assert_eq!(lowered.userns, maps);
    let mapped: Vec<_> = lowered.plan.mounts.iter().filter(|m| m.idmapped).collect();
    assert_eq!(mapped.len(), 1);
    assert_eq!(mapped[0].target, Path::new("/volume"));
    let hooks = &lowered.hooks.create_runtime;
    assert_eq!(hooks[0].args, ["/a"]);
    assert_eq!((hooks[1].args.len(), hooks[1].timeout), (2, Some(3)));
    // Without a user namespace there is nothing to map to.
    let spec = bed.build(|i| {
        i.mounts = vec![MountInput {
            idmapped: true,
            ..MountInput::bind("/b", "/volume")
        }];
    });
    assert_eq!(options(&spec.unwrap(), "/volume"), "rbind,rprivate");
}

#[test]
fn devices_by_name_are_injected() {
    let dir = tempfile::tempdir().unwrap();
    let file = r#"{"cdiVersion":"0.5.0","kind":"v.com/c","devices":[{"name":"d","containerEdits":{"env":["FOO=bar"]}}]}"#;
    std::fs::write(dir.path().join("v.json"), file).unwrap();
    let bed = Bed::new();
    let build = |name: &str| {
        bed.build(|i| {
            i.cdi_devices = vec![name.into()];
            i.cdi_dirs = vec![dir.path().into()];
        })
    };
    let spec = build("v.com/c=d").unwrap();
    let env = spec.oci.process().as_ref().unwrap().env().clone().unwrap();
    assert!(env.contains(&"FOO=bar".to_owned()), "{env:?}");
    assert_eq!(
        build("v.com/c=e").unwrap_err().to_string(),
        "CDI device injection failed: unresolvable CDI devices v.com/c=e"
    );
}

#[test]
fn settings_of_the_host_are_not_set() {
    let bed = Bed::new();
    let words = bed.refused(|i| {
        i.namespaces.network = NamespaceMode::Host;
        i.sysctls.insert("net.ipv4.ip_forward".into(), "1".into());
    });
    assert!(
        words.contains("not allowed in host network namespace"),
        "{words}"
    );
}
