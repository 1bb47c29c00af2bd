//! The hooks of the OCI runtime specification: programs that are told a container's state.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags};

use crate::plan::Hook;

/// How much of a failed hook's output goes into its error.
const MAX_OUTPUT: u64 = 2048;

/// A hook that could not be run, or did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("error running {kind} hook #{number}: {why}")]
pub struct HookError {
    kind: &'static str,
    number: usize,
    why: String,
}

/// Runs hooks one after the other, until one fails.
///
/// `state` is the container's state as a JSON object, to which `status` and `pid` (unless it is 0) are added. Where the
/// process is and who it is, the hooks are too.
///
/// # Errors
/// The first hook that cannot be executed, exits with another code than 0, or takes too long.
pub fn run(
    hooks: &[Hook],
    kind: &'static str,
    state: &str,
    status: &str,
    pid: i32,
) -> Result<(), HookError> {
    run_each(hooks, kind, state, status, pid)
        .next()
        .map_or(Ok(()), Err)
}

/// As [`run`], but one that fails keeps none of the others back: each failure is an item.
pub fn run_each(
    hooks: &[Hook],
    kind: &'static str,
    state: &str,
    status: &str,
    pid: i32,
) -> impl Iterator<Item = HookError> {
    let state = complete(state, status, pid);
    hooks.iter().enumerate().filter_map(move |(number, hook)| {
        one(hook, &state)
            .err()
            .map(|why| HookError { kind, number, why })
    })
}

/// The state with what changes during a container's life.
fn complete(state: &str, status: &str, pid: i32) -> String {
    let mut object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(state).unwrap_or_default();
    object.insert("status".into(), status.into());
    if pid != 0 {
        object.insert("pid".into(), pid.into());
    }
    serde_json::Value::Object(object).to_string()
}

fn one(hook: &Hook, state: &str) -> Result<(), String> {
    let words = |e: io::Error| crate::fault::words_of(&e);
    let mut output = memory("hook-output").map_err(words)?;
    let mut child = spawn(hook, state, &output)
        .map_err(|e| format!("fork/exec {}: {}", hook.path.display(), words(e)))?;
    let status = match wait(&mut child, hook.timeout).map_err(words)? {
        Some(status) => status,
        None => {
            return Err(format!(
                "hook ran past specified timeout of {}s",
                hook.timeout.unwrap_or(0)
            ));
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    let _ = output.seek(SeekFrom::Start(0));
    let _ = output.take(MAX_OUTPUT).read_to_end(&mut said);
    let said = String::from_utf8_lossy(&said);
    Err(format!("{status}, output: {}", said.trim()))
}

/// A file in memory: neither side of it ever waits for the other.
fn memory(name: &str) -> io::Result<File> {
    Ok(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?.into())
}

fn spawn(hook: &Hook, state: &str, output: &File) -> io::Result<Child> {
    let mut input = memory("hook-state")?;
    input.write_all(state.as_bytes())?;
    input.seek(SeekFrom::Start(0))?;
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command
        .env_clear()
        .envs(hook.env.iter().filter_map(|e| e.split_once('=')))
        .stdin(input)
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .spawn()
}

/// Waits for its end; `None` when it took too long and was killed.
fn wait(child: &mut Child, timeout: Option<u32>) -> io::Result<Option<ExitStatus>> {
    if let Some(seconds) = timeout {
        let pidfd = pidfd(child)?;
        let limit = Timespec::try_from(Duration::from_secs(seconds.into()))
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        if rustix::event::poll(&mut fds, Some(&limit))? == 0 {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
    }
    child.wait().map(Some)
}

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    let pid = Pid::from_child(child);
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Option<u32>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: ["hook-name", "-c", script, "zero", "one"]
                .map(str::to_owned)
                .to_vec(),
            env: vec!["A=b c".into()],
            timeout,
        }
    }

    #[test]
    fn hooks_are_told_the_state_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let script = format!(
            "cat > {0}; echo \"$1 $A ${{HOME-none}}\" >> {0}",
            out.display()
        );
        let hooks = [sh(&script, Some(20))];
        run(
            &hooks,
            "prestart",
            r#"{"id":"x","annotations":{"a":"b"}}"#,
            "creating",
            7,
        )
        .unwrap();
        let text = std::fs::read_to_string(&out).unwrap();
        assert_eq!(
            text,
            "{\"id\":\"x\",\"annotations\":{\"a\":\"b\"},\"status\":\"creating\",\"pid\":7}one b c none\n"
        );
        run(&hooks, "poststop", "{}", "stopped", 0).unwrap();
        assert!(
            std::fs::read_to_string(&out)
                .unwrap()
                .starts_with(r#"{"status":"stopped"}"#)
        );
    }

    #[test]
    fn the_first_failure_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let touch = sh(&format!("touch {}", out.display()), None);
        let hooks = [sh("echo because >&2; exit 3", None), touch];
        let e = run(&hooks, "createRuntime", "{}", "creating", 1)
            .unwrap_err()
            .to_string();
        assert_eq!(
            e,
            "error running createRuntime hook #0: exit status: 3, output: because"
        );
        assert!(!out.exists());
        let e = run(&[sh("sleep 60", Some(0))], "poststop", "{}", "stopped", 0).unwrap_err();
        assert!(e.to_string().contains("past specified timeout"), "{e}");
        let gone = Hook {
            path: "/no/such".into(),
            ..Hook::default()
        };
        let e = run(&[gone], "poststop", "{}", "stopped", 0)
            .unwrap_err()
            .to_string();
        assert_eq!(
            e,
            "error running poststop hook #0: fork/exec /no/such: no such file or directory"
        );
    }
}
