//! `Requires`: what must run before a container starts.
//!
//! Requirements are names, looked up at each start, so that a container that was made anew under its name is found.
//! Waiting for them holds no container's turn: the one that waits can be stopped and removed meanwhile.

use std::pin::Pin;
use std::sync::Arc;

use gantry_model::ContainerId;

use crate::container::Container;
use crate::container::record::{HealthStatus, Phase, Record};
use crate::{Engine, EngineError, ErrorKind, Result};

/// Until when a start waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// It runs.
    Started,
    /// It runs and its health check has succeeded.
    Healthy,
}

/// One requirement, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Requirement<'a> {
    name: &'a str,
    condition: Condition,
}

impl<'a> Requirement<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let (name, condition) = match text.split_once(':') {
            None | Some((_, "started")) => (text.trim_end_matches(":started"), Condition::Started),
            Some((name, "healthy")) => (name, Condition::Healthy),
            Some((_, other)) => {
                return Err(EngineError::bad_request(format!(
                    "invalid requirement {text:?}: unknown condition {other:?}; use 'started' or 'healthy'"
                )));
            }
        };
        match name.trim_start_matches('/') {
            "" => Err(EngineError::bad_request(format!(
                "invalid requirement {text:?}: no container is named"
            ))),
            name => Ok(Self { name, condition }),
        }
    }
}

/// The requirements of a container.
fn all(record: &Record) -> impl Iterator<Item = Result<Requirement<'_>>> {
    let written = record.host_config.requires.iter().flatten();
    written.map(|text| Requirement::parse(text))
}

impl Engine {
    /// Checks what a new container requires.
    ///
    /// # Errors
    /// Containers that there are not or that require each other, and health that nobody checks.
    pub(crate) fn check_requirements(&self, record: &Record) -> Result<()> {
        for requirement in all(record) {
            let requirement = requirement?;
            let refuse = |why: String| {
                EngineError::bad_request(format!(
                    "invalid requirement {:?}: {why}",
                    requirement.name
                ))
            };
            let other = self
                .find(requirement.name)
                .map_err(|error| refuse(error.message))?;
            if requirement.condition == Condition::Healthy
                && other.record().health_check().is_none()
            {
                return Err(refuse("the container has no health check".into()));
            }
        }
        self.no_cycle(record)
    }

    /// Refuses a container that requires itself, on whatever way.
    fn no_cycle(&self, record: &Record) -> Result<()> {
        // Each entry is a way from `record`, in names.
        let mut ways: Vec<Vec<String>> = vec![vec![record.name.clone()]];
        let mut seen: Vec<ContainerId> = Vec::new();
        while let Some(way) = ways.pop() {
            let next = match way.as_slice() {
                [_] => record.clone(),
                [.., last] => match self.find(last) {
                    Ok(other) if !seen.contains(&other.id) => {
                        seen.push(other.id.clone());
                        Record::clone(&other.record())
                    }
                    _ => continue,
                },
                [] => continue,
            };
            for requirement in all(&next).flatten() {
                let name = match self.find(requirement.name) {
                    Ok(other) => other.record().name.clone(),
                    Err(_) => requirement.name.to_owned(),
                };
                let way: Vec<String> = way.iter().cloned().chain([name.clone()]).collect();
                if name == record.name {
                    return Err(EngineError::bad_request(format!(
                        "containers require each other: {}",
                        way.join(" -> ")
                    )));
                }
                ways.push(way);
            }
        }
        Ok(())
    }

    /// Starts what a container requires and waits until it is as required. Nobody's turn is held.
    ///
    /// # Errors
    /// Requirements that are not there, cannot start, end or become unhealthy.
    pub(super) async fn require(&self, container: &Arc<Container>) -> Result<()> {
        let record = container.record();
        if record.host_config.requires.is_none() {
            return Ok(());
        }
        self.no_cycle(&record)?;
        for requirement in all(&record) {
            let requirement = requirement?;
            let unmet = |why: &str| {
                EngineError::conflict(format!(
                    "cannot start container {}: requirement {:?}: {why}",
                    record.name, requirement.name
                ))
            };
            let other = self
                .find(requirement.name)
                .map_err(|error| unmet(&error.message))?;
            self.meet(&other, requirement.condition)
                .await
                .map_err(|error| unmet(&error.message))?;
        }
        Ok(())
    }

    /// A start of its own, with its own requirements; the recursion ends because there is no cycle.
    fn start_required<'a>(
        &'a self,
        id: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>> {
        Box::pin(self.container_start(id))
    }

    async fn meet(&self, other: &Arc<Container>, condition: Condition) -> Result<()> {
        if let Phase::Created | Phase::Exited = other.record().state.phase {
            match self.start_required(other.id.as_str()).await {
                Err(error) if error.kind == ErrorKind::NotModified => {}
                started => started?,
            }
        }
        let mut watch = other.watch();
        loop {
            watch.borrow_and_update();
            if let Some(verdict) = verdict(&other.record(), condition) {
                return verdict.map_err(EngineError::conflict);
            }
            if other.progress().removed || watch.changed().await.is_err() {
                return Err(EngineError::conflict("the container was removed"));
            }
        }
    }
}

/// Whether a container is as required, or never will be; `None` while that is open.
fn verdict(other: &Record, condition: Condition) -> Option<Result<(), String>> {
    let state = &other.state;
    match state.phase {
        Phase::Restarting | Phase::Starting => return None,
        Phase::Created => return Some(Err("the container does not run".into())),
        Phase::Exited => {
            return Some(Err(format!(
                "the container has exited with code {}",
                state.exit_code
            )));
        }
        Phase::Removing => return Some(Err("the container is being removed".into())),
        Phase::Paused if condition == Condition::Healthy => return None,
        Phase::Running | Phase::Paused => {}
    }
    match (condition, &state.health) {
        (Condition::Started, _) => Some(Ok(())),
        (Condition::Healthy, None) => Some(Err("the container has no health check".into())),
        (Condition::Healthy, Some(health)) => match health.status {
            HealthStatus::Healthy => Some(Ok(())),
            HealthStatus::Starting => None,
            HealthStatus::Unhealthy => Some(Err("the container is unhealthy".into())),
        },
    }
}

/// Names that a record requires.
pub(super) fn names(record: &Record) -> Vec<&str> {
    all(record).flatten().map(|one| one.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::Health;

    #[test]
    fn forms() {
        let parse = |text| Requirement::parse(text).map_err(|error| error.message);
        let of = |name, condition| Ok(Requirement { name, condition });
        assert_eq!(parse("db"), of("db", Condition::Started));
        assert_eq!(parse("/db:started"), of("db", Condition::Started));
        assert_eq!(parse("cache:healthy"), of("cache", Condition::Healthy));
        for bad in ["", ":healthy", "db:ready", "/"] {
            assert!(parse(bad).unwrap_err().starts_with("invalid requirement"));
        }
    }

    #[test]
    fn when_a_requirement_is_met() {
        let mut record = crate::container::record::test_record("db");
        let mut look = |phase, health: Option<HealthStatus>, condition| {
            record.state.phase = phase;
            record.state.health = health.map(|status| Health {
                status,
                ..Health::default()
            });
            verdict(&record, condition).map(|verdict| verdict.is_ok())
        };
        use Condition::{Healthy, Started};
        assert_eq!(look(Phase::Running, None, Started), Some(true));
        assert_eq!(look(Phase::Restarting, None, Started), None);
        assert_eq!(look(Phase::Exited, None, Started), Some(false));
        assert_eq!(look(Phase::Running, None, Healthy), Some(false));
        let running = |health| look(Phase::Running, Some(health), Healthy);
        let verdicts = [
            HealthStatus::Starting,
            HealthStatus::Healthy,
            HealthStatus::Unhealthy,
        ]
        .map(running);
        assert_eq!(verdicts, [None, Some(true), Some(false)]);
    }
}
