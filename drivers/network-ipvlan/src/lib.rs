//! Networks on one of the host's links, in which containers share its Ethernet address.
//!
//! Options as Docker's: `parent` (`eth0`, `eth0.10`), `ipvlan_mode` and `ipvlan_flag`. In the modes `l3` and `l3s` there
//! is no gateway: everything is sent by the link. Addresses inside and routes are core's; the rest is
//! [`gantry_plugin_sdk::lan`]'s.

use std::collections::BTreeMap;

use gantry_plugin_sdk::lan::{Kind, Lan};
use gantry_plugin_sdk::sys::netlink::{Ipvlan, Reach, Stacked};
use gantry_plugin_sdk::{DriverError, DriverResult};

const MODE: &str = "ipvlan_mode";
const FLAG: &str = "ipvlan_flag";

/// The driver.
pub type IpvlanNetwork = Lan<IpvlanKind>;

/// Ipvlan links.
#[derive(Debug)]
pub struct IpvlanKind;

impl Kind for IpvlanKind {
    const NAME: &'static str = "ipvlan";

    fn parse(options: &BTreeMap<String, String>) -> DriverResult<Stacked> {
        let of = |key| options.get(key).map_or("", String::as_str);
        let mode = match of(MODE) {
            "" | "l2" => Ipvlan::L2,
            "l3" => Ipvlan::L3,
            "l3s" => Ipvlan::L3s,
            other => {
                let text = format!(
                    "requested ipvlan mode '{other}' is not valid, 'l2' mode is the ipvlan driver default"
                );
                return Err(DriverError::invalid(text));
            }
        };
        let reach = match of(FLAG) {
            "" | "bridge" => Reach::Bridge,
            "private" => Reach::Private,
            "vepa" => Reach::Vepa,
            other => {
                let text = format!(
                    "requested ipvlan flag '{other}' is not valid, 'bridge' is the ipvlan driver default"
                );
                return Err(DriverError::invalid(text));
            }
        };
        Ok(Stacked::Ipvlan(mode, reach))
    }

    fn agree(one: Stacked, other: Stacked) -> bool {
        // Mode and flag are the parent's.
        one == other
    }

    fn has_mac(_: Stacked) -> bool {
        false
    }

    fn is_routed(kind: Stacked) -> bool {
        matches!(kind, Stacked::Ipvlan(Ipvlan::L3 | Ipvlan::L3s, _))
    }
}

gantry_plugin_sdk::plugin! { kind: network, driver: IpvlanNetwork, name: "ipvlan" }

#[cfg(test)]
mod tests;
