//! The mock volume driver as a plugin.

use gantry_plugin_mock::MockVolume;

gantry_plugin_sdk::plugin! { kind: volume, driver: MockVolume, name: "mock" }
