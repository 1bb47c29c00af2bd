//! The command line, which is runc's.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::error::{Error, Result};

const VERSION: &str = concat!(
    "version ",
    env!("CARGO_PKG_VERSION"),
    "\nspec: 1.2.0\ninit: gantry-monitor"
);

/// Runs containers from OCI bundles.
#[derive(Debug, Parser)]
#[command(name = "gantry-oci", version = VERSION)]
pub(crate) struct Cli {
    /// Directory for the state of containers; should be on a tmpfs
    #[arg(long, default_value = "/run/gantry-oci", value_name = "DIR")]
    pub(crate) root: PathBuf,
    /// File that errors and warnings are appended to
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Form of the log
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
    /// Log more
    #[arg(long)]
    pub(crate) debug: bool,
    /// Not supported: cgroups are made in the cgroup file system
    #[arg(long)]
    systemd_cgroup: bool,
    /// Only `false` and `auto`
    #[arg(long, default_value = "auto", value_name = "BOOL")]
    rootless: String,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// What is asked for and not done.
    pub(crate) fn refuse(&self) -> Result<()> {
        if self.systemd_cgroup {
            return Err(Error::refused(
                "--systemd-cgroup is not supported: have the caller use cgroupfs",
            ));
        }
        if !matches!(self.rootless.as_str(), "auto" | "false") {
            return Err(Error::refused("rootless operation is not supported"));
        }
        Ok(())
    }
}

/// The form of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a container; its program waits for `start`
    Create(CreateArgs),
    /// Run the program of a created container
    Start(IdArgs),
    /// Make a container and run its program
    Run(RunArgs),
    /// Run another program in a container
    Exec(ExecArgs),
    /// Print a container's state
    State(IdArgs),
    /// Send a signal to a container's first process
    Kill(KillArgs),
    /// Remove a stopped container
    Delete(DeleteArgs),
    /// Freeze a container's processes
    Pause(IdArgs),
    /// Thaw a container's processes
    Resume(IdArgs),
    /// Change a container's limits
    Update(Box<UpdateArgs>),
    /// Print what a container uses, once or again and again
    Events(EventsArgs),
    /// Print the containers
    List(ListArgs),
    /// Print a container's processes
    Ps(PsArgs),
    /// Write a specification to start from
    Spec(SpecArgs),
    /// Print what this runtime can do, as the specification has it
    Features,
}

#[derive(Debug, Args)]
pub(crate) struct IdArgs {
    /// The container
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The bundle: a directory with a `config.json`
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub(crate) bundle: PathBuf,
    /// Socket that takes the master side of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// File that takes the number of the container's first process
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Not supported: the root is always changed by pivot_root
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Do not give the container a session keyring of its own
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// How many further descriptors, from 3 on, the container gets
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) preserve_fds: u32,
    /// Name of the new container
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) create: CreateArgs,
    /// Leave once the program runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Do not remove the container as it ends
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The process as the specification has it, instead of a command
    #[arg(short, long, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// Leave once the program runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// File that takes the number of the process
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Socket that takes the master side of the process's terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// User, `UID[:GID]`
    #[arg(short, long, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
    /// Further groups
    #[arg(short = 'g', long, value_name = "GID")]
    pub(crate) additional_gids: Vec<u32>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// Environment, `NAME=value`
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Further capabilities
    #[arg(short, long, value_name = "CAP")]
    pub(crate) cap: Vec<String>,
    /// Let it gain no privileges
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    pub(crate) process_label: Option<String>,
    /// How many further descriptors, from 3 on, it gets
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) preserve_fds: u32,
    /// Also in a paused container
    #[arg(long)]
    pub(crate) ignore_paused: bool,
    /// The container
    pub(crate) id: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Send it to all the container's processes
    #[arg(short, long)]
    pub(crate) all: bool,
    /// The container
    pub(crate) id: String,
    /// Name or number
    #[arg(default_value = "SIGTERM")]
    pub(crate) signal: String,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Kill it first where it still runs; one that is not there is removed already
    #[arg(short, long)]
    pub(crate) force: bool,
    /// The container
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// Limits as the specification has them; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) resources: Option<PathBuf>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long)]
    pub(crate) blkio_weight: Option<u16>,
    /// Microseconds
    #[arg(long)]
    pub(crate) cpu_period: Option<u64>,
    /// Microseconds of a period
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// Relative weight
    #[arg(long)]
    pub(crate) cpu_shares: Option<u64>,
    /// Microseconds
    #[arg(long)]
    pub(crate) cpu_rt_period: Option<u64>,
    /// Microseconds of a period
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) cpu_rt_runtime: Option<i64>,
    /// Processors
    #[arg(long)]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long)]
    pub(crate) cpuset_mems: Option<String>,
    /// Bytes; -1 for no limit
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) memory: Option<i64>,
    /// Bytes
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) memory_reservation: Option<i64>,
    /// Bytes of memory and swap; -1 for no limit
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<i64>,
    /// Processes; -1 for no limit
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// The container
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Print once
    #[arg(long)]
    pub(crate) stats: bool,
    /// Seconds between two prints
    #[arg(long, default_value = "5s")]
    pub(crate) interval: String,
    /// The container
    pub(crate) id: String,
}

/// The form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Form
    #[arg(short, long, default_value = "table")]
    pub(crate) format: ListFormat,
    /// Names only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Form
    #[arg(short, long, default_value = "table")]
    pub(crate) format: ListFormat,
    /// The container
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct SpecArgs {
    /// Directory to write it to
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub(crate) bundle: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_takes_what_callers_pass() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).unwrap();
        let cli = parse(
            "gantry-oci --log-format=json --log=/l --root /r create --bundle /b --pid-file /p --console-socket /s x",
        );
        assert!(matches!(cli.command, Command::Create(a) if a.id == "x"));
        let cli = parse("gantry-oci exec -d -e A=b -u 1:2 x sh -c -x --env");
        let Command::Exec(exec) = cli.command else {
            panic!("not an exec")
        };
        assert_eq!(exec.command, ["sh", "-c", "-x", "--env"]);
        assert!(parse("gantry-oci --systemd-cgroup list").refuse().is_err());
    }
}
