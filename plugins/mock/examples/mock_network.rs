//! The mock network driver as a plugin.

use gantry_plugin_mock::MockNetwork;

gantry_plugin_sdk::plugin! {
    kind: network,
    driver: MockNetwork,
    name: "mock",
    capabilities: ["share", "unshare", "shared", "allocate", "members"],
}
