//! Identifiers, specifications and states of Gantry's objects.
//!
//! Everything here is plain data: no I/O, no clocks but [`Timestamp::now`], no policy. The JSON form of the
//! specification types is the Docker Engine API's, so that what a client sent is what is stored and shown again.

pub mod container;
pub mod digest;
pub mod id;
pub mod lenient;
pub mod platform;
pub mod reference;
pub mod time;

pub use digest::{Digest, DigestError};
pub use id::{ContainerId, EndpointId, ExecId, ImageId, NetworkId};
pub use platform::Platform;
pub use reference::{Reference, ReferenceError};
pub use time::Timestamp;
