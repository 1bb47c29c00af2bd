//! `--publish` and `--expose`.

use std::net::IpAddr;

use anyhow::{Result, anyhow, bail};
use gantry_wire::spec::{EmptyObject, PortBinding, PortMap, PortSet};

/// Port maps in the API's form: `PORT/PROTO` to its bindings, and the set of all exposed ports.
#[derive(Default)]
pub(crate) struct Ports {
    pub(crate) bindings: PortMap,
    pub(crate) exposed: PortSet,
}

/// Parses all `--publish` and `--expose` values.
pub(crate) fn ports(publish: &[String], expose: &[String]) -> Result<Ports> {
    let mut ports = Ports::default();
    for value in publish {
        for (port, binding) in published(&short_form(value)?)? {
            ports.exposed.insert(&port, EmptyObject {});
            ports
                .bindings
                .update(&port, |all| all.get_or_insert_default().push(binding));
        }
    }
    for value in expose {
        if value.contains(':') {
            bail!("invalid port format for --expose: {value}");
        }
        let (range, protocol) = split_protocol(value);
        let (first, last) = port_range(range).map_err(|error| {
            anyhow!("invalid range format for --expose: {value}, error: {error}")
        })?;
        check_protocol(&protocol)?;
        for port in first..=last {
            ports
                .exposed
                .insert(&format!("{port}/{protocol}"), EmptyObject {});
        }
    }
    Ok(ports)
}

/// Turns `published=80,target=8080,protocol=tcp` into `80:8080/tcp`.
fn short_form(value: &str) -> Result<String> {
    if !value.contains('=') {
        return Ok(value.into());
    }
    let (mut published, mut target, mut protocol) = ("", "", "tcp");
    for field in value.split(',') {
        match field.split_once('=') {
            Some(("published", value)) => published = value,
            Some(("target", value)) => target = value,
            Some(("protocol", value)) => protocol = value,
            Some((key, _)) if !key.is_empty() => {}
            _ => bail!("invalid publish opts format (should be name=value but got '{field}')"),
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

fn split_protocol(text: &str) -> (&str, String) {
    match text.split_once('/') {
        None | Some((_, "")) => (text.trim_end_matches('/'), "tcp".into()),
        Some((port, protocol)) => (port, protocol.to_lowercase()),
    }
}

fn check_protocol(protocol: &str) -> Result<()> {
    match protocol {
        "tcp" | "udp" | "sctp" => Ok(()),
        _ => bail!("invalid proto: {protocol}"),
    }
}

/// `[[IP:][HOST]:]CONTAINER[/PROTO]`, where HOST and CONTAINER may be ranges.
fn published(text: &str) -> Result<Vec<(String, PortBinding)>> {
    let (spec, protocol) = split_protocol(text);
    let (spec, container) = spec
        .rsplit_once(':')
        .map_or(("", spec), |(rest, container)| (rest, container));
    let (ip, host) = spec.rsplit_once(':').unwrap_or(("", spec));
    let ip = host_ip(ip)?;
    if container.is_empty() {
        bail!("no port specified: {text}<empty>");
    }
    let (first, last) =
        port_range(container).map_err(|_| anyhow!("invalid containerPort: {container}"))?;
    let host_range = match host {
        "" => None,
        host => Some(port_range(host).map_err(|_| anyhow!("invalid hostPort: {host}"))?),
    };
    if let Some((host_first, host_last)) = host_range
        && host_last - host_first != last - first
        && first != last
    {
        bail!("invalid ranges specified for container and host Ports: {container} and {host}");
    }
    check_protocol(&protocol)?;
    let mut bindings = Vec::new();
    for offset in 0..=last - first {
        let host_port = match host_range {
            None => String::new(),
            Some((start, end)) if first == last && start != end => format!("{start}-{end}"),
            Some((start, _)) => (start + offset).to_string(),
        };
        bindings.push((
            format!("{}/{protocol}", first + offset),
            PortBinding {
                host_ip: ip.clone(),
                host_port,
            },
        ));
    }
    Ok(bindings)
}

fn host_ip(text: &str) -> Result<String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|ip| ip.strip_suffix(']'))
        .unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) if bare == text => bail!("invalid IP address: {text}"),
        Ok(_) => Ok(bare.into()),
        Err(_) => bail!("invalid IP address: {text}"),
    }
}

fn port_range(text: &str) -> Result<(u16, u16)> {
    let number = |text: &str| {
        text.parse::<u16>()
            .map_err(|_| anyhow!("strconv.ParseUint: parsing {text:?}: invalid syntax"))
    };
    match text.split_once('-') {
        None => Ok((number(text)?, number(text)?)),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                bail!("invalid range specified for port: {text}");
            }
            Ok((first, last))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn bindings(text: &str) -> Value {
        serde_json::to_value(ports(&[text.into()], &[]).unwrap().bindings).unwrap()
    }

    #[test]
    fn short_and_long_forms() {
        for (text, map) in [
            ("80", json!({"80/tcp": [{"HostIp": "", "HostPort": ""}]})),
            (
                "8080:80",
                json!({"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}),
            ),
            (
                "127.0.0.1:8080:80/udp",
                json!({"80/udp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}),
            ),
            (
                "127.0.0.1::80",
                json!({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}),
            ),
            (
                "[::1]:8080:80",
                json!({"80/tcp": [{"HostIp": "::1", "HostPort": "8080"}]}),
            ),
            (
                "8000-8010:80",
                json!({"80/tcp": [{"HostIp": "", "HostPort": "8000-8010"}]}),
            ),
            (
                "published=1,target=2,protocol=UDP",
                json!({"2/udp": [{"HostIp": "", "HostPort": "1"}]}),
            ),
            (
                "90-91:80-81/SCTP",
                json!({"80/sctp": [{"HostIp": "", "HostPort": "90"}], "81/sctp": [{"HostIp": "", "HostPort": "91"}]}),
            ),
        ] {
            assert_eq!(bindings(text), map, "{text}");
        }
    }

    #[test]
    fn bad_ports_are_named() {
        for (text, error) in [
            ("99999:1", "invalid hostPort: 99999"),
            ("1:x", "invalid containerPort: x"),
            (
                "1:2-3",
                "invalid ranges specified for container and host Ports: 2-3 and 1",
            ),
            ("x:1:1", "invalid IP address: x"),
            ("::1:80:80", "invalid IP address: ::1"),
            ("80/foo", "invalid proto: foo"),
        ] {
            assert_eq!(
                ports(&[text.into()], &[]).err().unwrap().to_string(),
                error,
                "{text}"
            );
        }
    }

    #[test]
    fn exposed_ranges_are_spelled_out() {
        let ports = ports(&["1:2".into()], &["80-81/udp".into(), "90".into()]).unwrap();
        let names: Vec<_> = ports.exposed.keys().collect();
        assert_eq!(names, ["2/tcp", "80/udp", "81/udp", "90/tcp"]);
        assert!(super::ports(&[], &["a:b".into()]).is_err());
    }
}
