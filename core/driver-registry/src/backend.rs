//! What a handle leads to.

use std::sync::Arc;

use gantry_driver_api::{
    Call, DriverResult, Invoke, Kind, Network, Registry, Storage, Volume, network, registry,
    storage, volume,
};

/// Carries calls to one loaded driver.
pub trait Backend: Invoke {
    /// Why it serves no calls at present, or none when it does.
    fn fault(&self) -> Option<String> {
        None
    }
    /// Whether its calls may go without a deadline: it is part of the engine's own build and in its process, where a
    /// deadline costs a change of threads.
    fn unlimited(&self) -> bool {
        false
    }
    /// Whether it waits for its first call to be loaded.
    fn is_idle(&self) -> bool {
        false
    }
    /// How often it has restarted itself.
    fn restarts(&self) -> u64 {
        0
    }
}

/// A driver that is a value in this program, reached through the same encoding as a plugin. For tests of core.
pub enum Local {
    /// A storage driver.
    Storage(Arc<dyn Storage>),
    /// A network driver.
    Network(Arc<dyn Network>),
    /// A volume driver.
    Volume(Arc<dyn Volume>),
    /// A registry driver.
    Registry(Arc<dyn Registry>),
}

impl Local {
    /// What the value drives.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Storage(_) => Kind::Storage,
            Self::Network(_) => Kind::Network,
            Self::Volume(_) => Kind::Volume,
            Self::Registry(_) => Kind::Registry,
        }
    }
}

impl Invoke for Local {
    fn invoke(
        &self,
        method: &str,
        call: &Call<'_>,
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> DriverResult<()> {
        match self {
            Self::Storage(d) => storage::dispatch(&**d, method, call, request, reply),
            Self::Network(d) => network::dispatch(&**d, method, call, request, reply),
            Self::Volume(d) => volume::dispatch(&**d, method, call, request, reply),
            Self::Registry(d) => registry::dispatch(&**d, method, call, request, reply),
        }
    }
}

impl Backend for Local {}
