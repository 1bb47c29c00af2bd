//! From a set-up process to its program: identity, limits, privileges, filter, exec. The same for a container's first
//! process and for execs into it.

mod identity;
mod privileges;
mod program;

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::DirBuilderExt;

use gantry_monitor::hooks;
use gantry_monitor::plan::{Hooks, Process, Rlimit};
use gantry_monitor::protocol::{Failure, Stage};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::fault::{At, Step, failure, plain, words};
use crate::sys;
pub(crate) use identity::{Identity, resolve};

/// For directories that are only walked from.
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Descriptors that must be opened before the root changes.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    apparmor: Option<OwnedFd>,
    selinux: Option<OwnedFd>,
}

impl Labels {
    /// Opens what the process's labels are written to, in the `/proc` of the host.
    pub(crate) fn open(process: &Process) -> Step<Self> {
        let open = |path: &str, wanted: bool| -> Step<Option<OwnedFd>> {
            if !wanted {
                return Ok(None);
            }
            rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .at(Stage::Setup, || format!("open {path}"))
                .map(Some)
        };
        let apparmor = match open("/proc/self/attr/apparmor/exec", process.apparmor.is_some()) {
            Err(f) if f.errno == Errno::NOENT.raw_os_error() => open("/proc/self/attr/exec", true),
            other => other,
        };
        Ok(Self {
            apparmor: apparmor?,
            selinux: open("/proc/self/attr/exec", process.selinux.is_some())?,
        })
    }

    /// The open descriptors, which outlive the closing of all others.
    pub(crate) fn fds(&self) -> impl Iterator<Item = RawFd> {
        self.apparmor
            .iter()
            .chain(&self.selinux)
            .map(AsRawFd::as_raw_fd)
    }

    fn apply(&self, process: &Process) -> Step<()> {
        if let (Some(fd), Some(profile)) = (&self.apparmor, &process.apparmor) {
            rustix::io::write(fd, format!("exec {profile}").as_bytes())
                .at(Stage::Setup, || format!("apply apparmor profile {profile}"))?;
        }
        if let (Some(fd), Some(label)) = (&self.selinux, &process.selinux) {
            rustix::io::write(fd, label.as_bytes())
                .at(Stage::Setup, || format!("apply selinux label {label}"))?;
        }
        Ok(())
    }
}

/// A process that has everything it needs and waits for the word to exec.
#[derive(Debug)]
pub(crate) struct Prepared {
    process: Process,
    labels: Labels,
    identity: Identity,
    program: CString,
    cwd: Cwd,
}

/// What became of the working directory.
#[derive(Debug)]
enum Cwd {
    Entered,
    /// Root may not enter (a network file system, say); the user perhaps may.
    TryAsUser(OwnedFd),
}

/// Inside the container's root (which is `/` by now): finds user, working directory and program.
///
/// The caller has closed every descriptor that leads out of the container.
pub(crate) fn prepare(process: Process, labels: Labels) -> Step<Prepared> {
    let mut process = process;
    let root =
        rustix::fs::open("/", DIRECTORY, Mode::empty()).at(Stage::Setup, || "open /".into())?;
    let identity = resolve(root.as_fd(), &process.user)?;
    if !process.env.iter().any(|e| e.starts_with("HOME=")) {
        process.env.push(format!("HOME={}", identity.home));
    }
    let cwd = enter_cwd(&root, &process)?;
    let program = program::find(&process)?;
    Ok(Prepared {
        process,
        labels,
        identity,
        program,
        cwd,
    })
}

/// Changes to the working directory without ever following a magic link out of the container.
fn enter_cwd(root: &OwnedFd, process: &Process) -> Step<Cwd> {
    let path = match process.cwd.to_str() {
        Some("") | None => "/",
        Some(path) => path,
    };
    let what = || format!("chdir to cwd ({path:?}) set in config.json failed");
    let open = || rustix::fs::openat2(root, path, DIRECTORY, Mode::empty(), ResolveFlags::IN_ROOT);
    let dir = match open() {
        Err(Errno::NOENT) if process.create_cwd => {
            let mut builder = std::fs::DirBuilder::new();
            // Nothing has masked any permission so far.
            let made = builder.recursive(true).mode(0o755).create(path);
            made.at(Stage::Cwd, || format!("mkdir {path}"))?;
            open()
        }
        other => other,
    };
    let dir = dir.at(Stage::Cwd, what)?;
    match rustix::process::fchdir(&dir) {
        Ok(()) => Ok(Cwd::Entered),
        Err(Errno::ACCESS) => Ok(Cwd::TryAsUser(dir)),
        Err(errno) => Err(failure(Stage::Cwd, errno, what())),
    }
}

impl Prepared {
    /// The user it will run as; standard streams are given to it.
    pub(crate) fn uid(&self) -> u32 {
        self.identity.uid
    }

    /// Gives up privileges, installs the filter, runs the `startContainer` hooks and execs. Returns only with the reason
    /// why it could not.
    pub(crate) fn exec(self, hooks: &Hooks) -> Failure {
        match self.try_exec(hooks) {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    fn try_exec(self, hooks: &Hooks) -> Step<std::convert::Infallible> {
        let process = &self.process;
        let argv = strings(&process.argv)?;
        let env = strings(&process.env)?;
        let argv: Vec<&CStr> = argv.iter().map(CString::as_c_str).collect();
        let env: Vec<&CStr> = env.iter().map(CString::as_c_str).collect();
        for limit in &process.rlimits {
            set_rlimit(limit)?;
        }
        if let Some((class, level)) = process.io_priority {
            sys::io_priority(class, level).at(Stage::Setup, || "set io priority".into())?;
        }
        if process.new_keyring {
            match sys::new_keyring() {
                Ok(()) | Err(Errno::NOSYS | Errno::PERM | Errno::DQUOT) => {}
                Err(e) => return Err(failure(Stage::Setup, e, "join session keyring".into())),
            }
        }
        self.labels.apply(process)?;
        rustix::process::umask(Mode::from_raw_mode(process.umask.unwrap_or(0o022)));
        // The zygote reset all others long ago.
        for signo in [libc::SIGPIPE, libc::SIGCHLD] {
            sys::signal_default(signo, false);
        }
        sys::block_signals(false);
        privileges::give_up(process, &self.identity)?;
        if let Cwd::TryAsUser(dir) = &self.cwd {
            let what = || format!("chdir to cwd ({:?}) set in config.json failed", process.cwd);
            rustix::process::fchdir(dir).at(Stage::Cwd, what)?;
        }
        let (list, pid) = (&hooks.start_container, std::process::id().cast_signed());
        hooks::run(list, "startContainer", &hooks.state, "created", pid)
            .map_err(|e| plain(Stage::Setup, e.to_string()))?;
        let errno = sys::execve(&self.program, &argv, &env);
        let stage = match errno {
            Errno::NOENT => Stage::NotFound,
            _ => Stage::NotExecutable,
        };
        let program = self.program.to_string_lossy();
        Err(failure(stage, errno, format!("exec {program}")))
    }
}

/// Sets a limit; without `CAP_SYS_RESOURCE` no higher than the hard limit there is.
fn set_rlimit(limit: &Rlimit) -> Step<()> {
    let what = || format!("set rlimit {}", limit.resource);
    match sys::rlimit(limit.resource, Some((limit.soft, limit.hard))) {
        Err(Errno::PERM) => {
            let (_, hard) = sys::rlimit(limit.resource, None).at(Stage::Setup, what)?;
            let lowered = (limit.soft.min(hard), limit.hard.min(hard));
            sys::rlimit(limit.resource, Some(lowered)).at(Stage::Setup, what)?;
        }
        other => {
            other.at(Stage::Setup, what)?;
        }
    }
    Ok(())
}

/// Makes standard input, output and error of the three descriptors, and the user their owner.
pub(crate) fn set_stdio(fds: [BorrowedFd<'_>; 3]) -> Result<(), Errno> {
    for (fd, to) in fds.into_iter().zip(0..) {
        sys::dup_to(fd, to)?;
    }
    Ok(())
}

/// Lets the user open its streams again (`/dev/stdout`), as they belong to root otherwise.
pub(crate) fn own_stdio(uid: u32) {
    if uid == 0 {
        return;
    }
    for fd in [
        std::io::stdin().as_fd(),
        std::io::stdout().as_fd(),
        std::io::stderr().as_fd(),
    ] {
        let Ok(stat) = rustix::fs::fstat(fd) else {
            continue;
        };
        // /dev/null and files passed in keep their owner.
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        let terminal = kind == rustix::fs::FileType::CharacterDevice && rustix::termios::isatty(fd);
        if terminal || kind == rustix::fs::FileType::Fifo {
            let uid = Some(rustix::fs::Uid::from_raw(uid));
            let _ = rustix::fs::fchown(fd, uid, None);
        }
    }
}

fn strings(list: &[String]) -> Step<Vec<CString>> {
    list.iter()
        .map(|s| {
            CString::new(s.as_str()).map_err(|_| Failure {
                stage: Stage::Plan,
                errno: Errno::INVAL.raw_os_error(),
                message: format!("{s:?} contains a null byte: {}", words(Errno::INVAL)),
            })
        })
        .collect()
}
