//! `gantry-netd`: started by the daemon with the listening socket as its standard input.

use std::os::fd::AsFd;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A session of its own: no signal meant for the daemon's terminal reaches it.
    let _ = rustix::process::setsid();
    // Relays take two descriptors a connection. What cannot be had is done without.
    let mut files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    files.current = files.maximum;
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, files);
    let listener = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("gantry-netd: {error}");
            return ExitCode::FAILURE;
        }
    };
    match gantry_netd::serve(listener) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry-netd: {error}");
            ExitCode::FAILURE
        }
    }
}
