//! Drives real binaries: `gantryd` on a private root, the docker CLI, `gantry`, docker-registry, skopeo.
//!
//! Every test starts an engine of its own with [`Engine::start`] and ends it with [`Engine::finish`], which fails the
//! test when the engine left anything on the machine: mounts, links, cgroups, firewall tables or processes (and with
//! the mounts and processes their namespaces). Needs root; what else is needed is installed by the repository's test
//! command.

mod authority;
mod card;
mod echo;
mod engine;
mod far;
mod fixture;
mod footprint;
mod http;
mod hub;
mod proxy;
pub mod raw;
mod registry;
mod relay;
mod run;
mod short;
mod token;

pub use authority::{Authority, Pair};
pub use card::Card;
pub use echo::Echo;
pub use engine::{Engine, Options, bin_dir};
pub use far::Far;
pub use fixture::{busybox_rootfs, busybox_tar, debian_rootfs, free_port, noise};
pub use http::{HttpServer, Request, Response, ask};
pub use hub::Hub;
pub use proxy::Proxy;
pub use registry::{Registry, Serve, skopeo_digest};
pub use relay::{Direction, Relay};
pub use run::{Done, eventually, run, run_env, run_stdin};
pub use short::{docker, inspect};
pub use token::Realm;
