//! Containers through the real zygote and monitors. Needs root and Debian's `busybox-static`.

mod common;
mod exec;
mod foreign;
mod io;
mod measure;
mod run;
mod survive;
mod userns;
