//! The mock storage driver as a plugin.

use gantry_plugin_mock::MockStorage;

gantry_plugin_sdk::plugin! { kind: storage, driver: MockStorage, name: "mock" }
