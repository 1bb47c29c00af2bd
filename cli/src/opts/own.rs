//! Flags of `run` and `create` that Docker does not have: its engine ignores what they ask for.

use anyhow::{Result, bail};
use clap::Args;
use gantry_wire::spec::{Egress, HostConfig, RestartPolicy};

use super::limits::{is_never, restart_policy};
use super::values::list;

/// What Gantry adds to Docker's objects.
#[derive(Args, Debug, Default)]
pub(crate) struct OwnFlags {
    /// Check health by HTTP from inside the container's network (http://[address][:port][/path])
    #[arg(long, value_name = "url")]
    pub(crate) health_http: Option<String>,
    /// Check health by a TCP connection from inside the container's network ([address:]port)
    #[arg(long, value_name = "port")]
    pub(crate) health_tcp: Option<String>,
    /// Start these containers first (name, name:started or name:healthy)
    #[arg(long, value_name = "list", value_delimiter = ',')]
    pub(crate) requires: Vec<String>,
    /// Restart the container when it is unhealthy, too (policy "on-failure" where none is given)
    #[arg(long)]
    pub(crate) restart_unhealthy: bool,
    /// Let the container reach only these beyond its own networks: CIDR, IP address, host name, *.domain or "none"
    #[arg(long, value_name = "list", value_delimiter = ',')]
    pub(crate) egress_allow: Vec<String>,
}

impl OwnFlags {
    /// The restart policy, with what `--restart-unhealthy` makes of it.
    pub(crate) fn policy(&self, restart: Option<&str>) -> Result<RestartPolicy> {
        let mut policy = restart_policy(restart.unwrap_or("no"))?;
        if self.restart_unhealthy {
            if restart.is_none() {
                policy.name = "on-failure".into();
            }
            if is_never(&policy) {
                bail!("conflicting options: --restart-unhealthy needs a policy that restarts");
            }
            policy.unhealthy = Some(true);
        }
        Ok(policy)
    }

    /// The test of a health check, of the one kind that is given.
    pub(crate) fn health_test(&self, command: &str) -> Result<Vec<String>> {
        let given = [
            ("CMD-SHELL", Some(command)),
            ("HTTP", self.health_http.as_deref()),
            ("TCP", self.health_tcp.as_deref()),
        ];
        let mut given = given
            .into_iter()
            .filter_map(|(kind, text)| Some((kind, text.filter(|text| !text.is_empty())?)));
        match (given.next(), given.next()) {
            (None, _) => Ok(Vec::new()),
            (Some((kind, text)), None) => Ok(vec![kind.into(), text.into()]),
            _ => bail!("conflicting options: --health-cmd, --health-http and --health-tcp"),
        }
    }

    /// Adds the rest to a host configuration.
    pub(crate) fn complete(&self, host: &mut HostConfig) {
        host.requires = list(&self.requires);
        host.egress = egress(&self.egress_allow);
    }
}

/// The list of `--egress-allow`, if it is given at all; `none` stands for one without entries.
pub(crate) fn egress(entries: &[String]) -> Option<Egress> {
    let listed = entries
        .iter()
        .filter(|entry| !matches!(entry.as_str(), "" | "none"));
    (!entries.is_empty()).then(|| Egress {
        allow: Some(listed.cloned().collect()),
    })
}
