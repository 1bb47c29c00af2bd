//! Version 2: one directory, values converted from version 1's as runc does.

use std::path::Path;

use super::files::{self, CgroupError};
use super::writes::Writes;
use super::{DeviceValue, Limits};

/// Makes `root/path`, with the controllers handed down on the way.
pub(super) fn create(root: &Path, path: &Path) -> Result<(), CgroupError> {
    let available = files::read(&root.join("cgroup.controllers"))?;
    let mut dir = root.to_owned();
    for name in path {
        let control = dir.join("cgroup.subtree_control");
        let on = files::read(&control).unwrap_or_default();
        let missing = |c: &&str| !on.split_whitespace().any(|o| o == *c);
        for controller in available.split_whitespace().filter(missing) {
            // One that cannot be had (a realtime task keeps `cpu` back, say) must not cost the others; a limit that
            // needs it says so.
            let _ = files::write(&control, format!("+{controller}"));
        }
        dir.push(name);
        match rustix::fs::mkdir(&dir, 0o755.into()) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(CgroupError::new("mkdir", &dir, e.into())),
        }
    }
    Ok(())
}

pub(super) fn apply(dir: &Path, l: &Limits, writes: &Writes) -> Result<(), CgroupError> {
    let set = |name: &str, value: Option<String>| match value {
        Some(value) => writes.write(&dir.join(name), value),
        None => Ok(()),
    };
    // Swap first where memory shrinks is of no matter here: the two limits are independent.
    set("memory.swap.max", swap(dir, l)?)?;
    set("memory.max", l.memory.map(bytes))?;
    set("memory.low", l.memory_reservation.map(bytes))?;
    set(
        "cpu.weight",
        l.cpu_shares.and_then(cpu_weight).map(|w| w.to_string()),
    )?;
    set("cpu.max", cpu_max(dir, l))?;
    set("cpuset.cpus", l.cpuset_cpus.clone())?;
    set("cpuset.mems", l.cpuset_mems.clone())?;
    set(
        "pids.max",
        l.pids
            .map(|n| if n > 0 { n.to_string() } else { "max".into() }),
    )?;
    set_io(dir, l, writes)
}

/// -1 (and, as with runc, any negative number) is no limit.
fn bytes(value: i64) -> String {
    if value < 0 {
        "max".into()
    } else {
        value.to_string()
    }
}

/// Version 1 limits memory and swap together, version 2 swap alone.
fn swap(dir: &Path, l: &Limits) -> Result<Option<String>, CgroupError> {
    match (l.memory, l.memory_swap) {
        (_, None) => Ok(None),
        // No limit is what a kernel that does not count swap has.
        (_, Some(both)) if both < 0 => {
            let counted = dir.join("memory.swap.max").exists();
            Ok(counted.then(|| "max".into()))
        }
        (Some(memory), Some(both)) if memory >= 0 && both >= memory => {
            Ok(Some((both - memory).to_string()))
        }
        (_, Some(both)) => {
            let e = std::io::Error::from_raw_os_error(libc::EINVAL);
            let what = format!("memory and swap of {both} bytes without as little memory:");
            Err(CgroupError::new(what, &dir.join("memory.swap.max"), e))
        }
    }
}

/// 2..=262144 shares to 1..=10000 weight, the default to the default: 1024 shares are weight 100.
/// The curve is that of runc 1.4 (`ConvertCPUSharesToCgroupV2Value`).
pub(super) fn cpu_weight(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        262_144.. => Some(10_000),
        _ => {
            #[allow(clippy::cast_precision_loss, reason = "at most 2^18")]
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "1 to 10000"
            )]
            let weight = 10f64.powf(exponent).ceil() as u64;
            Some(weight)
        }
    }
}

/// `quota period`; what is not given stays as it is.
fn cpu_max(dir: &Path, l: &Limits) -> Option<String> {
    if l.cpu_quota.is_none() && l.cpu_period.is_none() {
        return None;
    }
    let now = files::read(&dir.join("cpu.max")).unwrap_or_default();
    let (old_quota, old_period) = now.split_once(' ').unwrap_or(("max", "100000"));
    let quota = match l.cpu_quota {
        Some(quota) if quota > 0 => quota.to_string(),
        Some(_) => "max".into(),
        None => old_quota.to_owned(),
    };
    let period = match l.cpu_period {
        Some(period) if period > 0 => period.to_string(),
        _ => old_period.to_owned(),
    };
    Some(format!("{quota} {period}"))
}

/// 10..=1000 of blkio.weight to 1..=10000 of io.weight.
pub(super) fn io_weight(weight: u64) -> u64 {
    1 + weight.saturating_sub(10) * 9999 / 990
}

fn set_io(dir: &Path, l: &Limits, writes: &Writes) -> Result<(), CgroupError> {
    let bfq = dir.join("io.bfq.weight");
    let (file, convert): (_, fn(u64) -> u64) = if bfq.exists() {
        (bfq, |w| w)
    } else {
        (dir.join("io.weight"), io_weight)
    };
    if let Some(weight) = l.blkio_weight {
        let weight = convert(u64::from(weight)).to_string();
        // The group's own weight is the first line: `default 100`.
        let own = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        writes.write_part(&file, weight, own)?;
    }
    for v in &l.blkio_weight_device {
        let weight = match v.value {
            0 => "default".into(),
            weight => convert(weight).to_string(),
        };
        let device = format!("{}:{}", v.major, v.minor);
        writes.write_device(&file, &device, &weight, "default")?;
    }
    let max = dir.join("io.max");
    let throttle = |key: &str, values: &[DeviceValue]| {
        values.iter().try_for_each(|v| {
            // Version 1's word for no limit is 0.
            let rate = match v.value {
                0 => "max".into(),
                rate => rate.to_string(),
            };
            let device = format!("{}:{}", v.major, v.minor);
            let none = "rbps=max wbps=max riops=max wiops=max";
            writes.write_device(&max, &device, &format!("{key}={rate}"), none)
        })
    };
    throttle("rbps", &l.read_bps)?;
    throttle("wbps", &l.write_bps)?;
    throttle("riops", &l.read_iops)?;
    throttle("wiops", &l.write_iops)
}
