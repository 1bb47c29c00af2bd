use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use crate::app::App;
use crate::client::segment;
use crate::format::put;

/// `port`.
#[derive(Args, Debug)]
pub(crate) struct Port {
    container: String,
    #[arg(value_name = "PRIVATE_PORT[/PROTO]")]
    port: Option<String>,
}

impl Port {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let container = app
            .client()?
            .get(format!("/containers/{}/json", segment(&self.container)))
            .value()
            .await?;
        let ports = container["NetworkSettings"]["Ports"].as_object();
        let mut lines: Vec<String> = Vec::new();
        if let Some(wanted) = &self.port {
            let (port, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
            if port.parse::<u16>().is_err() {
                bail!(
                    "Error: invalid port ({port}): strconv.ParseUint: parsing {port:?}: invalid syntax"
                );
            }
            let bindings = ports
                .and_then(|ports| ports.get(&format!("{port}/{protocol}")))
                .unwrap_or(&Value::Null);
            lines.extend(addresses(bindings));
            if lines.is_empty() {
                bail!(
                    "Error: No public port '{wanted}' published for {}",
                    self.container
                );
            }
        } else {
            for (port, bindings) in ports.into_iter().flatten() {
                lines.extend(addresses(bindings).map(|address| format!("{port} -> {address}")));
            }
            lines.sort_by_key(|line| {
                let number = line
                    .split('/')
                    .next()
                    .and_then(|port| port.parse::<u16>().ok());
                (number, line.clone())
            });
        }
        put(&lines
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<String>())
    }
}

fn addresses(bindings: &Value) -> impl Iterator<Item = String> {
    bindings.as_array().into_iter().flatten().map(|binding| {
        let ip = binding["HostIp"].as_str().unwrap_or_default();
        let port = binding["HostPort"].as_str().unwrap_or_default();
        if ip.contains(':') {
            format!("[{ip}]:{port}")
        } else {
            format!("{ip}:{port}")
        }
    })
}
