use anyhow::{Result, bail};
use clap::Args;
use gantry_wire::spec::EndpointSettings;
use gantry_wire::{NetworkConnectRequest, NetworkDisconnectRequest};
use serde_json::Value;

use crate::app::App;
use crate::client::segment;
use crate::error::{for_each, is_not_found};
use crate::format::time::rfc3339_go;
use crate::format::{Fields, Layout, outln, print_list, short_id};
use crate::opts::network::addresses;
use crate::opts::values::{Filter, filters_json, key_values, list, parse_filter};

/// Flags of `network ls`.
#[derive(Args, Debug)]
pub(crate) struct NetworkLs {
    /// Provide filter values (e.g. "driver=bridge")
    #[arg(long, short, value_name = "filter", value_parser = parse_filter)]
    pub(crate) filter: Vec<Filter>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, value_name = "string")]
    pub(crate) format: Option<String>,
    /// Do not truncate the output
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only display network IDs
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

const LAYOUT: Layout = Layout {
    columns: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
    ],
    more_headings: &[
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
    quiet: "{{.ID}}",
    raw: "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n",
};

impl NetworkLs {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let format = app
            .config()
            .format(self.format.as_deref(), "networksFormat", self.quiet);
        let networks = app
            .client()?
            .get("/networks")
            .maybe("filters", Some(filters_json(&self.filter)))
            .value()
            .await?;
        let mut networks: Vec<&Value> = networks.as_array().into_iter().flatten().collect();
        networks.sort_by_key(|network| network["Name"].as_str().unwrap_or_default());
        let rows = networks
            .into_iter()
            .map(|network| row(network, !self.no_trunc))
            .collect();
        print_list(&LAYOUT, format, self.quiet, rows)
    }
}

fn row(network: &Value, truncate: bool) -> Fields {
    let text = |name: &str| network[name].as_str().unwrap_or_default();
    let flag = |name: &str| network[name].as_bool().unwrap_or(false).to_string();
    let id = text("Id");
    Fields::default()
        .set("ID", if truncate { short_id(id) } else { id })
        .set("Name", text("Name"))
        .set("Driver", text("Driver"))
        .set("Scope", text("Scope"))
        .set(
            "IPv4",
            network["EnableIPv4"].as_bool().unwrap_or(true).to_string(),
        )
        .set("IPv6", flag("EnableIPv6"))
        .set("Internal", flag("Internal"))
        .set("CreatedAt", rfc3339_go(text("Created")))
        .labels(&network["Labels"])
}

/// Flags of `network rm`.
#[derive(Args, Debug)]
pub(crate) struct NetworkRm {
    /// Do not error if the network does not exist
    #[arg(long, short)]
    pub(crate) force: bool,
    #[arg(required = true)]
    networks: Vec<String>,
}

impl NetworkRm {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = app.client()?;
        for_each(self.networks, async |name| {
            match client
                .delete(format!("/networks/{}", segment(&name)))
                .done()
                .await
                .map_err(anyhow::Error::from)
            {
                Err(error) if self.force && is_not_found(&error) => Ok(()),
                Err(error) => Err(error),
                Ok(()) => outln!("{name}"),
            }
        })
        .await
    }
}

/// Flags of `network connect`.
#[derive(Args, Debug)]
pub(crate) struct NetworkConnect {
    /// Add network-scoped alias for the container
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    pub(crate) alias: Vec<String>,
    /// driver options for the network
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    pub(crate) driver_opt: Vec<String>,
    /// Highest gw-priority provides the default gateway. Accepts positive and negative values.
    #[arg(long, value_name = "int")]
    pub(crate) gw_priority: Option<i64>,
    /// IPv4 address (e.g., "172.30.100.104")
    #[arg(long, value_name = "string")]
    pub(crate) ip: Option<String>,
    /// IPv6 address (e.g., "2001:db8::33")
    #[arg(long, value_name = "string")]
    pub(crate) ip6: Option<String>,
    /// Add link to another container
    #[arg(long, value_name = "list")]
    pub(crate) link: Vec<String>,
    /// Add a link-local address for the container
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    pub(crate) link_local_ip: Vec<String>,
    network: String,
    container: String,
}

impl NetworkConnect {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        if let Some(option) = self
            .driver_opt
            .iter()
            .find(|option| !option.contains('=') || option.starts_with('='))
        {
            bail!("invalid key/value pair format in driver options: {option}");
        }
        let text = |flag: &Option<String>| flag.clone().unwrap_or_default();
        let driver_opts = key_values(&self.driver_opt);
        let endpoint = EndpointSettings {
            ipam_config: addresses(&text(&self.ip), &text(&self.ip6), &self.link_local_ip),
            links: list(&self.link),
            aliases: list(&self.alias),
            driver_opts: (!driver_opts.is_empty()).then_some(driver_opts),
            gw_priority: self.gw_priority.unwrap_or(0),
            ..EndpointSettings::default()
        };
        let path = format!("/networks/{}/connect", segment(&self.network));
        let body = NetworkConnectRequest {
            container: self.container,
            endpoint_config: Some(endpoint),
        };
        Ok(app.client()?.post(path).json(&body)?.done().await?)
    }
}

/// Flags of `network disconnect`.
#[derive(Args, Debug)]
pub(crate) struct NetworkDisconnect {
    /// Force the container to disconnect from a network
    #[arg(long, short)]
    pub(crate) force: bool,
    network: String,
    container: String,
}

impl NetworkDisconnect {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let path = format!("/networks/{}/disconnect", segment(&self.network));
        let body = NetworkDisconnectRequest {
            container: self.container,
            force: self.force,
        };
        Ok(app.client()?.post(path).json(&body)?.done().await?)
    }
}
