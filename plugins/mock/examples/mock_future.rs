//! A plugin of a later protocol, which no engine of today may load.

use gantry_plugin_mock::MockNetwork;

gantry_plugin_sdk::plugin! { kind: network, driver: MockNetwork, name: "future", protocol: [98, 99] }
