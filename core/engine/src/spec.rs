//! From a record to what the runtime is asked for.

use std::path::{Path, PathBuf};

use gantry_model::container::HostConfig;
use gantry_network::SandboxFiles;
use gantry_runtime::spec::{
    BlkioDevice, DeviceInput, MountInput, NamespaceMode, Propagation, Resources, SeccompChoice,
    ShmInput, SpecInput, TmpfsInput, Ulimit,
};

use crate::config::SeccompDefault;
use crate::container::record::{MountKind, MountPoint, Record};
use crate::security::{self, Security};
use crate::{Engine, EngineError, Result};

/// The files that every container with a network sandbox gets.
const GENERATED: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

impl Engine {
    /// Describes a container to the runtime; `sources` are the host paths of its mounts, in their order.
    pub(crate) fn spec_input(
        &self,
        record: &Record,
        files: &SandboxFiles,
        sources: &[PathBuf],
    ) -> Result<SpecInput> {
        let (config, host) = (&record.config, &record.host_config);
        let mut input = SpecInput::new(record.id.clone(), record.argv());
        input.env = config.env.clone().unwrap_or_default();
        input.cwd.clone_from(&config.working_dir);
        input.user.clone_from(&config.user);
        input.additional_groups = host.group_add.clone().unwrap_or_default();
        input.hostname = match host.uts_mode.as_str() {
            "host" => String::new(),
            _ => config.hostname.clone(),
        };
        input.domainname.clone_from(&config.domainname);
        input.tty = config.tty;
        let words = |list: &Option<gantry_model::container::StrSlice>| {
            list.as_ref().map(|l| l.0.clone()).unwrap_or_default()
        };
        input.cap_add = words(&host.cap_add);
        input.cap_drop = words(&host.cap_drop);
        input.privileged = host.privileged;
        input.masked_paths.clone_from(&host.masked_paths);
        input.readonly_paths.clone_from(&host.readonly_paths);
        input.readonly_root = host.readonly_rootfs;
        input.device_cgroup_rules = host.device_cgroup_rules.clone().unwrap_or_default();
        input.sysctls.clone_from(&host.sysctls);
        input.oom_score_adj = i32::try_from(host.oom_score_adj).unwrap_or(0);
        input.annotations.clone_from(&host.annotations);
        input.cgroup_parent = Some(host.cgroup_parent.clone()).filter(|p| !p.is_empty());
        input.resources = resources(host);
        input.devices = devices(host);
        input.ulimits = self.ulimits(host);
        input.init = self.init(host)?;
        input.userns.clone_from(&record.userns);
        self.namespaces(record, &mut input)?;
        self.security(host, &mut input)?;
        let apart = self.volume_mounts(&record.id);
        mounts(record, files, sources, &apart, &mut input);
        Ok(input)
    }

    fn ulimits(&self, host: &HostConfig) -> Vec<Ulimit> {
        let given = host.ulimits.iter().flatten();
        let config = self.config.load();
        let defaults = config
            .ulimits
            .iter()
            .filter(|d| !given.clone().any(|u| u.name == d.name));
        given
            .clone()
            .chain(defaults)
            .map(|u| Ulimit {
                name: u.name.clone(),
                soft: u.soft,
                hard: u.hard,
            })
            .collect()
    }

    fn init(&self, host: &HostConfig) -> Result<Option<PathBuf>> {
        let config = self.config.load();
        if !host.init.unwrap_or(config.init) {
            return Ok(None);
        }
        match &config.init_path {
            Some(path) => Ok(Some(path.clone())),
            None => Err(EngineError::internal(
                "no init program is installed: docker-init or tini-static is needed for --init",
            )),
        }
    }

    fn namespaces(&self, record: &Record, input: &mut SpecInput) -> Result<()> {
        let host = &record.host_config;
        let spaces = &mut input.namespaces;
        if host.network_mode == "host" {
            spaces.network = NamespaceMode::Host;
        }
        if host.uts_mode == "host" {
            spaces.uts = NamespaceMode::Host;
        }
        if host.cgroupns_mode == "host" {
            spaces.cgroup = NamespaceMode::Host;
        }
        spaces.pid = match host.pid_mode.as_str() {
            "host" => NamespaceMode::Host,
            mode => match mode.strip_prefix("container:") {
                Some(other) => NamespaceMode::Join(self.other_namespace(other, "PID", "pid")?),
                None => NamespaceMode::Private,
            },
        };
        input.shm = ShmInput::Private {
            size: u64::try_from(host.shm_size).unwrap_or(ShmInput::DEFAULT_SIZE),
        };
        match host.ipc_mode.as_str() {
            "host" => {
                spaces.ipc = NamespaceMode::Host;
                input.shm = ShmInput::Bind("/dev/shm".into());
            }
            "none" => input.shm = ShmInput::None,
            mode => {
                if let Some(other) = mode.strip_prefix("container:") {
                    let donor = self.find(other)?.record();
                    if !matches!(donor.host_config.ipc_mode.as_str(), "shareable" | "host") {
                        return Err(EngineError::conflict(format!(
                            "cannot join IPC of a container {other}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
                        )));
                    }
                    spaces.ipc = NamespaceMode::Join(self.other_namespace(other, "IPC", "ipc")?);
                    input.shm =
                        ShmInput::Bind(format!("/proc/{}/root/dev/shm", donor.state.pid).into());
                }
            }
        }
        Ok(())
    }

    /// A namespace of another running container.
    pub(crate) fn other_namespace(&self, other: &str, what: &str, kind: &str) -> Result<PathBuf> {
        let container = self.find(other)?;
        let state = &container.record().state;
        if !state.phase.has_process() {
            return Err(EngineError::conflict(format!(
                "cannot join {what} namespace of a non running container: {other}"
            )));
        }
        Ok(format!("/proc/{}/ns/{kind}", state.pid).into())
    }

    fn security(&self, host: &HostConfig, input: &mut SpecInput) -> Result<()> {
        let config = self.config.load();
        let options = host.security_opt.as_deref().unwrap_or_default();
        let asked = Security::parse(options, self.services.runtime.host().apparmor)?;
        input.no_new_privileges = asked.no_new_privileges.unwrap_or(config.no_new_privileges);
        input.seccomp = asked.seccomp.unwrap_or_else(|| match &config.seccomp {
            SeccompDefault::Builtin => SeccompChoice::Default,
            _ if host.privileged => SeccompChoice::Default,
            SeccompDefault::Unconfined => SeccompChoice::Unconfined,
            SeccompDefault::Profile(profile) => SeccompChoice::Profile(profile.clone()),
        });
        input.apparmor_profile = asked.apparmor;
        input.writable_cgroups = asked.writable_cgroups;
        if asked.unmasked {
            input.masked_paths = Some(Vec::new());
            input.readonly_paths = Some(Vec::new());
        }
        input.cdi_dirs.clone_from(&config.cdi_spec_dirs);
        input.cdi_devices = security::devices(host, !config.cdi_spec_dirs.is_empty())?;
        Ok(())
    }
}

pub(crate) fn resources(host: &HostConfig) -> Resources {
    let set = |value: i64| (value != 0).then_some(value);
    let positive = |value: i64| u64::try_from(value).ok().filter(|v| *v > 0);
    let text = |value: &String| Some(value.clone()).filter(|v| !v.is_empty());
    let devices = |list: &Option<Vec<gantry_model::container::ThrottleDevice>>| {
        list.iter()
            .flatten()
            .map(|d| BlkioDevice {
                path: d.path.clone().into(),
                rate: d.rate,
            })
            .collect::<Vec<_>>()
    };
    // Whole CPUs in billionths, over a period of 100 ms.
    let (quota, period) = match host.nano_cpus {
        0 => (set(host.cpu_quota), positive(host.cpu_period)),
        nano => (Some(nano / 10_000), Some(100_000)),
    };
    Resources {
        memory: set(host.memory),
        memory_swap: set(host.memory_swap),
        memory_reservation: set(host.memory_reservation),
        memory_swappiness: host.memory_swappiness.and_then(|s| u64::try_from(s).ok()),
        kernel_memory_tcp: set(host.kernel_memory_tcp),
        oom_kill_disable: host.oom_kill_disable.filter(|disable| *disable),
        cpu_shares: positive(host.cpu_shares),
        cpu_quota: quota,
        cpu_period: period,
        cpu_realtime_runtime: set(host.cpu_realtime_runtime),
        cpu_realtime_period: positive(host.cpu_realtime_period),
        cpuset_cpus: text(&host.cpuset_cpus),
        cpuset_mems: text(&host.cpuset_mems),
        pids_limit: host.pids_limit,
        blkio_weight: (host.blkio_weight != 0).then_some(host.blkio_weight),
        blkio_weight_device: host
            .blkio_weight_device
            .iter()
            .flatten()
            .map(|d| BlkioDevice {
                path: d.path.clone().into(),
                rate: d.weight.into(),
            })
            .collect(),
        blkio_read_bps: devices(&host.blkio_device_read_bps),
        blkio_write_bps: devices(&host.blkio_device_write_bps),
        blkio_read_iops: devices(&host.blkio_device_read_iops),
        blkio_write_iops: devices(&host.blkio_device_write_iops),
    }
}

fn devices(host: &HostConfig) -> Vec<DeviceInput> {
    host.devices
        .iter()
        .flatten()
        .map(|d| DeviceInput {
            path_on_host: d.path_on_host.clone().into(),
            path_in_container: match d.path_in_container.as_str() {
                "" => d.path_on_host.clone(),
                path => path.to_owned(),
            },
            permissions: match d.cgroup_permissions.as_str() {
                "" => "rwm".into(),
                letters => letters.to_owned(),
            },
        })
        .collect()
}

fn propagation(word: &str) -> Propagation {
    match word {
        "private" => Propagation::Private,
        "shared" => Propagation::Shared,
        "rshared" => Propagation::RShared,
        "slave" => Propagation::Slave,
        "rslave" => Propagation::RSlave,
        _ => Propagation::RPrivate,
    }
}

fn bind(point: &MountPoint, source: &Path) -> MountInput {
    MountInput {
        read_only: !point.rw,
        propagation: propagation(&point.propagation),
        non_recursive: point.non_recursive,
        read_only_non_recursive: point.read_only_non_recursive,
        read_only_force_recursive: point.read_only_force_recursive,
        ..MountInput::bind(source, point.destination.clone())
    }
}

/// The mounts of a container; below `apart` are volumes that are file systems of their own.
fn mounts(
    record: &Record,
    files: &SandboxFiles,
    sources: &[PathBuf],
    apart: &Path,
    input: &mut SpecInput,
) {
    for (point, source) in record.mounts.iter().zip(sources) {
        match point.kind {
            MountKind::Tmpfs => input.tmpfs.push(TmpfsInput {
                target: point.destination.clone(),
                options: point.tmpfs.clone(),
            }),
            MountKind::Bind | MountKind::Volume | MountKind::Image => {
                // What the engine keeps belongs to the container's root. A path of the host's keeps its owners
                // unless it is wished otherwise, and a
                // file system of somebody else's may not be able to map them.
                let kept = point.kind != MountKind::Bind && !source.starts_with(apart);
                let idmapped = kept || point.is_idmapped();
                input.mounts.push(MountInput {
                    idmapped,
                    ..bind(point, source)
                });
            }
        }
    }
    for (target, source) in
        GENERATED
            .into_iter()
            .zip([&files.hosts, &files.hostname, &files.resolv_conf])
    {
        // A mount of the user's own goes before the generated file.
        if record.mounts.iter().any(|m| m.destination == target) {
            continue;
        }
        input.mounts.push(MountInput {
            read_only: record.host_config.readonly_rootfs,
            idmapped: true,
            ..MountInput::bind(source, target)
        });
    }
}
