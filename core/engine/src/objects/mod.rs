//! Images, networks and volumes as clients see them, and the engine itself.

mod connect;
mod images;
mod info;
mod networks;
mod system;
mod transfer;
mod volumes;

pub use images::encode_image_event;
pub(crate) use images::reference;
