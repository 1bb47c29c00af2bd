//! Images: names, archives, registries, platforms, through the docker CLI, `gantry` and the tools of others.

mod archives;
mod import;
mod layers;
mod layout;
mod names;
mod platforms;
mod registry;
mod show;
