use std::net::IpAddr;

use anyhow::{Result, bail};
use clap::Args;
use gantry_wire::{ConfigReference, Ipam, IpamConfig, NetworkCreateReply, NetworkCreateRequest};

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
        let request = app.client()?.post("/networks/create").json(&self.body()?)?;
        let created: NetworkCreateReply = request.fetch().await?;
        if !created.warning.is_empty() {
            eprintln!("WARNING: {}", created.warning);
        }
        outln!("{}", created.id)
    }

    fn body(&self) -> Result<NetworkCreateRequest> {
        let text =
            |flag: &Option<String>, default: &str| flag.as_deref().unwrap_or(default).to_owned();
        let from = self.config_from.as_deref().filter(|name| !name.is_empty());
        Ok(NetworkCreateRequest {
            name: self.network.clone(),
            driver: text(&self.driver, "bridge"),
            scope: text(&self.scope, ""),
            enable_ipv4: self.ipv4,
            enable_ipv6: self.ipv6,
            ipam: Some(Ipam {
                driver: text(&self.ipam_driver, "default"),
                options: Some(key_values(&self.ipam_opt)),
                config: Some(self.pools()?),
            }),
            internal: self.internal,
            attachable: self.attachable,
            ingress: self.ingress,
            config_only: self.config_only,
            config_from: from.map(|name| ConfigReference {
                network: name.to_owned(),
            }),
            options: Some(key_values(&self.opt)),
            labels: Some(key_values(&self.label)),
        })
    }

    /// Address pools: each range, gateway and reserved address goes to the subnet that holds it.
    fn pools(&self) -> Result<Vec<IpamConfig>> {
        if self.subnet.len() < self.ip_range.len() || self.subnet.len() < self.gateway.len() {
            bail!("every ip-range or gateway must have a corresponding subnet");
        }
        let mut pools = Pools(Vec::new());
        for text in &self.subnet {
            pools.add(text)?;
        }
        for text in &self.ip_range {
            let pool = pools.holding("range", text, Some(Subnet::parse(text)?.address))?;
            set_once(&mut pool.ip_range, text, "ranges")?;
        }
        for text in &self.gateway {
            let pool = pools.holding("gateway", text, text.parse().ok())?;
            set_once(&mut pool.gateway, text, "gateways")?;
        }
        for (name, text) in key_values(&self.aux_address) {
            let pool = pools.holding("aux-address", &text, text.parse().ok())?;
            pool.auxiliary_addresses
                .get_or_insert_default()
                .insert(name, text);
        }
        Ok(pools.0.into_iter().map(|(_, pool)| pool).collect())
    }
}

struct Pools(Vec<(Subnet, IpamConfig)>);

impl Pools {
    fn add(&mut self, text: &str) -> Result<()> {
        let subnet = Subnet::parse(text)?;
        if self.0.iter().any(|(other, _)| other.overlaps(&subnet)) {
            bail!("multiple overlapping subnet configuration is not supported");
        }
        self.0.push((
            subnet,
            IpamConfig {
                subnet: text.into(),
                ..IpamConfig::default()
            },
        ));
        Ok(())
    }

    fn holding(
        &mut self,
        what: &str,
        text: &str,
        address: Option<IpAddr>,
    ) -> Result<&mut IpamConfig> {
        let holds = |subnet: &Subnet| address.is_some_and(|address| subnet.contains(address));
        match self.0.iter_mut().find(|(subnet, _)| holds(subnet)) {
            Some((_, pool)) => Ok(pool),
            None => bail!("no matching subnet for {what} {text}"),
        }
    }
}

fn set_once(member: &mut String, text: &str, what: &str) -> Result<()> {
    if !member.is_empty() {
        bail!("cannot configure multiple {what} ({text}, {member}) on the same subnet");
    }
    text.clone_into(member);
    Ok(())
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
    use serde_json::json;

    use super::*;

    fn body(line: &str) -> Result<NetworkCreateRequest> {
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
            serde_json::to_value(body.ipam.unwrap().config).unwrap(),
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
