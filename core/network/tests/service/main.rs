//! The service with the real bridge driver, on a host of its own.

mod held;
mod ports;
mod reach;
#[path = "../rig/mod.rs"]
mod rig;
mod shared;
mod survive;
mod undone;
mod wishes;

use std::net::IpAddr;

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

/// Whether frames between members of a bridge pass the IP firewall changes which way a container's own packets take.
fn filter_bridged_frames(yes: bool) {
    let sysctl = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    // A kernel without the file never filters them.
    if std::path::Path::new(sysctl).exists() {
        std::fs::write(sysctl, if yes { "1" } else { "0" }).unwrap();
    }
}
