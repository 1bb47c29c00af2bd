//! Images, networks and volumes as clients see them, and the engine itself.

mod images;
mod networks;
mod system;
mod transfer;
mod volumes;

pub use images::encode_image_event;
