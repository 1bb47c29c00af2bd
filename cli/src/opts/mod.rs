//! From flags to the API's objects.

pub(crate) mod build;
pub(crate) mod devices;
pub(crate) mod flags;
pub(crate) mod limits;
pub(crate) mod live;
pub(crate) mod mounts;
pub(crate) mod network;
pub(crate) mod own;
pub(crate) mod ports;
pub(crate) mod values;
