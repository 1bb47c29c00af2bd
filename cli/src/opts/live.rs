//! Ports and mounts of a running container: Gantry's own flags of `update`.

use anyhow::Result;
use clap::Args;
use gantry_wire::spec::Mount;
use gantry_wire::{MountsUpdate, PortsUpdate};
use serde_json::{Map, Value};

use super::mounts::parse_mount;
use super::own::egress;
use super::ports::ports;

/// What `update` changes beside limits.
#[derive(Args, Debug)]
pub(crate) struct LiveFlags {
    /// Publish a container's port(s) to the host, also while it runs
    #[arg(long, value_name = "list")]
    publish_add: Vec<String>,
    /// Withdraw a container's port (80/tcp) from the host, also while it runs
    #[arg(long, value_name = "list")]
    publish_rm: Vec<String>,
    /// Attach a filesystem mount to the container, also while it runs
    #[arg(long, value_name = "mount", value_parser = parse_mount)]
    mount_add: Vec<Mount>,
    /// Take the mount at a path of the container away, also while it runs
    #[arg(long, value_name = "list")]
    mount_rm: Vec<String>,
    /// Let the container reach only these beyond its own networks, from now on: CIDR, IP address, host name, *.domain or "none"
    #[arg(long, value_name = "list", value_delimiter = ',')]
    egress_allow: Vec<String>,
}

impl LiveFlags {
    /// Puts what is to change into the request's body.
    pub(crate) fn fill(&self, body: &mut Map<String, Value>) -> Result<()> {
        let ports = PortsUpdate {
            add: ports(&self.publish_add, &[])?.bindings,
            remove: self.publish_rm.clone(),
        };
        if !ports.is_empty() {
            body.insert("Ports".into(), serde_json::to_value(ports)?);
        }
        let mounts = MountsUpdate {
            add: self.mount_add.clone(),
            remove: self.mount_rm.clone(),
        };
        if !mounts.is_empty() {
            body.insert("Mounts".into(), serde_json::to_value(mounts)?);
        }
        if let Some(egress) = egress(&self.egress_allow) {
            body.insert("Egress".into(), serde_json::to_value(egress)?);
        }
        Ok(())
    }
}
