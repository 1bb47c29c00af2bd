//! Containers of Gantry's own runtime, through the real zygote and monitor.

#[path = "../common/mod.rs"]
mod common;
mod exec;
mod limits;
mod process;
mod streams;
mod surroundings;
mod survive;
