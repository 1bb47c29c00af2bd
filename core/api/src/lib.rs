//! The Docker Engine API over HTTP.
//!
//! [`serve`] accepts connections on the sockets it is handed, strips the version from the path, and routes to handlers
//! that extract, make one call of [`gantry_engine::Engine`] and encode. Invariants:
//! - every answer carries the engine's headers, every error is `{"message": ...}` with dockerd's status and wording;
//! - replies are shaped for the version asked for, by the table in [`gantry_wire::shape`] and nowhere else;
//! - request bodies are bounded, those that are streams (load, import) excepted, which are never held in memory;
//! - a call that changes something runs to its end when the client leaves; a stream ends when the client leaves;
//! - a connection that attach or exec took over is bytes from then on, with both directions closed independently.
//!
//! It opens no sockets, keeps no state and decides nothing about containers.

mod error;
mod extract;
mod hijack;
mod reply;
mod routes;
mod server;
mod service;
mod socket;
mod tls;
mod transport;
mod upload;

pub use server::{Listener, serve};
pub use tls::{TlsError, TlsFiles, server_config};
