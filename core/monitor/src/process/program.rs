//! Finds the program in the container, with the words of Go's `exec.LookPath`, which Docker's users see.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use gantry_monitor::plan::Process;
use gantry_monitor::protocol::{Failure, Stage};
use rustix::fs::{Access, AtFlags, FileType};
use rustix::io::Errno;

use crate::fault::{Step, plain, words};

/// The path to exec: `argv[0]` when it has a slash, otherwise the first executable of that name in `PATH`.
pub(crate) fn find(process: &Process) -> Step<CString> {
    let Some(name) = process.argv.first() else {
        return Err(plain(Stage::Plan, "no command specified"));
    };
    let refused = |stage, errno: Errno, why: String| Failure {
        stage,
        errno: errno.raw_os_error(),
        message: format!("exec: {name:?}: {why}"),
    };
    let path = if name.contains('/') {
        let path = PathBuf::from(name);
        match executable(&path) {
            Ok(()) => path,
            Err(No::Stat(e)) => {
                let stage = match e {
                    Errno::NOENT | Errno::NOTDIR => Stage::NotFound,
                    _ => Stage::NotExecutable,
                };
                return Err(refused(stage, e, format!("stat {name}: {}", words(e))));
            }
            Err(No::Directory) => {
                return Err(refused(
                    Stage::NotExecutable,
                    Errno::ISDIR,
                    words(Errno::ISDIR),
                ));
            }
            Err(No::Access(e)) => return Err(refused(Stage::NotExecutable, e, words(e))),
        }
    } else {
        let list = process
            .env
            .iter()
            .rev()
            .find_map(|e| e.strip_prefix("PATH="));
        list.unwrap_or_default()
            .split(':')
            .filter(|_| !name.is_empty())
            .map(|dir| Path::new(if dir.is_empty() { "." } else { dir }).join(name))
            .find(|path| executable(path).is_ok())
            .ok_or_else(|| {
                let why = "executable file not found in $PATH".into();
                refused(Stage::NotFound, Errno::NOENT, why)
            })?
    };
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| plain(Stage::Plan, "the command contains a null byte"))
}

/// Why a path cannot be executed.
enum No {
    Stat(Errno),
    Directory,
    Access(Errno),
}

fn executable(path: &Path) -> Result<(), No> {
    let stat = rustix::fs::stat(path).map_err(No::Stat)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(No::Directory);
    }
    if stat.st_mode & 0o111 == 0 {
        return Err(No::Access(Errno::ACCESS));
    }
    let cwd = rustix::fs::CWD;
    rustix::fs::accessat(cwd, path, Access::EXEC_OK, AtFlags::EACCESS).map_err(No::Access)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(argv0: &str) -> Result<String, (Stage, String)> {
        let process = Process {
            argv: vec![argv0.into()],
            env: vec!["PATH=/nonexistent:/bin:/usr/bin".into()],
            ..Process::default()
        };
        find(&process)
            .map(|p| p.to_string_lossy().into_owned())
            .map_err(|f| (f.stage, f.message))
    }

    #[test]
    fn words_are_those_of_docker() {
        assert_eq!(run("sh").unwrap(), "/bin/sh");
        assert_eq!(run("/bin/sh").unwrap(), "/bin/sh");
        assert_eq!(
            run("no-such").unwrap_err(),
            (
                Stage::NotFound,
                r#"exec: "no-such": executable file not found in $PATH"#.into()
            )
        );
        assert_eq!(
            run("/no/such").unwrap_err(),
            (
                Stage::NotFound,
                r#"exec: "/no/such": stat /no/such: no such file or directory"#.into()
            )
        );
        assert_eq!(
            run("/etc/passwd").unwrap_err(),
            (
                Stage::NotExecutable,
                r#"exec: "/etc/passwd": permission denied"#.into()
            )
        );
        assert_eq!(
            run("/etc/").unwrap_err(),
            (
                Stage::NotExecutable,
                r#"exec: "/etc/": is a directory"#.into()
            )
        );
        assert!(run("").is_err());
    }
}
