//! A sandbox as the service keeps it.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use gantry_driver_api::network::{EndpointSpec, JoinPlan};
use gantry_sys::netlink::{Change, RouteSocket};
use gantry_sys::netns;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::endpoint::link_local;
use crate::files::HostLine;
use crate::publish::Published;
use crate::resolv::Resolv;
use crate::rows::Rows;
use crate::{
    EndpointConfig, EndpointInfo, NetworkError, PortBinding, PortRequest, Result, SandboxFiles,
    SandboxSpec, wish,
};

/// An attachment with what is needed to undo it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) info: EndpointInfo,
    pub(crate) driver: String,
    pub(crate) spec: EndpointSpec,
    pub(crate) plan: JoinPlan,
    /// What it put into `hosts`.
    pub(crate) hosts: Vec<HostLine>,
    /// Names are known on its network.
    pub(crate) named: bool,
    /// Its network leads nowhere.
    pub(crate) internal: bool,
    /// Where its ports are published when the request does not say.
    pub(crate) host_binding: Option<IpAddr>,
}

/// What is written down of a sandbox, to be found by the next daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) boot_id: String,
    pub(crate) spec: SandboxSpec,
    pub(crate) endpoints: Vec<Endpoint>,
    /// The attachment that is being made or taken away. A daemon that finds one takes it away: nobody was told of it, or
    /// that it is still there.
    #[serde(default)]
    pub(crate) under_way: Option<Endpoint>,
    pub(crate) requests: Rows<PortRequest>,
    pub(crate) bindings: Rows<PortBinding>,
    #[serde(flatten)]
    pub(crate) published: Published,
    pub(crate) routes: Routes,
    /// What the engine wrote into `resolv.conf`.
    pub(crate) resolv: String,
    /// What it wrote before, while it is not certain that this is there.
    #[serde(default)]
    pub(crate) resolv_before: Option<String>,
}

/// Default gateways that are set, with the attachment that each belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Routes {
    pub(crate) v4: Option<(String, IpAddr)>,
    pub(crate) v6: Option<(String, IpAddr)>,
}

#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) saved: Saved,
    pub(crate) files: SandboxFiles,
    /// None on the host's network.
    pub(crate) netns: Option<Arc<OwnedFd>>,
    /// Opened when needed.
    pub(crate) socket: Option<RouteSocket>,
    /// The servers that are asked for names that are not containers'.
    pub(crate) resolv: Resolv,
    /// It was released while somebody waited for it.
    pub(crate) gone: bool,
}

/// The gateway of one family in a plan.
pub(crate) fn gateway(plan: &JoinPlan, v6: bool) -> Option<IpAddr> {
    plan.gateways.iter().copied().find(|ip| ip.is_ipv6() == v6)
}

impl Place {
    pub(crate) fn spec(&self) -> &SandboxSpec {
        &self.saved.spec
    }

    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.saved.endpoints
    }

    /// The attachment that has the default route of a family: the highest priority, then the first name.
    pub(crate) fn gateway_endpoint(&self, v6: bool) -> Option<&Endpoint> {
        let with_gateway = |e: &&Endpoint| gateway(&e.plan, v6).is_some();
        self.saved
            .endpoints
            .iter()
            .filter(with_gateway)
            .min_by(|a, b| {
                let priority = b.info.config.gw_priority.cmp(&a.info.config.gw_priority);
                priority.then_with(|| a.info.network_name.cmp(&b.info.network_name))
            })
    }

    /// The routes as they should be.
    pub(crate) fn wanted_routes(&self) -> Routes {
        let of = |v6| {
            let endpoint = self.gateway_endpoint(v6)?;
            Some((endpoint.plan.link.clone(), gateway(&endpoint.plan, v6)?))
        };
        Routes {
            v4: of(false),
            v6: of(true),
        }
    }

    /// Whether it asks netd for names: on user-defined networks, and with an egress list.
    pub(crate) fn asks_netd(&self) -> bool {
        let confined = self.spec().egress.is_some();
        self.endpoints()
            .iter()
            .any(|e| e.named || (confined && !e.plan.link.is_empty()))
    }

    /// The socket that configures the namespace.
    pub(crate) fn socket(&mut self) -> Result<&mut RouteSocket> {
        let Some(netns) = &self.netns else {
            return Err(NetworkError::internal(
                "the sandbox has no network namespace",
            ));
        };
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => netns::inside(&**netns, RouteSocket::open)
                .map_err(|e| NetworkError::io("entering the sandbox", &e))?,
        };
        Ok(self.socket.insert(socket))
    }

    /// A number for the next link that no link of the sandbox has.
    pub(crate) fn next_link(&self) -> String {
        let number = |link: &str| link.trim_start_matches("eth").parse::<u32>().ok();
        // The driver or the user may have called one otherwise.
        let links = |e: &Endpoint| [number(&e.spec.link), number(&e.plan.link)];
        let used: Vec<u32> = self.endpoints().iter().flat_map(links).flatten().collect();
        let free = (0..).find(|n| !used.contains(n)).unwrap_or_default();
        format!("eth{free}")
    }

    /// Applies a plan to the link that the driver made, and the default routes if they change with it.
    pub(crate) fn configure(&mut self, plan: &JoinPlan, config: &EndpointConfig) -> Result<()> {
        let failed =
            |e: std::io::Error| NetworkError::io(format_args!("configuring {}", plan.link), &e);
        if plan.addresses.iter().any(|net| net.addr().is_ipv6())
            && let Some(netns) = &self.netns
        {
            // The namespace was prepared for links without IPv6.
            let path = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", plan.link);
            netns::inside(&**netns, || std::fs::write(&path, "0")).map_err(failed)?;
        }
        self.set_link(&plan.link, config)?;
        let (before, after) = (self.saved.routes.clone(), self.wanted_routes());
        let socket = self.socket()?;
        let link = socket.link(&plan.link).map_err(failed)?;
        let link = link.ok_or_else(|| {
            NetworkError::internal(format!("the driver made no link {}", plan.link))
        })?;
        if plan.configured {
            let more = link_local(config).map(|net| Change::address(link.index, net));
            socket.apply(more.collect()).map_err(|e| failed(e.error))?;
            self.leave_one_default(plan, &before, &after)?;
            self.saved.routes = after;
            return Ok(());
        }
        let mut changes = Vec::with_capacity(4);
        if plan.mtu != 0 && plan.mtu != link.mtu {
            changes.push(Change::mtu(link.index, plan.mtu));
        }
        changes.extend(
            plan.addresses
                .iter()
                .map(|net| Change::address(link.index, *net)),
        );
        changes.push(Change::up(link.index));
        changes.extend(
            plan.routes
                .iter()
                .map(|r| Change::route(r.to, r.via, link.index)),
        );
        for (was, wanted) in [(&before.v4, &after.v4), (&before.v6, &after.v6)] {
            if let Some((of, gateway)) = wanted
                && was != wanted
                && *of == plan.link
            {
                changes.push(Change::default_route(*gateway, link.index));
            }
        }
        socket.apply(changes).map_err(|e| failed(e.error))?;
        self.saved.routes = after;
        Ok(())
    }

    /// After a driver has set default routes of its link beside those that there were: leaves one a family.
    fn leave_one_default(
        &mut self,
        plan: &JoinPlan,
        before: &Routes,
        after: &Routes,
    ) -> Result<()> {
        const ESRCH: i32 = 3;
        let failed = |e: std::io::Error| NetworkError::io("changing the default route", &e);
        let any = [IpNet::V4(Default::default()), IpNet::V6(Default::default())];
        let families = [(&before.v4, &after.v4), (&before.v6, &after.v6)];
        for (any, (was, wanted)) in any.into_iter().zip(families) {
            let v6 = any.addr().is_ipv6();
            let (Some(_), Some((winner, _))) = (gateway(plan, v6), wanted) else {
                continue;
            };
            let loser = match (was, *winner == plan.link) {
                (_, false) => &plan.link,
                (Some((link, _)), true) => link,
                (None, true) => continue,
            };
            let socket = self.socket()?;
            let Some(loser) = socket.link(loser).map_err(failed)? else {
                continue;
            };
            match socket.apply(vec![Change::delete_route(any, loser.index)]) {
                Err(e) if e.error.raw_os_error() != Some(ESRCH) => return Err(failed(e.error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes the kernel settings that the user wishes for a link.
    fn set_link(&self, link: &str, config: &EndpointConfig) -> Result<()> {
        let settings: Vec<_> = wish::link_settings(config).collect();
        let Some(netns) = self.netns.as_ref().filter(|_| !settings.is_empty()) else {
            return Ok(());
        };
        let written = netns::inside(&**netns, || {
            for setting in &settings {
                let path = setting.path(link);
                let why = |e: std::io::Error| match e.kind() {
                    std::io::ErrorKind::NotFound => format!("{path} is not a sysctl file"),
                    _ => format!("unable to write to '{path}': {e}"),
                };
                std::fs::write(&path, setting.value).map_err(|e| std::io::Error::other(why(e)))?;
            }
            Ok(())
        });
        written.map_err(|e| {
            NetworkError::invalid(format!("failed to set interface settings of {link}: {e}"))
        })
    }

    /// Sets the default routes anew after an attachment is gone.
    pub(crate) fn reroute(&mut self) -> Result<()> {
        let failed = |e: std::io::Error| NetworkError::io("changing the default route", &e);
        let (before, after) = (self.saved.routes.clone(), self.wanted_routes());
        if before == after {
            return Ok(());
        }
        let socket = self.socket()?;
        let mut changes = Vec::new();
        for (was, wanted) in [(&before.v4, &after.v4), (&before.v6, &after.v6)] {
            if let Some((link, gateway)) = wanted.as_ref().filter(|_| was != wanted)
                && let Some(link) = socket.link(link).map_err(failed)?
            {
                changes.push(Change::default_route(*gateway, link.index));
            }
        }
        socket.apply(changes).map_err(|e| failed(e.error))?;
        self.saved.routes = after;
        Ok(())
    }
}
