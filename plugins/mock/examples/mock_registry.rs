//! The mock registry driver as a plugin.

use gantry_plugin_mock::MockRegistry;

gantry_plugin_sdk::plugin! { kind: registry, driver: MockRegistry, name: "mock", capabilities: ["list_tags"] }
