//! Images made of one archive.

use gantry_image::{ImportOptions, Message, Progress};
use tokio_util::io::SyncIoBridge;

use super::archive_url;
use super::images::{parse_platform, reference};
use super::transfer::reported;
use crate::{ByteReader, Engine, MessageStream, Result};

/// Where an archive comes from.
pub enum ImportSource {
    /// From the client.
    Body(ByteReader),
    /// From a server: a URL, or one without its `http://`.
    Url(String),
}

impl Engine {
    /// Makes an image of a tar archive.
    ///
    /// # Errors
    /// Bad names and changes, archives that cannot be fetched.
    pub async fn image_import(
        &self,
        source: ImportSource,
        repo: Option<&str>,
        tag: Option<&str>,
        message: &str,
        changes: Vec<String>,
        platform: Option<&str>,
    ) -> Result<MessageStream> {
        let mut options = ImportOptions {
            name: repo
                .filter(|repo| !repo.is_empty())
                .map(|repo| reference(repo, tag))
                .transpose()?,
            changes,
            message: message.to_owned(),
            platform: parse_platform(platform)?,
            remote: None,
        };
        let (body, url) = match source {
            ImportSource::Body(body) => (body, None),
            ImportSource::Url(url) => {
                let remote = archive_url::open(&url).await?;
                options.remote = Some(remote.length.unwrap_or(0));
                (remote.body, Some(remote.url))
            }
        };
        let images = self.services.images.clone();
        let mut body = SyncIoBridge::new(body);
        reported(move |reporter| {
            if let Some(url) = url {
                reporter.report(Message::status(format!("Downloading from {url}")));
            }
            images.import(&mut body, &options, reporter).map(drop)
        })
        .await
    }
}
