use std::net::IpAddr;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::format::outln;
use crate::opts::values::{key_values, parse_label};

/// Flags of `network create`.
#[derive(Args, Debug)]
pub(crate) struct NetworkCreate {
    /// Enable manual container attachment
    #[arg(long)]
    pub(crate) attachable: bool,
    /// Auxiliary IPv4 or IPv6 addresses used by Network driver
    #[arg(long, value_name = "map")]
    pub(crate) aux_address: Vec<String>,
    /// The network from which to copy the configuration
    #[arg(long, value_name = "string")]
    pub(crate) config_from: Option<String>,
    /// Create a configuration only network
    #[arg(long)]
    pub(crate) config_only: bool,
    /// Driver to manage the Network (default "bridge")
    #[arg(long, short, value_name = "string")]
    pub(crate) driver: Option<String>,
    /// IPv4 or IPv6 Gateway for the master subnet
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    pub(crate) gateway: Vec<String>,
    /// Create swarm routing-mesh network
    #[arg(long)]
    pub(crate) ingress: bool,
    /// Restrict external access to the network
    #[arg(long)]
    pub(crate) internal: bool,
    /// Allocate container ip from a sub-range
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    pub(crate) ip_range: Vec<String>,
    /// IP Address Management Driver (default "default")
    #[arg(long, value_name = "string")]
    pub(crate) ipam_driver: Option<String>,
    /// Set IPAM driver specific options
    #[arg(long, value_name = "map")]
    pub(crate) ipam_opt: Vec<String>,
    /// Enable or disable IPv4 address assignment (default true)
    #[arg(long)]
    pub(crate) ipv4: Option<bool>,
    /// Enable or disable IPv6 address assignment
    #[arg(long)]
    pub(crate) ipv6: Option<bool>,
    /// Set metadata on a network
    #[arg(long, value_name = "list", value_parser = parse_label)]
    pub(crate) label: Vec<String>,
    /// Set driver specific options
    #[arg(long, short, value_name = "map")]
    pub(crate) opt: Vec<String>,
    /// Control the network's scope
    #[arg(long, value_name = "string")]
    pub(crate) scope: Option<String>,
    /// Subnet in CIDR format that represents a network segment
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    pub(crate) subnet: Vec<String>,
    network: String,
}

impl NetworkCreate {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let created = app
            .client()?
            .post("/networks/create")
            .json(&self.body()?)?
            .value()
            .await?;
        if let Some(warning) = created["Warning"]
            .as_str()
            .filter(|warning| !warning.is_empty())
        {
            eprintln!("WARNING: {warning}");
        }
        outln!("{}", created["Id"].as_str().unwrap_or_default())
    }

    fn body(&self) -> Result<Value> {
        let mut body = json!({
            "Name": self.network,
            "Driver": self.driver.as_deref().unwrap_or("bridge"),
            "Scope": self.scope.as_deref().unwrap_or_default(),
            "IPAM": {
                "Driver": self.ipam_driver.as_deref().unwrap_or("default"),
                "Options": map_flag(&self.ipam_opt),
                "Config": self.pools()?,
            },
            "Internal": self.internal,
            "Attachable": self.attachable,
            "Ingress": self.ingress,
            "ConfigOnly": self.config_only,
            "ConfigFrom": null,
            "Options": map_flag(&self.opt),
            "Labels": key_values(&self.label),
        });
        if let Some(name) = self.config_from.as_deref().filter(|name| !name.is_empty()) {
            body["ConfigFrom"] = json!({"Network": name});
        }
        if let Some(enabled) = self.ipv4 {
            body["EnableIPv4"] = enabled.into();
        }
        if let Some(enabled) = self.ipv6 {
            body["EnableIPv6"] = enabled.into();
        }
        Ok(body)
    }

    /// Address pools: each range, gateway and reserved address goes to the subnet that holds it.
    fn pools(&self) -> Result<Vec<Value>> {
        if self.subnet.len() < self.ip_range.len() || self.subnet.len() < self.gateway.len() {
            bail!("every ip-range or gateway must have a corresponding subnet");
        }
        let mut pools: Vec<(Subnet, Map<String, Value>)> = Vec::new();
        for text in &self.subnet {
            let subnet = Subnet::parse(text)?;
            if pools.iter().any(|(other, _)| other.overlaps(&subnet)) {
                bail!("multiple overlapping subnet configuration is not supported");
            }
            let mut pool = Map::new();
            pool.insert("Subnet".into(), text.as_str().into());
            pools.push((subnet, pool));
        }
        let mut place = |what: &str, text: &str, address: IpAddr, value: Value| -> Result<()> {
            let Some((_, pool)) = pools
                .iter_mut()
                .find(|(subnet, _)| subnet.contains(address))
            else {
                bail!("no matching subnet for {what} {text}");
            };
            let (member, name) = match &value {
                Value::String(_) if what == "gateway" => ("Gateway", "gateways"),
                Value::String(_) => ("IPRange", "ip-ranges"),
                _ => ("AuxiliaryAddresses", ""),
            };
            match (pool.get_mut(member), value) {
                (None, value) => drop(pool.insert(member.into(), value)),
                (Some(Value::Object(all)), Value::Object(more)) => all.extend(more),
                _ => bail!("cannot configure multiple {name} ({text}) on the same subnet"),
            }
            Ok(())
        };
        for text in &self.ip_range {
            place(
                "ip-range",
                text,
                Subnet::parse(text)?.address,
                text.as_str().into(),
            )?;
        }
        for text in &self.gateway {
            let Ok(address) = text.parse() else {
                bail!("no matching subnet for gateway {text}")
            };
            place("gateway", text, address, text.as_str().into())?;
        }
        for (name, value) in map_flag(&self.aux_address) {
            let text = value.as_str().unwrap_or_default().to_owned();
            let Ok(address) = text.parse() else {
                bail!("no matching subnet for aux-address {text}")
            };
            place("aux-address", &text, address, json!({name: text}))?;
        }
        Ok(pools
            .into_iter()
            .map(|(_, pool)| Value::Object(pool))
            .collect())
    }
}

/// `key=value` items as an object.
pub(crate) fn map_flag(items: &[String]) -> Map<String, Value> {
    key_values(items)
}

struct Subnet {
    address: IpAddr,
    prefix: u32,
}

fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

impl Subnet {
    fn parse(text: &str) -> Result<Self> {
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            let address: IpAddr = address.parse().ok()?;
            let prefix: u32 = prefix.parse().ok()?;
            (prefix <= bits(address).1).then_some(Self { address, prefix })
        });
        match parsed {
            Some(subnet) => Ok(subnet),
            None => bail!("invalid CIDR address: {text}"),
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let ((own, width), (other, other_width)) = (bits(self.address), bits(address));
        let shift = width - self.prefix;
        width == other_width && (shift == 128 || own >> shift == other >> shift)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    fn body(line: &str) -> Result<Value> {
        let command =
            NetworkCreate::augment_args(clap::Command::new("create").no_binary_name(true));
        let matches = command.try_get_matches_from(line.split_whitespace())?;
        NetworkCreate::from_arg_matches(&matches)?.body()
    }

    #[test]
    fn addresses_find_their_subnet() {
        let body = body(
            "--subnet 10.0.0.0/16 --subnet fd00::/64 --gateway fd00::1 --gateway 10.0.0.1 --ip-range 10.0.1.0/24 --aux-address a=10.0.0.5 --aux-address b=10.0.0.6 net",
        )
        .unwrap();
        assert_eq!(
            body["IPAM"]["Config"],
            json!([
                {"Subnet": "10.0.0.0/16", "IPRange": "10.0.1.0/24", "Gateway": "10.0.0.1", "AuxiliaryAddresses": {"a": "10.0.0.5", "b": "10.0.0.6"}},
                {"Subnet": "fd00::/64", "Gateway": "fd00::1"}
            ])
        );
    }

    #[test]
    fn addresses_without_a_subnet_are_refused() {
        for (line, error) in [
            (
                "--gateway 10.0.0.1 n",
                "every ip-range or gateway must have a corresponding subnet",
            ),
            (
                "--subnet 10.0.0.0/16 --gateway 10.1.0.1 n",
                "no matching subnet for gateway 10.1.0.1",
            ),
            (
                "--subnet 10.0.0.0/16 --subnet 10.0.1.0/24 n",
                "multiple overlapping subnet configuration is not supported",
            ),
            ("--subnet x n", "invalid CIDR address: x"),
        ] {
            assert_eq!(body(line).unwrap_err().to_string(), error);
        }
    }
}
