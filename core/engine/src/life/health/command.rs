//! A check by a command in the container, as dockerd makes it.

use std::sync::Arc;
use std::time::Duration;

use gantry_model::ExecId;
use gantry_runtime::{ExecProcess, ExecRequest, ExecStdio, Process, RuntimeError};

use super::output::{Output, too_long};
use super::{NO_ANSWER, kind};
use crate::container::Container;
use crate::container::record::Record;
use crate::stream::FdStream;
use crate::{Engine, exec};

const SIGKILL: i32 = 9;
/// How long a killed check may take to end before the next one is made.
const LEAVE: Duration = Duration::from_secs(10);
/// How long output may be held open by others after the command has ended.
const GRACE: Duration = Duration::from_secs(1);

/// The command of a check.
fn argv(record: &Record) -> Vec<String> {
    let (kind, arguments) = kind(record);
    let mut argv = Vec::new();
    if kind == "CMD-SHELL" {
        let shell = record
            .config
            .shell
            .as_ref()
            .filter(|shell| !shell.is_empty());
        argv = match shell {
            Some(shell) => shell.0.clone(),
            None => vec!["/bin/sh".into(), "-c".into()],
        };
    }
    argv.extend_from_slice(arguments);
    argv
}

impl Engine {
    /// Exit code and output of a check. Like dockerd's, it is an exec to those who watch events.
    pub(super) async fn probe_by_command(
        &self,
        container: &Container,
        process: &Arc<Process>,
        timeout: Duration,
    ) -> (i32, String) {
        let record = container.record();
        let request = ExecRequest {
            id: ExecId::generate(),
            argv: argv(&record),
            env: Vec::new(),
            cwd: None,
            user: None,
            privileged: false,
            tty: false,
            console_size: None,
            stdin: false,
            stdout: true,
            stderr: true,
        };
        let id = request.id.to_string();
        for step in ["exec_create", "exec_start"] {
            let attributes = [("execID".to_owned(), id.clone())].into();
            self.tell_with(&record, &exec::told(step, &request.argv), attributes);
        }
        let mut exec = match process.exec(request).await {
            Ok(exec) => exec,
            Err(error) => return (NO_ANSWER, exec::refused(error).0.message),
        };
        let stdio = exec.take_stdio();
        let running = Running {
            engine: self.clone(),
            record,
            id,
            exec: Some(Arc::new(exec)),
        };
        let output = Output::default();
        match tokio::time::timeout(timeout, running.finish(stdio, &output)).await {
            Ok(Ok(code)) => (code, output.text()),
            Ok(Err(error)) => (NO_ANSWER, error.to_string()),
            Err(_) => (NO_ANSWER, too_long(timeout, &output.text())),
        }
    }
}

/// A check that runs. When it is dropped before it has ended it is killed, not left behind.
struct Running {
    engine: Engine,
    record: Arc<Record>,
    id: String,
    exec: Option<Arc<ExecProcess>>,
}

impl Running {
    async fn finish(
        mut self,
        stdio: Option<ExecStdio>,
        output: &Output,
    ) -> Result<i32, RuntimeError> {
        let Some(exec) = self.exec.clone() else {
            return Err(RuntimeError::NotRunning);
        };
        let (stdout, stderr) = match stdio {
            Some(ExecStdio::Pipes { stdout, stderr, .. }) => (stdout, stderr),
            _ => (None, None),
        };
        let read = async |pipe: Option<std::os::fd::OwnedFd>| {
            if let Some(Ok(pipe)) = pipe.map(FdStream::new) {
                output.read(pipe).await;
            }
        };
        let reading = async { tokio::join!(read(stdout), read(stderr)) };
        tokio::pin!(reading);
        let (status, done) = tokio::select! {
            _ = &mut reading => (exec.wait().await?, true),
            status = exec.wait() => (status?, false),
        };
        if !done {
            let _ = tokio::time::timeout(GRACE, reading).await;
        }
        self.exec = None;
        tell_end(&self.engine, &self.record, &self.id, status.code);
        Ok(status.code)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(exec) = self.exec.take() else {
            return;
        };
        let (engine, record, id) = (
            self.engine.clone(),
            self.record.clone(),
            std::mem::take(&mut self.id),
        );
        tokio::spawn(async move {
            // It may have ended by itself.
            let _ = exec.signal(SIGKILL).await;
            let ended = tokio::time::timeout(LEAVE, exec.wait()).await;
            let code = ended
                .ok()
                .and_then(|ended| ended.ok())
                .map_or(128 + SIGKILL, |status| status.code);
            tell_end(&engine, &record, &id, code);
        });
    }
}

fn tell_end(engine: &Engine, record: &Record, id: &str, code: i32) {
    let attributes = [
        ("execID".to_owned(), id.to_owned()),
        ("exitCode".to_owned(), code.to_string()),
    ];
    engine.tell_with(record, "exec_die", attributes.into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::test_record;
    use gantry_model::container::{HealthConfig, StrSlice};

    #[test]
    fn commands() {
        let mut record = test_record("web");
        let mut command = |test: &[&str], shell: Option<&[&str]>| {
            record.config.healthcheck = Some(HealthConfig {
                test: test.iter().map(|word| (*word).to_owned()).collect(),
                ..HealthConfig::default()
            });
            record.config.shell = shell.map(|s| s.iter().copied().collect::<StrSlice>());
            argv(&record)
        };
        assert_eq!(command(&["CMD", "a", "b"], None), ["a", "b"]);
        assert_eq!(
            command(&["CMD-SHELL", "a b"], None),
            ["/bin/sh", "-c", "a b"]
        );
        let own = command(&["CMD-SHELL", "a b"], Some(&["/bin/ash", "-ec"]));
        assert_eq!(own, ["/bin/ash", "-ec", "a b"]);
    }
}
