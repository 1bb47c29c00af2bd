//! Images whose layers are in the content store already.

use crate::chunks::ChunkSender;
use crate::install::{BlobSource, LayerPlan, Phase};
use crate::{Error, Message, Progress, Result};

/// Layers that are in the content store.
pub(crate) struct Local<'a> {
    pub(crate) progress: &'a dyn Progress,
    pub(crate) quiet: bool,
}

impl BlobSource for Local<'_> {
    fn fetch(&self, layer: &LayerPlan, _: Option<&ChunkSender>) -> Result<bool> {
        Err(Error::Malformed(format!(
            "invalid archive: layer {} is missing",
            layer.blob.digest
        )))
    }

    fn report(&self, layer: &LayerPlan, phase: Phase) {
        if let Phase::Unpacking { done, of } = phase
            && !self.quiet
        {
            let id = layer.diff_id.short();
            self.progress
                .report(Message::moving(id, "Loading layer", done, of));
        }
    }

    fn cancelled(&self) -> bool {
        self.progress.cancelled()
    }

    fn abort(&self) {}
}
