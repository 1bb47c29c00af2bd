//! Networks on one of the host's links, in which every container has an Ethernet address of its own: to the network
//! outside it looks like a machine.
//!
//! Options as Docker's: `parent` (`eth0`, `eth0.10`) and `macvlan_mode`. Addresses inside and routes are core's; the
//! rest is [`gantry_plugin_sdk::lan`]'s.

use std::collections::BTreeMap;

use gantry_plugin_sdk::lan::{Kind, Lan};
use gantry_plugin_sdk::sys::netlink::{Macvlan, Stacked};
use gantry_plugin_sdk::{DriverError, DriverResult};

const MODE: &str = "macvlan_mode";

/// The driver.
pub type MacvlanNetwork = Lan<MacvlanKind>;

/// Macvlan links.
#[derive(Debug)]
pub struct MacvlanKind;

impl Kind for MacvlanKind {
    const NAME: &'static str = "macvlan";

    fn parse(options: &BTreeMap<String, String>) -> DriverResult<Stacked> {
        let mode = match options.get(MODE).map_or("", String::as_str) {
            "" | "bridge" => Macvlan::Bridge,
            "private" => Macvlan::Private,
            "vepa" => Macvlan::Vepa,
            "passthru" => Macvlan::Passthru,
            other => {
                let text = format!(
                    "requested macvlan mode '{other}' is not valid, 'bridge' mode is the macvlan driver default"
                );
                return Err(DriverError::invalid(text));
            }
        };
        Ok(Stacked::Macvlan(mode))
    }

    fn agree(one: Stacked, other: Stacked) -> bool {
        // The kernel gives a parent to one link only.
        let whole = Stacked::Macvlan(Macvlan::Passthru);
        one != whole && other != whole
    }

    fn has_mac(kind: Stacked) -> bool {
        kind != Stacked::Macvlan(Macvlan::Passthru)
    }

    fn is_routed(_: Stacked) -> bool {
        false
    }
}

gantry_plugin_sdk::plugin! { kind: network, driver: MacvlanNetwork, name: "macvlan" }

#[cfg(test)]
mod tests;
