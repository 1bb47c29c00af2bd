//! The driver against scripted servers.

mod auth;
mod common;
mod transfer;
mod upload;
