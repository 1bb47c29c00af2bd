//! `--device`, `--gpus`, `--blkio-weight-device`, `--device-read-bps` and their kind.

use anyhow::{Result, bail};
use gantry_wire::spec::{DeviceMapping, DeviceRequest, ThrottleDevice, WeightDevice};

use super::values::{csv, key_values};
use crate::format::units::parse_size;

/// Whether a `--device` names a CDI device: `vendor.com/class=name`.
fn is_cdi(text: &str) -> bool {
    let Some((kind, name)) = text.split_once('=') else {
        return false;
    };
    let Some((vendor, class)) = kind.split_once('/') else {
        return false;
    };
    let word = |text: &str, inner: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || inner.contains(c))
    };
    let name_ok = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c));
    word(vendor, "_-.") && word(class, "_-") && name_ok
}

/// Splits `--device` values into mappings and a request for CDI devices.
pub(crate) fn devices(values: &[String]) -> Result<(Vec<DeviceMapping>, Option<DeviceRequest>)> {
    let (cdi, paths): (Vec<_>, Vec<_>) = values.iter().partition(|value| is_cdi(value));
    let mappings = paths
        .into_iter()
        .map(|value| mapping(value))
        .collect::<Result<_>>()?;
    let request = (!cdi.is_empty()).then(|| DeviceRequest {
        driver: "cdi".into(),
        device_ids: Some(cdi.into_iter().cloned().collect()),
        ..DeviceRequest::default()
    });
    Ok((mappings, request))
}

fn mapping(text: &str) -> Result<DeviceMapping> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts[..] {
        [""] | ["", ..] => bail!("bad format for path: {text}"),
        [source] => (source, source, "rwm"),
        [source, mode] if is_device_mode(mode) => (source, source, mode),
        [source, target] => (source, target, "rwm"),
        [_, _, mode] if !is_device_mode(mode) => bail!("bad mode specified: {mode}"),
        [source, target, mode] => (source, target, mode),
        _ => bail!("bad format for path: {text}"),
    };
    if !target.starts_with('/') {
        bail!("{target} is not an absolute path");
    }
    Ok(DeviceMapping {
        path_on_host: source.into(),
        path_in_container: if target.is_empty() {
            source.into()
        } else {
            target.into()
        },
        cgroup_permissions: mode.into(),
    })
}

/// A mode is made of `r`, `w` and `m`, each at most once.
fn is_device_mode(mode: &str) -> bool {
    !mode.is_empty()
        && mode
            .chars()
            .all(|c| "rwm".contains(c) && mode.matches(c).count() == 1)
}

/// `[acb] MAJOR:MINOR MODE`, numbers or stars.
pub(crate) fn parse_device_cgroup_rule(text: &str) -> Result<String, String> {
    let number = |text: &str| {
        text == "*" || !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    let valid = match text.split(' ').collect::<Vec<_>>()[..] {
        ["a" | "c" | "b", numbers, mode] => {
            numbers
                .split_once(':')
                .is_some_and(|(major, minor)| number(major) && number(minor))
                && (1..=3).contains(&mode.len())
                && mode.chars().all(|c| "rwm".contains(c))
        }
        _ => false,
    };
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!("invalid device cgroup format '{text}'"))
    }
}

pub(crate) fn parse_gpus(text: &str) -> Result<DeviceRequest, String> {
    let mut request = DeviceRequest::default();
    let mut seen = Vec::new();
    for field in csv(text)? {
        let (key, value) = field
            .split_once('=')
            .map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        if seen.contains(&key.to_owned()) {
            return Err(format!(
                "gpu request key '{key}' can be specified only once"
            ));
        }
        seen.push(key.to_owned());
        let Some(value) = value else {
            seen.push("count".into());
            request.count = gpu_count(key)?;
            continue;
        };
        let list = || value.split(',').map(str::to_owned).collect::<Vec<_>>();
        match key {
            "driver" => request.driver = value.into(),
            "count" => request.count = gpu_count(value)?,
            "device" => request.device_ids = Some(list()),
            "capabilities" => {
                let mut capabilities = list();
                capabilities.push("gpu".into());
                request.capabilities = Some(vec![capabilities]);
            }
            "options" => request.options = key_values(&csv(value)?),
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if !seen.iter().any(|key| key == "count") && request.device_ids.is_none() {
        request.count = 1;
    }
    request
        .capabilities
        .get_or_insert_with(|| vec![vec!["gpu".into()]]);
    Ok(request)
}

fn gpu_count(text: &str) -> Result<i64, String> {
    if text == "all" {
        return Ok(-1);
    }
    text.parse().map_err(|_| {
        format!(
            "invalid count ({text}): value must be either \"all\" or an integer: invalid syntax"
        )
    })
}

fn device_value(text: &str) -> Result<(&str, &str), String> {
    match text.split_once(':') {
        Some((path, value)) if path.starts_with("/dev/") => Ok((path, value)),
        Some(_) => Err(format!("bad format for device path: {text}")),
        None => Err(format!("bad format: {text}")),
    }
}

pub(crate) fn parse_weight(text: &str) -> Result<WeightDevice, String> {
    let (path, value) = device_value(text)?;
    let weight: u16 = value
        .parse()
        .map_err(|_| format!("invalid weight for device: {text}"))?;
    if weight != 0 && !(10..=1000).contains(&weight) {
        return Err(format!("invalid weight for device: {text}"));
    }
    Ok(WeightDevice {
        path: path.into(),
        weight,
    })
}

pub(crate) fn parse_throttle_bps(text: &str) -> Result<ThrottleDevice, String> {
    let (path, value) = device_value(text)?;
    let rate = parse_size(value).map_err(|_| {
        format!("invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb")
    })?;
    Ok(ThrottleDevice {
        path: path.into(),
        rate: rate.unsigned_abs(),
    })
}

pub(crate) fn parse_throttle_iops(text: &str) -> Result<ThrottleDevice, String> {
    let (path, value) = device_value(text)?;
    let rate = value.parse().map_err(|_| {
        format!("invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive integer")
    })?;
    Ok(ThrottleDevice {
        path: path.into(),
        rate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_paths_and_modes_are_told_apart() {
        for (text, source, target, mode) in [
            ("/dev/fuse", "/dev/fuse", "/dev/fuse", "rwm"),
            ("/dev/fuse:r", "/dev/fuse", "/dev/fuse", "r"),
            ("/dev/a:/dev/b", "/dev/a", "/dev/b", "rwm"),
            ("/dev/a:/dev/b:rw", "/dev/a", "/dev/b", "rw"),
        ] {
            let mapping = mapping(text).unwrap();
            assert_eq!(
                (
                    mapping.path_on_host.as_str(),
                    mapping.path_in_container.as_str(),
                    mapping.cgroup_permissions.as_str()
                ),
                (source, target, mode)
            );
        }
        assert_eq!(
            mapping("/dev/a:/dev/b:x").unwrap_err().to_string(),
            "bad mode specified: x"
        );
        assert_eq!(
            mapping("fuse").unwrap_err().to_string(),
            "fuse is not an absolute path"
        );
        assert!(mapping("/a:/b:r:w").is_err());
    }

    #[test]
    fn cdi_devices_become_a_request() {
        let (mappings, request) =
            devices(&["vendor.com/gpu=all".into(), "/dev/null".into()]).unwrap();
        assert_eq!(mappings.len(), 1);
        assert_eq!(request.unwrap().device_ids.unwrap(), ["vendor.com/gpu=all"]);
    }

    #[test]
    fn gpus_are_counted_or_named() {
        assert_eq!(parse_gpus("all").unwrap().count, -1);
        assert_eq!(parse_gpus("2").unwrap().count, 2);
        let named = parse_gpus("\"device=0,1\",capabilities=utility").unwrap();
        assert_eq!(
            (named.count, named.device_ids.unwrap()),
            (0, vec!["0".to_owned(), "1".into()])
        );
        assert_eq!(named.capabilities.unwrap(), [["utility", "gpu"]]);
        assert!(parse_gpus("driver=a,driver=b").is_err());
    }

    #[test]
    fn rules_and_rates_are_checked() {
        assert!(parse_device_cgroup_rule("c 1:* rmw").is_ok());
        assert!(parse_device_cgroup_rule("x 1:3 r").is_err());
        assert_eq!(parse_throttle_bps("/dev/sda:1mb").unwrap().rate, 1 << 20);
        assert!(parse_throttle_iops("/dev/sda:1mb").is_err());
        assert!(parse_weight("/dev/sda:5").is_err());
        assert!(parse_weight("sda:50").is_err());
    }
}
