//! Scriptable drivers with fail points, for tests.
//!
//! One driver per kind, each an example that is built as a plugin of its own. They work, on plain directories or in
//! memory, as the contracts say; their options make chosen methods fail in chosen ways:
//!
//! ```json
//! {"fail": {"prepare": {"with": "panic"}, "health": {"with": "error", "code": "unavailable", "message": "not today"}}}
//! ```
//! See [`Failure`]. `new` names the constructor. They are no example of good drivers: nothing here is durable.

mod network;
mod registry;
mod script;
mod storage;
mod store;
mod volume;

pub use network::MockNetwork;
pub use registry::MockRegistry;
pub use script::{Failure, Script};
pub use storage::MockStorage;
pub use volume::MockVolume;
