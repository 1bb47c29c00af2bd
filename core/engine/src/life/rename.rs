//! Another name, another terminal size.

use gantry_runtime::ConsoleSize;

use crate::container::record::Phase;
use crate::{Engine, EngineError, Result, names};

impl Engine {
    /// Gives a container another name.
    ///
    /// # Errors
    /// Bad names, names that are taken, the name it has.
    pub async fn container_rename(&self, id: &str, name: &str) -> Result<()> {
        let container = self.find(id)?;
        if name.is_empty() {
            return Err(EngineError::bad_request(
                "Neither old nor new names may be empty",
            ));
        }
        // dockerd's words name it with its slash.
        let slashed = match name.starts_with('/') {
            true => name.to_owned(),
            false => format!("/{name}"),
        };
        let allocating = "Error when allocating new name";
        let name = names::check(&slashed).map_err(|error| error.context(allocating))?;
        let name = name.to_owned();
        self.to_the_end(|engine| async move {
            let _turn = container.queue.lock().await;
            let old = container.record();
            if old.state.phase == Phase::Removing {
                return Err(EngineError::conflict(
                    "container is marked for removal and cannot be renamed",
                ));
            }
            if old.name == name {
                return Err(EngineError::bad_request(
                    "Renaming a container with the same name as its current name",
                ));
            }
            let reserved = engine
                .containers
                .reserve(&name, &container.id)
                .map_err(|error| error.context(allocating))?;
            let mut new = crate::container::record::Record::clone(&old);
            new.name.clone_from(&name);
            engine.records.save(&new).await?;
            container.update(|record| record.name.clone_from(&name));
            reserved.keep();
            engine.containers.free(&old.name);
            engine.follow_links(&old.name, &name);
            if old.state.phase.has_process()
                && let Err(error) = engine.services.networks.rename(&container.id, &name).await
            {
                tracing::warn!(container = %container.id, %error, "the name service keeps the old name");
            }
            let attributes = [("oldName".to_owned(), format!("/{}", old.name))].into();
            engine.tell_with(&container.record(), "rename", attributes);
            Ok(())
        })
        .await
    }

    /// Links are to a container, not to its name: they take the new one over.
    fn follow_links(&self, old: &str, new: &str) {
        let stale = |links: &Option<Vec<String>>| {
            let mut names = links.iter().flatten().map(|link| linked(link));
            names.any(|name| name == old)
        };
        for other in self.containers.all() {
            let record = other.record();
            let wishes = || record.networks.values().map(|wish| &wish.links);
            if !stale(&record.host_config.links) && !wishes().any(stale) {
                continue;
            }
            let record = other.update(|record| {
                let networks = record.networks.values_mut().map(|wish| &mut wish.links);
                for link in [&mut record.host_config.links]
                    .into_iter()
                    .chain(networks)
                    .flatten()
                    .flatten()
                {
                    *link = relinked(link, old, new);
                }
            });
            if let Err(error) = self.records.keep(&record) {
                tracing::warn!(container = %record.id, %error, "cannot write a container's links");
            }
        }
    }

    /// Sets the size of a container's terminal.
    ///
    /// # Errors
    /// A container that does not run. Without a terminal nothing is done, and told all the same, as by dockerd.
    pub async fn container_resize(&self, id: &str, height: u16, width: u16) -> Result<()> {
        let container = self.find(id)?;
        let process = container.process().ok_or_else(|| {
            EngineError::conflict(format!("container {} is not running", container.id))
        })?;
        if container.record().config.tty {
            process.resize(ConsoleSize { height, width }).await?;
        }
        let attributes = [
            ("height".to_owned(), height.to_string()),
            ("width".to_owned(), width.to_string()),
        ];
        self.tell_with(&container.record(), "resize", attributes.into());
        Ok(())
    }
}

/// The container in `name[:alias]`.
fn linked(link: &str) -> &str {
    let name = link.split(':').next().unwrap_or(link);
    name.trim_start_matches('/')
}

/// A link after a rename. Its alias stays what it was, also when that was the name.
fn relinked(link: &str, old: &str, new: &str) -> String {
    let alias = link.split_once(':').map_or(link, |(_, alias)| alias);
    match linked(link) == old {
        true => format!("{new}:{}", alias.trim_start_matches('/')),
        false => link.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_follow() {
        assert_eq!(relinked("db:store", "db", "pg"), "pg:store");
        assert_eq!(relinked("/db", "db", "pg"), "pg:db");
        assert_eq!(relinked("dbx:store", "db", "pg"), "dbx:store");
    }
}
