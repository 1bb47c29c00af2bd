//! Hosts one plugin out of the engine's process. Started by the engine with a SEQPACKET socket as standard input;
//! ends when that closes.

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

fn main() -> ExitCode {
    // The file that runs is a copy with another name. Without this one it works as well.
    let _ = rustix::thread::set_name(c"gantry-driver-h");
    let served = io::stdin().as_fd().try_clone_to_owned().and_then(|socket| {
        // The driver gets no standard input that it could read the engine's requests from.
        let nothing = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(nothing)?;
        gantry_plugin_host::serve(socket)
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry-driver-host: no engine on standard input: {error}");
            ExitCode::FAILURE
        }
    }
}
