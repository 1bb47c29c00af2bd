//! The commands, one file each, and the table by which they are found.
//!
//! Only the command that is called has its flags built: the table is all that a start reads.

mod attach;
mod commit;
mod context;
mod context_transfer;
mod cp;
mod create;
mod df;
mod dial_stdio;
mod diff;
mod driver;
mod events;
mod exec;
mod export;
mod external;
mod fsck;
mod history;
mod image_tree;
mod images;
mod import;
mod info;
mod inspect;
mod kill;
mod load;
mod login;
mod logout;
mod logs;
mod network;
mod network_create;
mod pause;
mod port;
mod prune;
mod ps;
mod pull;
mod push;
mod registry;
mod rename;
mod restart;
mod rm;
mod rmi;
mod run;
mod save;
mod search;
mod start;
mod stats;
mod stop;
mod tag;
mod top;
mod unpause;
mod update;
pub(crate) mod version;
mod volume;
mod wait;

use std::future::Future;
use std::pin::Pin;

use anyhow::Result;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::app::App;
use crate::argv::Usage;
use crate::error::Exit;
use crate::format::put;

type Running<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// One command.
pub(crate) struct Entry {
    /// All its names; a top-level one comes first.
    names: &'static [&'static str],
    arguments: &'static str,
    about: &'static str,
    flags: fn(Command) -> Command,
    run: for<'a> fn(ArgMatches, &'a App) -> Running<'a>,
}

impl Entry {
    /// The command with its flags, for parsing.
    pub(crate) fn command(&self) -> Command {
        (self.flags)(Command::new(self.names[0]))
    }

    /// How the command is called, by the name that was used.
    pub(crate) fn usage(&self, program: &str, called: &[String]) -> Usage<'_> {
        Usage {
            path: format!("{program} {}", called.join(" ")),
            arguments: self.arguments.replace("{program}", program),
            about: self.about,
            aliases: self
                .names
                .iter()
                .map(|name| format!("{program} {name}"))
                .collect(),
            commands: String::new(),
            options_heading: "Options",
            after: String::new(),
        }
    }

    /// Runs the command.
    pub(crate) fn run<'a>(&self, matches: ArgMatches, app: &'a App) -> Running<'a> {
        (self.run)(matches, app)
    }
}

macro_rules! entries {
    ($($names:expr, $arguments:literal, $about:literal => $command:path;)*) => {
        &[$(Entry {
            names: &$names,
            arguments: $arguments,
            about: $about,
            flags: <$command>::augment_args,
            run: |mut matches, app| {
                Box::pin(async move { <$command>::from_arg_matches_mut(&mut matches)?.execute(app).await })
            },
        }),*]
    };
}

/// Groups of commands that have no meaning of their own.
const GROUPS: &[(&str, &str)] = &[
    ("builder", "Manage builds"),
    ("container", "Manage containers"),
    ("context", "Manage contexts"),
    (
        "driver",
        "Manage storage, network, volume and registry drivers",
    ),
    ("image", "Manage images"),
    (
        "manifest",
        "Manage Docker image manifests and manifest lists",
    ),
    ("network", "Manage networks"),
    ("registry", "Look into registries"),
    ("system", "Manage the engine"),
    ("volume", "Manage volumes"),
];

const ENTRIES: &[Entry] = entries! {
    ["run", "container run"], "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create and run a new container from an image" => run::Run;
    ["exec", "container exec"], "[OPTIONS] CONTAINER COMMAND [ARG...]", "Execute a command in a running container" => exec::Exec;
    ["ps", "container ls", "container list", "container ps"], "[OPTIONS]", "List containers" => ps::Ps;
    ["pull", "image pull"], "[OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry" => pull::Pull;
    ["push", "image push"], "[OPTIONS] NAME[:TAG]", "Upload an image to a registry" => push::Push;
    ["images", "image ls", "image list"], "[OPTIONS] [REPOSITORY[:TAG]]", "List images" => images::Images;
    ["login"], "[OPTIONS] [SERVER]", "Authenticate to a registry" => login::Login;
    ["logout"], "[SERVER]", "Log out from a registry" => logout::Logout;
    ["search"], "[OPTIONS] TERM", "Search Docker Hub for images" => search::Search;
    ["version"], "[OPTIONS]", "Show the version information" => version::Version;
    ["info", "system info"], "[OPTIONS]", "Display system-wide information" => info::Info;
    ["attach", "container attach"], "[OPTIONS] CONTAINER", "Attach local standard input, output, and error streams to a running container" => attach::Attach;
    ["commit", "container commit"], "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", "Create a new image from a container's changes" => commit::Commit;
    ["cp", "container cp"], "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\t{program} cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH", "Copy files/folders between a container and the local filesystem" => cp::Cp;
    ["create", "container create"], "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container" => create::Create;
    ["diff", "container diff"], "CONTAINER", "Inspect changes to files or directories on a container's filesystem" => diff::Diff;
    ["events", "system events"], "[OPTIONS]", "Get real time events from the server" => events::Events;
    ["export", "container export"], "[OPTIONS] CONTAINER", "Export a container's filesystem as a tar archive" => export::Export;
    ["history", "image history"], "[OPTIONS] IMAGE", "Show the history of an image" => history::History;
    ["import", "image import"], "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]", "Import the contents from a tarball to create a filesystem image" => import::Import;
    ["inspect"], "[OPTIONS] NAME|ID [NAME|ID...]", "Return low-level information on objects" => inspect::Inspect;
    ["kill", "container kill"], "[OPTIONS] CONTAINER [CONTAINER...]", "Kill one or more running containers" => kill::Kill;
    ["load", "image load"], "[OPTIONS]", "Load an image from a tar archive or STDIN" => load::Load;
    ["logs", "container logs"], "[OPTIONS] CONTAINER", "Fetch the logs of a container" => logs::Logs;
    ["pause", "container pause"], "CONTAINER [CONTAINER...]", "Pause all processes within one or more containers" => pause::Pause;
    ["port", "container port"], "CONTAINER [PRIVATE_PORT[/PROTO]]", "List port mappings or a specific mapping for the container" => port::Port;
    ["rename", "container rename"], "CONTAINER NEW_NAME", "Rename a container" => rename::Rename;
    ["restart", "container restart"], "[OPTIONS] CONTAINER [CONTAINER...]", "Restart one or more containers" => restart::Restart;
    ["rm", "container rm", "container remove"], "[OPTIONS] CONTAINER [CONTAINER...]", "Remove one or more containers" => rm::Rm;
    ["rmi", "image rm", "image remove"], "[OPTIONS] IMAGE [IMAGE...]", "Remove one or more images" => rmi::Rmi;
    ["save", "image save"], "[OPTIONS] IMAGE [IMAGE...]", "Save one or more images to a tar archive (streamed to STDOUT by default)" => save::Save;
    ["start", "container start"], "[OPTIONS] CONTAINER [CONTAINER...]", "Start one or more stopped containers" => start::Start;
    ["stats", "container stats"], "[OPTIONS] [CONTAINER...]", "Display a live stream of container(s) resource usage statistics" => stats::Stats;
    ["stop", "container stop"], "[OPTIONS] CONTAINER [CONTAINER...]", "Stop one or more running containers" => stop::Stop;
    ["tag", "image tag"], "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE" => tag::Tag;
    ["top", "container top"], "CONTAINER [ps OPTIONS]", "Display the running processes of a container" => top::Top;
    ["unpause", "container unpause"], "CONTAINER [CONTAINER...]", "Unpause all processes within one or more containers" => unpause::Unpause;
    ["update", "container update"], "[OPTIONS] CONTAINER [CONTAINER...]", "Update configuration of one or more containers" => update::Update;
    ["wait", "container wait"], "CONTAINER [CONTAINER...]", "Block until one or more containers stop, then print their exit codes" => wait::Wait;
    ["builder prune"], "[OPTIONS]", "Remove build cache" => prune::BuilderPrune;
    ["container inspect"], "[OPTIONS] CONTAINER [CONTAINER...]", "Display detailed information on one or more containers" => inspect::ContainerInspect;
    ["container prune"], "[OPTIONS]", "Remove all stopped containers" => prune::ContainerPrune;
    ["context create"], "[OPTIONS] CONTEXT", "Create a context" => context::ContextCreate;
    ["context export"], "CONTEXT [FILE|-]", "Export a context to a tar archive FILE or a tar stream on STDOUT." => context_transfer::ContextExport;
    ["context import"], "CONTEXT FILE|-", "Import a context from a tar archive" => context_transfer::ContextImport;
    ["context inspect"], "[OPTIONS] [CONTEXT] [CONTEXT...]", "Display detailed information on one or more contexts" => context::ContextInspect;
    ["context ls", "context list"], "[OPTIONS]", "List contexts" => context::ContextLs;
    ["context rm", "context remove"], "[OPTIONS] CONTEXT [CONTEXT...]", "Remove one or more contexts" => context::ContextRm;
    ["context show"], "", "Print the name of the current context" => context::ContextShow;
    ["context update"], "[OPTIONS] CONTEXT", "Update a context" => context::ContextUpdate;
    ["context use"], "CONTEXT", "Set the current docker context" => context::ContextUse;
    ["driver inspect"], "[OPTIONS] KIND/NAME [KIND/NAME...]", "Display detailed information on one or more drivers" => driver::DriverInspect;
    ["driver ls", "driver list"], "[OPTIONS]", "List drivers" => driver::DriverLs;
    ["driver migrate"], "[OPTIONS]", "Move images and stopped containers to the default storage driver" => driver::DriverMigrate;
    ["image inspect"], "[OPTIONS] IMAGE [IMAGE...]", "Display detailed information on one or more images" => inspect::ImageInspect;
    ["image prune"], "[OPTIONS]", "Remove unused images" => prune::ImagePrune;
    ["manifest inspect"], "[OPTIONS] MANIFEST", "Display an image manifest, or manifest list" => registry::ManifestInspect;
    ["network connect"], "[OPTIONS] NETWORK CONTAINER", "Connect a container to a network" => network::NetworkConnect;
    ["network create"], "[OPTIONS] NETWORK", "Create a network" => network_create::NetworkCreate;
    ["network disconnect"], "[OPTIONS] NETWORK CONTAINER", "Disconnect a container from a network" => network::NetworkDisconnect;
    ["network inspect"], "[OPTIONS] NETWORK [NETWORK...]", "Display detailed information on one or more networks" => inspect::NetworkInspect;
    ["network ls", "network list"], "[OPTIONS]", "List networks" => network::NetworkLs;
    ["network prune"], "[OPTIONS]", "Remove all unused networks" => prune::NetworkPrune;
    ["network rm", "network remove"], "[OPTIONS] NETWORK [NETWORK...]", "Remove one or more networks" => network::NetworkRm;
    ["registry referrers"], "NAME[:TAG|@DIGEST]", "List what refers to an image in its registry: signatures, attestations" => registry::Referrers;
    ["registry rm", "registry remove"], "NAME:TAG|NAME@DIGEST [...]", "Delete manifests from their registry, with all their tags" => registry::Remove;
    ["registry tags"], "NAME", "List the tags of a repository in its registry" => registry::Tags;
    ["system df"], "[OPTIONS]", "Show disk usage" => df::SystemDf;
    ["system dial-stdio"], "", "Proxy the stdio stream to the daemon connection" => dial_stdio::DialStdio;
    ["system fsck"], "[OPTIONS]", "Check images, containers and volumes on the disk, and mend them" => fsck::SystemFsck;
    ["system prune"], "[OPTIONS]", "Remove unused data" => prune::SystemPrune;
    ["volume create"], "[OPTIONS] [VOLUME]", "Create a volume" => volume::VolumeCreate;
    ["volume inspect"], "[OPTIONS] VOLUME [VOLUME...]", "Display detailed information on one or more volumes" => inspect::VolumeInspect;
    ["volume ls", "volume list"], "[OPTIONS]", "List volumes" => volume::VolumeLs;
    ["volume prune"], "[OPTIONS]", "Remove unused local volumes" => prune::VolumePrune;
    ["volume rm", "volume remove"], "[OPTIONS] VOLUME [VOLUME...]", "Remove one or more volumes" => volume::VolumeRm;
};

/// Not shown in lists of commands.
const HIDDEN: &[&str] = &["system dial-stdio"];
/// How many entries of the table are the ones that everybody needs first.
const COMMON: usize = 11;

/// The command that `words` begin with, and how many of them name it.
pub(crate) fn find(words: &[String]) -> Option<(&'static Entry, usize)> {
    [2, 1]
        .into_iter()
        .filter(|count| words.len() >= *count)
        .find_map(|count| {
            let name = words[..count].join(" ");
            ENTRIES
                .iter()
                .find(|entry| entry.names.contains(&name.as_str()))
                .map(|entry| (entry, count))
        })
}

/// Runs a plugin, explains a group, or says that there is no such command.
pub(crate) fn not_found(app: &App, words: &[String]) -> Result<()> {
    if let Some(plugin) = words.first().and_then(|name| external::find(app, name)) {
        return external::become_plugin(app, &plugin, words);
    }
    explain(app.program, words)
}

fn explain(program: &str, words: &[String]) -> Result<()> {
    let asks_help = |word: &String| matches!(word.as_str(), "--help" | "-h" | "help");
    let Some(first) = words.first() else {
        return print_overview(program, true);
    };
    if first == "help" {
        return help(program, &words[1..]);
    }
    let group = GROUPS.iter().find(|(name, _)| name == first);
    match (group, words.get(1)) {
        (Some((name, about)), None) => {
            eprint!("{}", group_overview(program, name, about));
            Ok(())
        }
        (Some((name, about)), Some(word)) if asks_help(word) => {
            put(&group_overview(program, name, about))
        }
        (Some((name, _)), Some(word)) if word.starts_with('-') => Err(Exit::with(
            125,
            format!(
                "unknown flag: {word}\n\nUsage:  {program} {name} COMMAND\n\nRun '{program} {name} --help' for more information"
            ),
        )),
        (Some((name, _)), Some(word)) => Err(Exit::with(
            1,
            format!(
                "{program}: unknown command: {program} {name} {word}\n\nUsage:  {program} {name}\n\nRun '{program} {name} --help' for more information"
            ),
        )),
        (None, _) => Err(Exit::with(
            1,
            format!(
                "{program}: unknown command: {program} {first}\n\nRun '{program} --help' for more information"
            ),
        )),
    }
}

/// `help COMMAND` is `COMMAND --help`.
fn help(program: &str, words: &[String]) -> Result<()> {
    match find(words) {
        Some((entry, consumed)) => {
            let usage = entry.usage(program, &words[..consumed]);
            crate::argv::parse(entry.command(), &usage, &["--help".to_owned()]).map(drop)
        }
        None if words.is_empty() => print_overview(program, false),
        None if !GROUPS.iter().any(|(name, _)| *name == words[0]) => Err(Exit::with(
            1,
            format!("unknown help topic: {}", words.join(" ")),
        )),
        None => explain(program, &[words, &["--help".to_owned()]].concat()),
    }
}

fn print_overview(program: &str, to_stderr: bool) -> Result<()> {
    let text = crate::help::render(&crate::global_flags(), &overview(program));
    if to_stderr {
        eprint!("{text}");
        return Ok(());
    }
    put(&text)
}

fn listed(commands: impl Iterator<Item = (&'static str, &'static str)>) -> String {
    commands
        .map(|(name, about)| format!("  {name:<11} {about}\n"))
        .collect()
}

/// The program as a whole: all commands by kind, and the flags before them.
pub(crate) fn overview(program: &str) -> Usage<'static> {
    let top = |entries: &'static [Entry]| {
        entries
            .iter()
            .map(|entry| (entry.names[0], entry.about))
            .filter(|(name, _)| !name.contains(' '))
    };
    Usage {
        path: program.into(),
        arguments: "[OPTIONS] COMMAND [ARG...]".into(),
        about: "A client for container engines",
        aliases: Vec::new(),
        commands: format!(
            "\nCommon Commands:\n{}\nManagement Commands:\n{}\nCommands:\n{}",
            listed(top(&ENTRIES[..COMMON])),
            listed(GROUPS.iter().copied()),
            listed(top(&ENTRIES[COMMON..])),
        ),
        options_heading: "Global Options",
        after: format!("\nRun '{program} COMMAND --help' for more information on a command.\n"),
    }
}

fn group_overview(program: &str, group: &str, about: &str) -> String {
    let in_group = |entry: &'static Entry| {
        let name = entry
            .names
            .iter()
            .find(|name| name.split(' ').next() == Some(group) && name.contains(' '))?;
        (!HIDDEN.contains(name)).then(|| (name.split(' ').nth(1).unwrap_or(name), entry.about))
    };
    let mut commands: Vec<_> = ENTRIES.iter().filter_map(in_group).collect();
    commands.sort_unstable();
    format!(
        "Usage:  {program} {group} COMMAND\n\n{about}\n\nCommands:\n{}\nRun '{program} {group} COMMAND --help' for more information on a command.\n",
        listed(commands.into_iter()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_builds_and_no_name_is_taken_twice() {
        let mut names: Vec<&str> = ENTRIES
            .iter()
            .flat_map(|entry| entry.names)
            .copied()
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for entry in ENTRIES {
            let usage = entry.usage("docker", &[entry.names[0].to_owned()]);
            let error = crate::argv::parse(entry.command(), &usage, &["--no-such-flag".to_owned()])
                .unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with("unknown flag: --no-such-flag"),
                "{:?}: {error}",
                entry.names
            );
        }
    }

    #[test]
    fn both_forms_find_the_same_command() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (line, name, consumed) in [
            ("container ls -a", "ps", 2),
            ("ps -a", "ps", 1),
            ("volume rm x", "volume rm", 2),
        ] {
            let (entry, count) = find(&words(line)).unwrap();
            assert_eq!((entry.names[0], count), (name, consumed));
        }
        assert!(find(&words("container nope")).is_none());
    }
}
