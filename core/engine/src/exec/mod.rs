//! Processes executed in running containers.

mod known;
mod streams;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_model::{ContainerId, ExecId};
use gantry_runtime::{ConsoleSize, ExecProcess, ExecRequest, Process};
use gantry_wire as wire;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::container::Container;
use crate::container::record::Phase;
use crate::events::Attributes;
use crate::{Engine, EngineError, Result};
use streams::{console_size, drain, refused_variable, streams};

pub(crate) use known::{Exec, Execs, Stage};
pub(crate) use streams::refused;

/// Output of an exec.
pub type ExecReader = Pin<Box<dyn AsyncRead + Send>>;
/// Input of an exec; dropping it ends the input.
pub type ExecWriter = Pin<Box<dyn AsyncWrite + Send>>;

/// The streams of a started exec, those that were asked for at its creation.
pub struct ExecIo {
    /// Whether it has a terminal: then everything comes out of `stdout`.
    pub tty: bool,
    /// Standard input.
    pub stdin: Option<ExecWriter>,
    /// Standard output.
    pub stdout: Option<ExecReader>,
    /// Standard error.
    pub stderr: Option<ExecReader>,
}

/// How long a client that sizes a terminal waits for it.
const RESIZE: Duration = Duration::from_secs(10);

impl Engine {
    /// Makes an exec; it runs from [`Engine::exec_start`] on.
    ///
    /// # Errors
    /// A container that does not run, no command.
    pub async fn exec_create(
        &self,
        container: &str,
        request: wire::ExecCreateRequest,
    ) -> Result<String> {
        let name = container;
        let container = self.find(name)?;
        running(&container, name)?;
        if request.cmd.is_empty() {
            return Err(EngineError::bad_request("No exec command specified"));
        }
        let exec = Arc::new(Exec {
            id: ExecId::generate(),
            container: container.id.clone(),
            request,
            progress: Mutex::default(),
            stage: watch::Sender::new(Stage::Waiting),
        });
        exec.progress.lock().idle = Some(Instant::now());
        self.execs.add(exec.clone());
        self.tell_exec(&container, &exec, "exec_create");
        Ok(exec.id.to_string())
    }

    /// Runs an exec; `None` when it is detached. When it cannot be executed, [`Engine::exec_inspect`] has the exit code
    /// (126, 127) afterwards.
    ///
    /// # Errors
    /// Unknown or used execs, a container that does not run, a program that cannot be executed.
    pub async fn exec_start(
        &self,
        id: &str,
        request: wire::ExecStartRequest,
    ) -> Result<Option<ExecIo>> {
        let (exec, container, process) = self.startable(id)?;
        self.to_the_end(|engine| async move {
            {
                let mut progress = exec.progress.lock();
                if std::mem::replace(&mut progress.started, true) {
                    return Err(already_run(&exec));
                }
                progress.idle = None;
            }
            engine.run_exec(&container, &exec, &process, request).await
        })
        .await
    }

    /// An exec that can be started, its container, and the process that it joins.
    fn startable(&self, id: &str) -> Result<(Arc<Exec>, Arc<Container>, Arc<Process>)> {
        let exec = self.execs.get(id)?;
        let container = self.containers.get(&exec.container).ok_or_else(|| {
            EngineError::not_found(format!("No such container: {}", exec.container))
        })?;
        if exec.progress.lock().started {
            return Err(already_run(&exec));
        }
        let process = running(&container, exec.container.as_str())?;
        Ok((exec, container, process))
    }

    /// Whether an exec can be started: if it has a terminal, and the keys that detach from it as they were given.
    ///
    /// # Errors
    /// Unknown or used execs, a container that does not run.
    pub fn exec_ready(&self, id: &str) -> Result<(bool, String)> {
        let (exec, _, _) = self.startable(id)?;
        Ok((exec.request.tty, exec.request.detach_keys.clone()))
    }

    /// A client typed the keys that detach it.
    pub fn exec_detached(&self, id: &str) {
        let Ok(exec) = self.execs.get(id) else { return };
        if let Some(container) = self.containers.get(&exec.container) {
            let attributes = [("execID".to_owned(), exec.id.to_string())].into();
            self.tell_with(&container.record(), "exec_detach", attributes);
        }
    }

    async fn run_exec(
        &self,
        container: &Arc<Container>,
        exec: &Arc<Exec>,
        process: &Arc<Process>,
        start: wire::ExecStartRequest,
    ) -> Result<Option<ExecIo>> {
        self.tell_exec(container, exec, "exec_start");
        let asked = &exec.request;
        let attach = !start.detach;
        let request = ExecRequest {
            id: exec.id.clone(),
            argv: asked.cmd.0.clone(),
            env: environment(asked),
            cwd: Some(asked.working_dir.clone()).filter(|d| !d.is_empty()),
            user: Some(asked.user.clone()).filter(|u| !u.is_empty()),
            privileged: asked.privileged,
            tty: asked.tty,
            console_size: start
                .console_size
                .or(asked.console_size)
                .and_then(console_size),
            stdin: attach && asked.attach_stdin,
            stdout: attach && asked.attach_stdout,
            stderr: attach && asked.attach_stderr,
        };
        let started = match nameless(&request.env) {
            Some(variable) => Err(refused_variable(variable)),
            None => process.exec(request).await.map_err(refused),
        };
        let mut started = match started {
            Ok(started) => started,
            Err((error, exit_code)) => {
                let mut progress = exec.progress.lock();
                progress.exit_code = Some(exit_code);
                progress.idle = Some(Instant::now());
                exec.stage.send_replace(Stage::Ended);
                return Err(error);
            }
        };
        let io = match (started.take_stdio(), attach) {
            (Some(stdio), true) => Some(streams(stdio, exec)?),
            (stdio, _) => {
                drain(stdio);
                None
            }
        };
        let started = Arc::new(started);
        {
            let mut progress = exec.progress.lock();
            progress.pid = started.pid();
            progress.process = Some(started.clone());
        }
        exec.stage.send_replace(Stage::Runs);
        self.watch_exec(container.clone(), exec.clone(), started);
        Ok(io)
    }

    fn watch_exec(&self, container: Arc<Container>, exec: Arc<Exec>, process: Arc<ExecProcess>) {
        let engine = self.clone();
        tokio::spawn(async move {
            // 137: its container was killed, and it with it.
            let code = process.wait().await.map_or(137, |status| status.code);
            {
                let mut progress = exec.progress.lock();
                progress.process = None;
                progress.pid = 0;
                progress.exit_code = Some(code);
                progress.idle = Some(Instant::now());
            }
            exec.stage.send_replace(Stage::Ended);
            let attributes = Attributes::from([
                ("execID".to_owned(), exec.id.to_string()),
                ("exitCode".to_owned(), code.to_string()),
            ]);
            engine.tell_with(&container.record(), "exec_die", attributes);
        });
    }

    /// Sets the size of an exec's terminal. Clients ask for it while the exec is being started, so that is waited for.
    ///
    /// # Errors
    /// Unknown execs; one that does not run.
    pub async fn exec_resize(&self, id: &str, height: u16, width: u16) -> Result<()> {
        let exec = self.execs.get(id)?;
        let mut stage = exec.stage.subscribe();
        let begun = stage.wait_for(|stage| *stage != Stage::Waiting);
        if tokio::time::timeout(RESIZE, begun).await.is_err() {
            return Err(EngineError::internal(
                "timeout waiting for exec session ready",
            ));
        }
        let process = exec.progress.lock().process.clone();
        let process =
            process.ok_or_else(|| EngineError::bad_request(format!("exec {id} is not running")))?;
        if !exec.request.tty {
            return Ok(());
        }
        Ok(process.resize(ConsoleSize { height, width }).await?)
    }

    /// Everything about an exec. Its end is known here no later than its streams have ended.
    ///
    /// # Errors
    /// Unknown execs.
    pub async fn exec_inspect(&self, id: &str) -> Result<wire::ExecInspect> {
        let exec = self.execs.get(id)?;
        let progress = exec.progress.lock();
        let asked = &exec.request;
        let (entrypoint, arguments) = match asked.cmd.split_first() {
            Some((first, rest)) => (first.clone(), rest.to_vec()),
            None => Default::default(),
        };
        Ok(wire::ExecInspect {
            id: exec.id.to_string(),
            running: progress.process.is_some(),
            exit_code: progress.exit_code.map(i64::from),
            process_config: wire::ProcessConfig {
                tty: asked.tty,
                entrypoint,
                arguments,
                privileged: Some(asked.privileged),
                user: match asked.user.as_str() {
                    "" => self.container_user(&exec.container),
                    user => user.to_owned(),
                },
            },
            open_stdin: asked.attach_stdin,
            open_stderr: asked.attach_stderr,
            open_stdout: asked.attach_stdout,
            can_remove: false,
            container_id: exec.container.to_string(),
            detach_keys: asked.detach_keys.clone(),
            pid: progress.pid.into(),
        })
    }

    fn container_user(&self, id: &ContainerId) -> String {
        let container = self.containers.get(id);
        container.map_or_else(String::new, |c| c.record().config.user.clone())
    }

    fn tell_exec(&self, container: &Container, exec: &Exec, action: &str) {
        let action = told(action, &exec.request.cmd);
        let attributes = [("execID".to_owned(), exec.id.to_string())].into();
        self.tell_with(&container.record(), &action, attributes);
    }
}

/// What is told of an exec's step. dockerd writes the blank even where no arguments follow.
pub(crate) fn told(step: &str, command: &[String]) -> String {
    let (program, arguments) = command
        .split_first()
        .map_or(("", String::new()), |(program, rest)| {
            (program.as_str(), rest.join(" "))
        });
    format!("{step}: {program} {arguments}")
}

/// The variables that are asked for; an empty one is none.
fn environment(asked: &wire::ExecCreateRequest) -> Vec<String> {
    let variables = asked.env.iter().flatten();
    variables.filter(|v| !v.is_empty()).cloned().collect()
}

/// A variable that has a value alone.
fn nameless(env: &[String]) -> Option<&String> {
    env.iter().find(|variable| variable.starts_with('='))
}

fn already_run(exec: &Exec) -> EngineError {
    EngineError::conflict(format!("Error: Exec command {} has already run", exec.id))
}

/// The process of a container in which something can be executed; errors name it as the client did.
fn running(container: &Container, name: &str) -> Result<Arc<Process>> {
    let refuse = |why: &str| EngineError::conflict(format!("container {name} {why}"));
    match container.record().state.phase {
        Phase::Running => container.process().ok_or_else(|| refuse("is not running")),
        Phase::Paused => Err(refuse("is paused, unpause the container before exec")),
        Phase::Restarting => Err(refuse("is restarting, wait until the container is running")),
        _ => Err(EngineError::conflict(format!(
            "container {} is not running",
            container.id
        ))),
    }
}
