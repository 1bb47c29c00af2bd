//! The zygote and the per-container monitors it forks; see the library of this crate for what they are for.
//!
//! `gantry-monitor zygote`, with a `SOCK_SEQPACKET` socket as descriptor 3, is the only way it is called. Everything here
//! is single-threaded by design: processes fork and clone freely, which no thread would survive.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_none_or(|a| a != "zygote") || args.next().is_some() {
        eprintln!("usage: gantry-monitor zygote   (by gantryd, with a socket as descriptor 3)");
        return ExitCode::from(2);
    }
    match gantry_monitor::serve_zygote() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry-monitor: {error}");
            ExitCode::FAILURE
        }
    }
}
