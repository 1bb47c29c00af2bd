//! From flags to the body of `POST /containers/create`, as Docker's client makes it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow, bail};
use gantry_wire::ContainerCreateRequest;
use gantry_wire::spec::{
    ContainerConfig, EmptyObject, HealthConfig, HostConfig, LogConfig, NetworkingConfig,
    RestartPolicy, StrSlice, Ulimit,
};
use serde_json::Value;

use super::devices::devices;
use super::flags::ContainerFlags;
use super::limits::is_never;
use super::mounts::{tmpfs, volumes};
use super::network::{endpoints, mac};
use super::ports::ports;
use super::values::{environment, key_values, labels, list};

fn text(flag: Option<&String>) -> String {
    flag.cloned().unwrap_or_default()
}

/// Reads `flags`, and the files they name. `command` is what to run in `image`.
pub(crate) fn create_request(
    flags: &ContainerFlags,
    image: &str,
    command: &[String],
) -> Result<ContainerCreateRequest> {
    let ports = ports(&flags.publish, &flags.expose)?;
    let (binds, anonymous) = volumes(&flags.volume)?;
    if let Some(address) = flags
        .mac_address
        .as_deref()
        .filter(|address| !address.is_empty())
    {
        mac(address)?;
    }
    refuse_windows_flags(flags)?;
    check_namespaces(flags)?;
    let restart = flags.own.policy(flags.restart.as_deref())?;
    if flags.rm && !is_never(&restart) {
        bail!("conflicting options: cannot specify both --restart and --rm");
    }
    let attached = |stream: &str| flags.attach.iter().any(|wanted| wanted == stream);
    let by_default = flags.attach.is_empty();
    let attach_stdin = attached("stdin") || flags.interactive;
    let volumes: BTreeMap<_, _> = anonymous
        .into_iter()
        .map(|path| (path, EmptyObject {}))
        .collect();
    let config = ContainerConfig {
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
        env: list(&environment(&flags.env_file, &flags.env)?),
        cmd: list(command).map(StrSlice),
        healthcheck: health(flags)?,
        image: image.into(),
        volumes: (!volumes.is_empty()).then_some(volumes),
        working_dir: text(flags.workdir.as_ref()),
        entrypoint: flags.entrypoint.clone().map(|path| StrSlice(vec![path])),
        labels: key_values(&labels(&flags.label_file, &flags.label)?),
        stop_signal: text(flags.stop_signal.as_ref()),
        stop_timeout: flags.stop_timeout,
        ..ContainerConfig::default()
    };
    let mut host_config = resources(flags, host_config(flags, restart)?)?;
    flags.own.complete(&mut host_config);
    host_config.binds = list(&binds);
    host_config.port_bindings = ports.bindings;
    let networking_config = NetworkingConfig {
        endpoints_config: endpoints(flags)?,
    };
    Ok(ContainerCreateRequest {
        config,
        host_config,
        networking_config,
    })
}

fn host_config(flags: &ContainerFlags, restart_policy: RestartPolicy) -> Result<HostConfig> {
    let log_driver = text(flags.log_driver.as_ref());
    if log_driver == "none" && !flags.log_opt.is_empty() {
        bail!("invalid logging opts for driver {log_driver}");
    }
    let (security_opt, unconfined) = security_options(&flags.security_opt)?;
    if !flags.storage_opt.iter().all(|option| option.contains('=')) {
        bail!("invalid storage option");
    }
    let (cap_add, cap_drop) = capabilities(&flags.cap_add, &flags.cap_drop);
    let network_mode = flags
        .network
        .first()
        .map_or("default", |network| &network.target);
    Ok(HostConfig {
        container_id_file: text(flags.cidfile.as_ref()),
        log_config: LogConfig {
            kind: log_driver,
            config: key_values(&flags.log_opt),
        },
        network_mode: network_mode.into(),
        restart_policy,
        auto_remove: flags.rm,
        volume_driver: text(flags.volume_driver.as_ref()),
        volumes_from: list(&flags.volumes_from),
        annotations: key_values(&flags.annotation),
        cap_add,
        cap_drop,
        cgroupns_mode: text(flags.cgroupns.as_ref()),
        dns: Some(flags.dns.clone()),
        dns_options: Some(flags.dns_option.clone()),
        dns_search: Some(flags.dns_search.clone()),
        extra_hosts: list(&flags.add_host),
        group_add: list(&flags.group_add),
        ipc_mode: text(flags.ipc.as_ref()),
        links: list(&flags.link),
        oom_score_adj: flags.oom_score_adj.unwrap_or(0),
        pid_mode: text(flags.pid.as_ref()),
        privileged: flags.privileged,
        publish_all_ports: flags.publish_all,
        readonly_rootfs: flags.read_only,
        security_opt: list(&security_opt),
        storage_opt: key_values(&flags.storage_opt),
        tmpfs: tmpfs(&flags.tmpfs),
        uts_mode: text(flags.uts.as_ref()),
        userns_mode: text(flags.userns.as_ref()),
        shm_size: flags.shm_size.unwrap_or(0),
        sysctls: key_values(&flags.sysctl),
        runtime: text(flags.runtime.as_ref()),
        isolation: text(flags.isolation.as_ref()),
        mounts: list(&flags.mount),
        masked_paths: unconfined.then(Vec::new),
        readonly_paths: unconfined.then(Vec::new),
        init: flags.init,
        ..HostConfig::default()
    })
}

/// Adds what the container may use to what the host does for it.
fn resources(flags: &ContainerFlags, host: HostConfig) -> Result<HostConfig> {
    if let Some(swappiness) = flags.memory_swappiness
        && !(-1..=100).contains(&swappiness)
    {
        bail!("invalid value: {swappiness}. Valid memory swappiness range is 0-100");
    }
    let (devices, cdi) = devices(&flags.device)?;
    let requests: Vec<_> = flags.gpus.iter().cloned().chain(cdi).collect();
    Ok(HostConfig {
        cpu_shares: flags.cpu_shares.unwrap_or(0),
        memory: flags.memory.unwrap_or(0),
        nano_cpus: flags.cpus.unwrap_or(0),
        cgroup_parent: text(flags.cgroup_parent.as_ref()),
        blkio_weight: flags.blkio_weight.unwrap_or(0),
        blkio_weight_device: list(&flags.blkio_weight_device),
        blkio_device_read_bps: list(&flags.device_read_bps),
        blkio_device_write_bps: list(&flags.device_write_bps),
        blkio_device_read_iops: list(&flags.device_read_iops),
        blkio_device_write_iops: list(&flags.device_write_iops),
        cpu_period: flags.cpu_period.unwrap_or(0),
        cpu_quota: flags.cpu_quota.unwrap_or(0),
        cpu_realtime_period: flags.cpu_rt_period.unwrap_or(0),
        cpu_realtime_runtime: flags.cpu_rt_runtime.unwrap_or(0),
        cpuset_cpus: text(flags.cpuset_cpus.as_ref()),
        cpuset_mems: text(flags.cpuset_mems.as_ref()),
        devices: list(&devices),
        device_cgroup_rules: list(&flags.device_cgroup_rule),
        device_requests: list(&requests),
        memory_reservation: flags.memory_reservation.unwrap_or(0),
        memory_swap: flags.memory_swap.unwrap_or(0),
        memory_swappiness: flags.memory_swappiness,
        oom_kill_disable: flags.oom_kill_disable.then_some(true),
        pids_limit: flags.pids_limit,
        ulimits: list(&ulimits(&flags.ulimit)),
        ..host
    })
}

/// The last word on each limit, in order of names.
fn ulimits(given: &[Ulimit]) -> Vec<Ulimit> {
    let by_name: BTreeMap<&str, &Ulimit> = given
        .iter()
        .map(|limit| (limit.name.as_str(), limit))
        .collect();
    by_name.into_values().cloned().collect()
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
fn capabilities(add: &[String], drop: &[String]) -> (Option<StrSlice>, Option<StrSlice>) {
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
    let drop: Vec<String> = drop.difference(&add).cloned().collect();
    let add: Vec<String> = add.into_iter().collect();
    (list(&add).map(StrSlice), list(&drop).map(StrSlice))
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
    let own = |mode: &&String| mode.starts_with("auto:size=");
    if !valid(
        flags.userns.as_ref(),
        &["", "host", "private", "auto"],
        false,
    ) && flags.userns.as_ref().filter(own).is_none()
    {
        bail!("--userns: invalid USER mode");
    }
    if !valid(flags.cgroupns.as_ref(), &["", "private", "host"], false) {
        bail!("--cgroupns: invalid CGROUP mode");
    }
    Ok(())
}

fn health(flags: &ContainerFlags) -> Result<Option<HealthConfig>> {
    let command = flags.health_cmd.as_deref().unwrap_or_default();
    let retries = flags.health_retries.unwrap_or(0);
    let health = HealthConfig {
        test: flags.own.health_test(command)?,
        interval: flags.health_interval,
        timeout: flags.health_timeout,
        start_period: flags.health_start_period,
        start_interval: flags.health_start_interval,
        retries,
    };
    if flags.no_healthcheck {
        if health != HealthConfig::default() {
            bail!("--no-healthcheck conflicts with --health-* options");
        }
        return Ok(Some(HealthConfig {
            test: vec!["NONE".into()],
            ..HealthConfig::default()
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
    Ok((health != HealthConfig::default()).then_some(health))
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
