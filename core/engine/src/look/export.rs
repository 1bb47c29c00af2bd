//! A container's root file system as one archive. What is mounted in it is not part of it, as with Docker.

use std::io;
use std::path::Path;

use gantry_image::{PackOptions, Packer};
use gantry_sys::inroot;
use rustix::fs::{Mode, OFlags};
use tokio::sync::oneshot;

use super::stream::{ByteStream, Pipe, pipe};
use super::{Extent, Tree};
use crate::{Engine, EngineError, Result};

impl Engine {
    /// Writes out a container's root file system.
    ///
    /// # Errors
    /// A container that cannot be looked into.
    pub async fn container_export(&self, id: &str) -> Result<ByteStream> {
        let container = self.find(id)?;
        let (began, answer) = oneshot::channel();
        let (mut pipe, content) = pipe();
        let work = move |tree: Tree<'_>| {
            // Whoever asked may have gone: the first piece finds out.
            let _ = began.send(());
            let packed = pack(&tree, &mut pipe);
            pipe.end(packed);
        };
        let (engine, looked) = (self.clone(), container.clone());
        let looking =
            tokio::spawn(async move { engine.look_into(&looked, Extent::Root, work).await });
        if answer.await.is_err() {
            return Err(match looking.await {
                Ok(Err(error)) => error,
                _ => EngineError::internal("the container was not looked at"),
            });
        }
        self.tell(&container.record(), "export");
        Ok(content)
    }
}

fn pack(tree: &Tree<'_>, pipe: &mut Pipe) -> io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let directory = inroot::open(tree.root, Path::new("."), flags, Mode::empty())?;
    let options = PackOptions {
        owners: tree.owners.as_ref(),
        ..PackOptions::default()
    };
    let mut packer = Packer::new(pipe, options);
    packer.tree(directory, b"")?;
    packer.finish()
}
