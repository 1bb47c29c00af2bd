//! Images, networks and volumes as clients see them, and the engine itself.

mod archive_url;
mod connect;
mod credentials;
mod images;
mod import;
mod info;
mod migrate;
mod networks;
mod pools;
mod remote;
mod system;
mod transfer;
mod volumes;

pub use images::encode_image_event;
pub(crate) use images::{parse_platform, reference};
pub use import::ImportSource;
