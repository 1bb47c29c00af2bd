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
        let name = names::check(name)?.to_owned();
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
            let reserved = engine.containers.reserve(&name, &container.id)?;
            let mut new = crate::container::record::Record::clone(&old);
            new.name.clone_from(&name);
            engine.records.save(&new).await?;
            container.update(|record| record.name.clone_from(&name));
            reserved.keep();
            engine.containers.free(&old.name);
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
