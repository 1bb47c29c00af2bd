//! From flags to the body of `POST /containers/create`, as Docker's client makes it.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};

use super::body::{Config, CreateBody, Health, HostConfig, LogConfig, NetworkingConfig, Resources};
use super::devices::devices;
use super::flags::ContainerFlags;
use super::limits::{RestartPolicy, Ulimit, restart_policy};
use super::mounts::{tmpfs, volumes};
use super::network::{endpoints, mac};
use super::ports::ports;
use super::values::{environment, key_values, labels};

fn text(flag: Option<&String>) -> String {
    flag.cloned().unwrap_or_default()
}

impl CreateBody {
    /// Reads `flags`, and the files they name. `command` is the image and what to run in it.
    pub(crate) fn new(flags: &ContainerFlags, image: &str, command: &[String]) -> Result<Self> {
        let ports = ports(&flags.publish, &flags.expose)?;
        let (binds, anonymous) = volumes(&flags.volume)?;
        if flags
            .mac_address
            .as_ref()
            .is_some_and(|address| !address.is_empty() && mac(address).is_err())
        {
            bail!(
                "{} is not a valid mac address",
                text(flags.mac_address.as_ref())
            );
        }
        refuse_windows_flags(flags)?;
        check_namespaces(flags)?;
        let restart = restart_policy(flags.restart.as_deref().unwrap_or("no"))?;
        if flags.rm && !restart.is_none() {
            bail!("conflicting options: cannot specify both --restart and --rm");
        }
        let attached = |stream: &str| flags.attach.iter().any(|wanted| wanted == stream);
        let by_default = flags.attach.is_empty();
        let attach_stdin = attached("stdin") || flags.interactive;
        let config = Config {
            hostname: text(flags.hostname.as_ref()),
            domainname: text(flags.domainname.as_ref()),
            user: text(flags.user.as_ref()),
            attach_stdin,
            attach_stdout: by_default || attached("stdout"),
            attach_stderr: by_default || attached("stderr"),
            exposed_ports: ports.exposed,
            tty: flags.tty,
            open_stdin: flags.interactive,
            stdin_once: flags.interactive && attach_stdin,
            env: environment(&flags.env_file, &flags.env)?,
            cmd: command.to_vec(),
            healthcheck: health(flags)?,
            image: image.into(),
            volumes: anonymous
                .into_iter()
                .map(|path| (path, json!({})))
                .collect(),
            working_dir: text(flags.workdir.as_ref()),
            entrypoint: flags.entrypoint.clone().map(|path| vec![path]),
            labels: key_values(&labels(&flags.label_file, &flags.label)?),
            stop_signal: text(flags.stop_signal.as_ref()),
            stop_timeout: flags.stop_timeout,
        };
        let mut host_config = host_config(flags, restart)?;
        host_config.binds = binds;
        host_config.port_bindings = ports.bindings;
        Ok(Self {
            config,
            host_config,
            networking_config: NetworkingConfig {
                endpoints_config: endpoints(flags)?,
            },
        })
    }
}

fn host_config(flags: &ContainerFlags, restart: RestartPolicy) -> Result<HostConfig> {
    let log_driver = text(flags.log_driver.as_ref());
    if log_driver == "none" && !flags.log_opt.is_empty() {
        bail!("invalid logging opts for driver {log_driver}");
    }
    let (security_opt, unconfined) = security_options(&flags.security_opt)?;
    if !flags.storage_opt.iter().all(|option| option.contains('=')) {
        bail!("invalid storage option");
    }
    let (cap_add, cap_drop) = capabilities(&flags.cap_add, &flags.cap_drop);
    Ok(HostConfig {
        container_id_file: text(flags.cidfile.as_ref()),
        log_config: LogConfig {
            r#type: log_driver,
            config: key_values(&flags.log_opt),
        },
        network_mode: flags
            .network
            .first()
            .map_or_else(|| "default".into(), |network| network.target.clone()),
        restart_policy: Some(restart),
        auto_remove: flags.rm,
        volume_driver: text(flags.volume_driver.as_ref()),
        volumes_from: flags.volumes_from.clone(),
        annotations: key_values(&flags.annotation),
        cap_add,
        cap_drop,
        cgroupns_mode: text(flags.cgroupns.as_ref()),
        dns: flags.dns.clone(),
        dns_options: flags.dns_option.clone(),
        dns_search: flags.dns_search.clone(),
        extra_hosts: flags.add_host.clone(),
        group_add: flags.group_add.clone(),
        ipc_mode: text(flags.ipc.as_ref()),
        links: flags.link.clone(),
        oom_score_adj: flags.oom_score_adj.unwrap_or(0),
        pid_mode: text(flags.pid.as_ref()),
        privileged: flags.privileged,
        publish_all_ports: flags.publish_all,
        readonly_rootfs: flags.read_only,
        security_opt,
        storage_opt: key_values(&flags.storage_opt),
        tmpfs: tmpfs(&flags.tmpfs),
        uts_mode: text(flags.uts.as_ref()),
        userns_mode: text(flags.userns.as_ref()),
        shm_size: flags.shm_size.unwrap_or(0),
        sysctls: key_values(&flags.sysctl),
        runtime: text(flags.runtime.as_ref()),
        isolation: text(flags.isolation.as_ref()),
        mounts: flags.mount.clone(),
        masked_paths: unconfined.then_some([]),
        readonly_paths: unconfined.then_some([]),
        init: flags.init,
        resources: resources(flags)?,
        ..HostConfig::default()
    })
}

fn resources(flags: &ContainerFlags) -> Result<Resources> {
    if let Some(swappiness) = flags.memory_swappiness
        && !(-1..=100).contains(&swappiness)
    {
        bail!("invalid value: {swappiness}. Valid memory swappiness range is 0-100");
    }
    let (devices, cdi) = devices(&flags.device)?;
    let mut ulimits: Vec<Ulimit> = Vec::new();
    for ulimit in &flags.ulimit {
        ulimits.retain(|earlier| earlier.name != ulimit.name);
        ulimits.push(ulimit.clone());
    }
    ulimits.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Resources {
        cpu_shares: flags.cpu_shares.unwrap_or(0),
        memory: flags.memory.unwrap_or(0),
        nano_cpus: flags.cpus.unwrap_or(0),
        cgroup_parent: text(flags.cgroup_parent.as_ref()),
        blkio_weight: flags.blkio_weight.unwrap_or(0),
        blkio_weight_device: flags.blkio_weight_device.clone(),
        blkio_device_read_bps: flags.device_read_bps.clone(),
        blkio_device_write_bps: flags.device_write_bps.clone(),
        blkio_device_read_iops: flags.device_read_iops.clone(),
        blkio_device_write_iops: flags.device_write_iops.clone(),
        cpu_period: flags.cpu_period.unwrap_or(0),
        cpu_quota: flags.cpu_quota.unwrap_or(0),
        cpu_realtime_period: flags.cpu_rt_period.unwrap_or(0),
        cpu_realtime_runtime: flags.cpu_rt_runtime.unwrap_or(0),
        cpuset_cpus: text(flags.cpuset_cpus.as_ref()),
        cpuset_mems: text(flags.cpuset_mems.as_ref()),
        devices,
        device_cgroup_rules: flags.device_cgroup_rule.clone(),
        device_requests: flags.gpus.iter().cloned().chain(cdi).collect(),
        memory_reservation: flags.memory_reservation.unwrap_or(0),
        memory_swap: flags.memory_swap.unwrap_or(0),
        memory_swappiness: flags.memory_swappiness,
        oom_kill_disable: flags.oom_kill_disable,
        pids_limit: flags.pids_limit.unwrap_or(0),
        ulimits,
    })
}

fn refuse_windows_flags(flags: &ContainerFlags) -> Result<()> {
    let given = [
        ("--cpu-count", flags.cpu_count.is_some()),
        ("--cpu-percent", flags.cpu_percent.is_some()),
        ("--io-maxbandwidth", flags.io_maxbandwidth.is_some()),
        ("--io-maxiops", flags.io_maxiops.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) => bail!(
            "{name:?} is only supported on a Docker daemon running on windows, but the Docker daemon is running on linux"
        ),
        None => Ok(()),
    }
}

/// Capabilities in the kernel's spelling and in order; `ALL` says all, and what is added is not dropped.
fn capabilities(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    let normal = |names: &[String]| -> BTreeSet<String> {
        let names: BTreeSet<String> = names
            .iter()
            .map(|name| name.trim().to_uppercase())
            .map(|name| match name.as_str() {
                "ALL" => name,
                plain if plain.starts_with("CAP_") => name,
                plain => format!("CAP_{plain}"),
            })
            .collect();
        if names.contains("ALL") {
            BTreeSet::from(["ALL".to_owned()])
        } else {
            names
        }
    };
    let (add, drop) = (normal(add), normal(drop));
    let drop = drop.difference(&add).cloned().collect();
    (add.into_iter().collect(), drop)
}

fn check_namespaces(flags: &ContainerFlags) -> Result<()> {
    let valid = |mode: Option<&String>, words: &[&str], container: bool| {
        mode.is_none_or(|mode| {
            words.contains(&mode.as_str())
                || container
                    && mode
                        .strip_prefix("container:")
                        .is_some_and(|name| !name.is_empty())
        })
    };
    if !valid(flags.pid.as_ref(), &["", "private", "host"], true) {
        bail!("--pid: invalid PID mode");
    }
    if !valid(flags.uts.as_ref(), &["", "private", "host"], false) {
        bail!("--uts: invalid UTS mode");
    }
    if !valid(flags.userns.as_ref(), &["", "host"], false) {
        bail!("--userns: invalid USER mode");
    }
    if !valid(flags.cgroupns.as_ref(), &["", "private", "host"], false) {
        bail!("--cgroupns: invalid CGROUP mode");
    }
    Ok(())
}

fn health(flags: &ContainerFlags) -> Result<Option<Health>> {
    let command = flags.health_cmd.as_deref().unwrap_or_default();
    let retries = flags.health_retries.unwrap_or(0);
    let health = Health {
        test: if command.is_empty() {
            Vec::new()
        } else {
            vec!["CMD-SHELL".into(), command.into()]
        },
        interval: flags.health_interval,
        timeout: flags.health_timeout,
        start_period: flags.health_start_period,
        start_interval: flags.health_start_interval,
        retries,
    };
    if flags.no_healthcheck {
        if health != Health::default() {
            bail!("--no-healthcheck conflicts with --health-* options");
        }
        return Ok(Some(Health {
            test: vec!["NONE".into()],
            ..Health::default()
        }));
    }
    for (name, value) in [
        ("interval", health.interval),
        ("timeout", health.timeout),
        ("retries", health.retries),
        ("start-period", health.start_period),
        ("start-interval", health.start_interval),
    ] {
        if value < 0 {
            bail!("--health-{name} cannot be negative");
        }
    }
    Ok((health != Health::default()).then_some(health))
}

/// Reads seccomp profiles from their files and takes out `systempaths=unconfined`, which is the client's to honour.
fn security_options(options: &[String]) -> Result<(Vec<String>, bool)> {
    let mut sent = Vec::new();
    let mut unconfined = false;
    for option in options {
        let bare = option == "no-new-privileges";
        let pair = option
            .split_once('=')
            .or_else(|| if bare { None } else { option.split_once(':') });
        match pair {
            Some(("systempaths", "unconfined")) if option.contains('=') => unconfined = true,
            Some(("seccomp", file)) if !matches!(file, "builtin" | "unconfined" | "") => {
                sent.push(format!("seccomp={}", seccomp_profile(file)?));
            }
            Some(("no-new-privileges", _)) => sent.push(option.clone()),
            Some((_, value)) if !value.is_empty() => sent.push(option.clone()),
            None if bare => sent.push(option.clone()),
            _ => bail!("Invalid --security-opt: {option:?}"),
        }
    }
    Ok((sent, unconfined))
}

fn seccomp_profile(file: &str) -> Result<String> {
    let bytes = std::fs::read(file).map_err(|error| {
        anyhow!(
            "opening seccomp profile ({file}) failed: open {file}: {}",
            crate::error::os_text(&error)
        )
    })?;
    let profile: Value = serde_json::from_slice(&bytes)
        .map_err(|error| anyhow!("compacting json for seccomp profile ({file}) failed: {error}"))?;
    Ok(profile.to_string())
}

#[cfg(test)]
mod tests;
