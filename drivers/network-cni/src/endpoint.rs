//! One attachment: what plugins are told of it, and what they made.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use gantry_plugin_sdk::network::EndpointSpec;
use gantry_plugin_sdk::serde_json::{self, Value};
use gantry_plugin_sdk::sys::netlink::{Change, RouteSocket};
use gantry_plugin_sdk::sys::netns;
use gantry_plugin_sdk::{DriverError, DriverResult, links};
use serde::{Deserialize, Serialize};

use crate::conf::{List, Wishes};
use crate::exec::{Attachment, Plugins};
use crate::outcome::{Outcome, moved};
use crate::path_of;

/// The option of an endpoint with arguments for its plugins, `KEY=VALUE;KEY=VALUE`.
const ARGS: &str = "cni.args";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// As it was when the sandbox was attached.
    list: List,
    /// The link inside.
    pub(crate) link: String,
    args: String,
    wishes: Wishes,
    /// What the last plugin answered to ADD; none until then.
    pub(crate) result: Option<Value>,
}

impl Endpoint {
    /// What is wanted.
    ///
    /// # Errors
    /// `InvalidArgument` for wishes that the list's plugins do not fulfil.
    pub(crate) fn new(spec: &EndpointSpec, list: List) -> DriverResult<Self> {
        let args = spec.options.get(ARGS).cloned().unwrap_or_default();
        let is_pair = |pair: &str| pair.split_once('=').is_some_and(|(key, _)| !key.is_empty());
        if !args.is_empty() && !args.split(';').all(is_pair) || args.contains('\0') {
            return Err(DriverError::invalid(format!(
                "invalid value for {ARGS}: {args:?} is not KEY=VALUE;KEY=VALUE"
            )));
        }
        let wishes = Wishes {
            mac: spec.mac.clone(),
            ips: spec
                .addresses
                .iter()
                .map(|net| net.addr().to_string())
                .collect(),
        };
        list.check(&wishes)?;
        Ok(Self {
            list,
            link: links::inner_name(spec).unwrap_or_else(|| spec.link.clone()),
            args,
            wishes,
            result: None,
        })
    }

    fn attachment<'a>(&'a self, id: &'a str, path: Option<&str>) -> Attachment<'a> {
        Attachment {
            id,
            netns: path.map(str::to_owned),
            link: &self.link,
            args: &self.args,
        }
    }

    pub(crate) fn outcome(&self) -> DriverResult<Outcome> {
        self.result
            .as_ref()
            .map_or_else(|| Ok(Outcome::default()), Outcome::parse)
    }

    /// Runs ADD of each plugin, each told of the one before; the last one's answer.
    pub(crate) fn add(
        &self,
        plugins: &Plugins,
        id: &str,
        path: &str,
        until: Instant,
    ) -> DriverResult<Value> {
        let attachment = self.attachment(id, Some(path));
        let mut result = None;
        for plugin in &self.list.plugins {
            let kind = List::kind(plugin);
            let input = self.list.input(plugin, &self.wishes, result);
            let answer = plugins.run("ADD", kind, &attachment, &input, until)?;
            result = Some(serde_json::from_slice(&answer).map_err(|e| {
                DriverError::internal(format!(
                    "CNI plugin {kind:?} answered ADD with what is no JSON: {e}"
                ))
            })?);
        }
        Ok(result.unwrap_or_default())
    }

    /// What was made, if it is all there. Without CHECK in its version, it is taken for not being so.
    pub(crate) fn check(
        &self,
        plugins: &Plugins,
        id: &str,
        path: &str,
        until: Instant,
    ) -> Option<Outcome> {
        let result = self.result.as_ref().filter(|_| self.list.can_check())?;
        let attachment = self.attachment(id, Some(path));
        for plugin in &self.list.plugins {
            let previous = moved(result.clone(), Some(path));
            let input = self.list.input(plugin, &self.wishes, Some(previous));
            plugins
                .run("CHECK", List::kind(plugin), &attachment, &input, until)
                .ok()?;
        }
        Outcome::parse(result).ok()
    }

    /// Runs DEL of each plugin, last to first, also of those after one that fails.
    ///
    /// # Errors
    /// The first.
    pub(crate) fn delete(
        &self,
        plugins: &Plugins,
        id: &str,
        path: Option<&str>,
        until: Instant,
    ) -> DriverResult<()> {
        let stand_in = match path {
            None if self.list.masquerades() => {
                let made = self.stand_in();
                Some(made.map_err(|e| DriverError::io("making a network namespace", &e))?)
            }
            _ => None,
        };
        let stand_in = stand_in.as_ref().map(|netns| path_of(netns.as_fd()));
        let path = path.or(stand_in.as_deref());
        let attachment = self.attachment(id, path);
        let previous = self.result.as_ref().filter(|_| self.list.tells_result());
        let mut done = Ok(());
        for plugin in self.list.plugins.iter().rev() {
            let previous = previous.map(|result| moved(result.clone(), path));
            let input = self.list.input(plugin, &self.wishes, previous);
            let ended = plugins.run("DEL", List::kind(plugin), &attachment, &input, until);
            done = done.and(ended.map(drop));
        }
        done
    }

    /// A namespace in the place of one that has vanished, with a link of the same name and addresses: without these, plugins
    /// do not find the rules again by which they masqueraded.
    fn stand_in(&self) -> io::Result<OwnedFd> {
        let addresses = self.outcome().map(|outcome| outcome.addresses(&self.link));
        let addresses = addresses.unwrap_or_default();
        let (netns, ()) = netns::create(|| {
            let mut socket = RouteSocket::open()?;
            socket.apply(vec![Change::bridge(&self.link, None)])?;
            let link = socket.link(&self.link)?.ok_or(io::ErrorKind::NotFound)?;
            let addresses = addresses
                .iter()
                .map(|net| Change::address(link.index, *net));
            Ok(socket.apply(addresses.collect())?)
        })?;
        Ok(netns)
    }
}
