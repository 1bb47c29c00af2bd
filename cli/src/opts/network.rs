//! `--network` and the flags that go with it.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use gantry_wire::spec::{EndpointIpamConfig, EndpointSettings};

use super::flags::ContainerFlags;
use super::values::{csv, list, parse_ip};

/// A network to attach to, as one `--network` describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) target: String,
    aliases: Vec<String>,
    driver_opts: BTreeMap<String, String>,
    ipv4: String,
    ipv6: String,
    mac: String,
    link_local: Vec<String>,
    gw_priority: i64,
}

/// Addresses in the API's form, unless there are none.
pub(crate) fn addresses(
    ipv4: &str,
    ipv6: &str,
    link_local: &[String],
) -> Option<EndpointIpamConfig> {
    if ipv4.is_empty() && ipv6.is_empty() && link_local.is_empty() {
        return None;
    }
    Some(EndpointIpamConfig {
        ipv4_address: ipv4.into(),
        ipv6_address: ipv6.into(),
        link_local_ips: list(link_local),
    })
}

/// A plain name, or `name=NET,alias=A,ip=...,ip6=...,mac-address=...,link-local-ip=...,driver-opt=K=V,gw-priority=N`.
pub(crate) fn parse_attachment(text: &str) -> Result<Attachment, String> {
    let mut attachment = Attachment::default();
    if !is_long(text) {
        attachment.target = text.into();
        return Ok(attachment);
    }
    for field in csv(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) if !key.is_empty() => (key.trim().to_lowercase(), value.trim()),
            _ => return Err(format!("invalid field {field}")),
        };
        match key.as_str() {
            "name" => attachment.target = value.into(),
            "alias" => attachment.aliases.push(value.into()),
            "ip" => {
                attachment.ipv4 =
                    parse_ip(value).map_err(|_| format!("invalid IP address: {value}"))?
            }
            "ip6" => {
                attachment.ipv6 =
                    parse_ip(value).map_err(|_| format!("invalid IP address: {value}"))?
            }
            "mac-address" => attachment.mac = mac(value).map_err(|error| error.to_string())?,
            "link-local-ip" => attachment.link_local.push(value.into()),
            "driver-opt" => {
                let (name, value) = value
                    .split_once('=')
                    .filter(|(name, _)| !name.is_empty())
                    .ok_or("invalid key value pair format in driver options")?;
                attachment
                    .driver_opts
                    .insert(name.trim().to_lowercase(), value.trim().to_owned());
            }
            "gw-priority" => {
                attachment.gw_priority = value
                    .parse()
                    .map_err(|_| format!("invalid gw-priority: invalid syntax: {value}"))?;
            }
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    if attachment.target.is_empty() {
        return Err("network name/id is not specified".into());
    }
    Ok(attachment)
}

/// A word directly before and after an equals sign makes it the long form.
fn is_long(text: &str) -> bool {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    text.as_bytes()
        .windows(3)
        .any(|three| word(&three[0]) && three[1] == b'=' && word(&three[2]))
}

/// Whether a network mode names a network that somebody made.
pub(crate) fn is_user_defined(mode: &str) -> bool {
    !matches!(mode, "default" | "bridge" | "host" | "none" | "nat")
        && !mode.starts_with("container:")
}

/// Checks a hardware address and writes it with colons.
pub(crate) fn mac(text: &str) -> Result<String> {
    let bad = || anyhow::anyhow!("{text} is not a valid mac address");
    let trimmed = text.trim();
    let digits: String = if trimmed.contains('.') {
        let groups: Vec<&str> = trimmed.split('.').collect();
        if groups.iter().any(|group| group.len() != 4) {
            return Err(bad());
        }
        groups.concat()
    } else {
        let separator = if trimmed.contains('-') { '-' } else { ':' };
        let groups: Vec<&str> = trimmed.split(separator).collect();
        if groups.iter().any(|group| group.len() != 2) {
            return Err(bad());
        }
        groups.concat()
    };
    if !matches!(digits.len(), 12 | 16 | 40) || !digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return Err(bad());
    }
    let digits = digits.to_lowercase();
    let pairs: Vec<&str> = (0..digits.len())
        .step_by(2)
        .map(|at| &digits[at..at + 2])
        .collect();
    Ok(pairs.join(":"))
}

/// Endpoints by network name, from `--network` and the flags that describe its first network.
pub(crate) fn endpoints(
    flags: &ContainerFlags,
) -> Result<BTreeMap<String, Option<EndpointSettings>>> {
    let mut networks = flags.network.clone();
    if networks.is_empty() {
        networks.push(Attachment {
            target: "default".into(),
            ..Attachment::default()
        });
    }
    let mut endpoints = BTreeMap::new();
    let only = networks.len() == 1;
    for (index, network) in networks.iter().enumerate() {
        let settings = endpoint(network, (index == 0).then_some(flags))?;
        if endpoints.contains_key(&network.target) {
            bail!("network {:?} is specified multiple times", network.target);
        }
        if only && !flags.network.is_empty() && settings == EndpointSettings::default() {
            continue;
        }
        endpoints.insert(network.target.clone(), Some(settings));
    }
    let user_defined = networks
        .iter()
        .filter(|network| is_user_defined(&network.target))
        .count();
    if user_defined != 0 && user_defined != networks.len() {
        bail!(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
        );
    }
    Ok(endpoints)
}

fn endpoint(network: &Attachment, flags: Option<&ContainerFlags>) -> Result<EndpointSettings> {
    let mut network = network.clone();
    let mut links = Vec::new();
    if network.target.trim().is_empty() {
        bail!("no name set for network");
    }
    let user_defined = is_user_defined(&network.target);
    if let Some(flags) = flags {
        merge(&mut network, flags)?;
        if user_defined {
            links.clone_from(&flags.link);
        }
    }
    if !user_defined && !network.aliases.is_empty() {
        bail!("network-scoped aliases are only supported for user-defined networks");
    }
    Ok(EndpointSettings {
        ipam_config: addresses(&network.ipv4, &network.ipv6, &network.link_local),
        links: list(&links),
        aliases: list(&network.aliases),
        mac_address: if network.mac.is_empty() {
            String::new()
        } else {
            mac(&network.mac)?
        },
        driver_opts: (!network.driver_opts.is_empty()).then_some(network.driver_opts),
        gw_priority: network.gw_priority,
        ..EndpointSettings::default()
    })
}

/// Takes over the flags that speak of the first network, unless it says the same itself.
fn merge(network: &mut Attachment, flags: &ContainerFlags) -> Result<()> {
    fn one<T: Clone>(own: &mut T, empty: bool, flag: Option<&T>, what: &str) -> Result<()> {
        match flag {
            Some(_) if !empty => bail!("conflicting options: cannot specify both {what}"),
            Some(value) => own.clone_from(value),
            None => {}
        }
        Ok(())
    }
    fn many(list: &Vec<String>) -> Option<&Vec<String>> {
        (!list.is_empty()).then_some(list)
    }
    let Attachment {
        aliases,
        ipv4,
        ipv6,
        mac,
        link_local,
        ..
    } = network;
    let empty = aliases.is_empty();
    one(
        aliases,
        empty,
        many(&flags.network_alias),
        "--network-alias and per-network alias",
    )?;
    let empty = ipv4.is_empty();
    one(
        ipv4,
        empty,
        flags.ip.as_ref(),
        "--ip and per-network IPv4 address",
    )?;
    let empty = ipv6.is_empty();
    one(
        ipv6,
        empty,
        flags.ip6.as_ref(),
        "--ip6 and per-network IPv6 address",
    )?;
    let empty = mac.is_empty();
    let mac_flag = flags.mac_address.as_ref().filter(|mac| !mac.is_empty());
    one(
        mac,
        empty,
        mac_flag,
        "--mac-address and per-network MAC address",
    )?;
    let empty = link_local.is_empty();
    one(
        link_local,
        empty,
        many(&flags.link_local_ip),
        "--link-local-ip and per-network link-local IP addresses",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_and_long_forms() {
        assert_eq!(
            parse_attachment("container:x").unwrap().target,
            "container:x"
        );
        let long =
            parse_attachment("name=net,alias=a,alias=b,ip=1.2.3.4,driver-opt=K=v,gw-priority=-1")
                .unwrap();
        assert_eq!(
            (long.target.as_str(), long.aliases.len(), long.ipv4.as_str()),
            ("net", 2, "1.2.3.4")
        );
        assert_eq!(
            (long.driver_opts["k"].as_str(), long.gw_priority),
            ("v", -1)
        );
        assert_eq!(
            parse_attachment("alias=x").unwrap_err(),
            "network name/id is not specified"
        );
        assert_eq!(
            parse_attachment("name=x,foo=y").unwrap_err(),
            "invalid field key foo"
        );
    }

    #[test]
    fn hardware_addresses_are_normalised() {
        assert_eq!(mac("92:D0:C6:0A:29:33").unwrap(), "92:d0:c6:0a:29:33");
        assert_eq!(mac("92-d0-c6-0a-29-33").unwrap(), "92:d0:c6:0a:29:33");
        assert_eq!(mac("92d0.c60a.2933").unwrap(), "92:d0:c6:0a:29:33");
        for bad in ["", "92:d0:c6:0a:29", "zz:d0:c6:0a:29:33"] {
            assert!(mac(bad).is_err(), "{bad}");
        }
    }
}
