//! Images: pull, push, load, save. The image service blocks; progress and bytes cross to it through channels.

use gantry_image::{LoadOptions, Message, Progress, PullOptions, PushOptions};
use gantry_wire as wire;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::io::SyncIoBridge;

use super::credentials::{credentials, credentials_for, registry_domain};
use super::images::{parse_platform, parse_platforms, parse_reference, reference};
use crate::{ByteReader, Engine, EngineError, MessageStream, Result};

/// Bytes of an archive on their way to a client.
const PIPE: usize = 256 << 10;

/// Hands progress over to the stream that a client reads.
pub(super) struct Reporter(UnboundedSender<wire::JsonMessage>);

impl Progress for Reporter {
    fn report(&self, message: Message) {
        // A client that went away is noticed by `cancelled`.
        let _ = self.0.send(line(message));
    }
    fn cancelled(&self) -> bool {
        self.0.is_closed()
    }
}

fn line(message: Message) -> wire::JsonMessage {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    wire::JsonMessage {
        stream: message.stream,
        status: message.status,
        id: message.id,
        progress_detail: message.detail.map(|detail| wire::ProgressDetail {
            current: number(detail.current),
            total: number(detail.total),
            ..wire::ProgressDetail::default()
        }),
        aux: message.aux,
        ..wire::JsonMessage::default()
    }
}

/// Runs blocking work that reports; what it fails with before its first line is an error, later a line.
pub(super) async fn reported<F, E>(work: F) -> Result<MessageStream>
where
    F: FnOnce(&Reporter) -> std::result::Result<(), E> + Send + 'static,
    E: Into<EngineError> + std::fmt::Display + Send + 'static,
{
    let (sender, mut receiver) = unbounded_channel();
    let done = tokio::task::spawn_blocking(move || work(&Reporter(sender)));
    let first = receiver.recv().await;
    if first.is_none() {
        // No line and no sender any more: the work is over.
        match done.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error.into()),
            Err(error) => return Err(EngineError::internal(error.to_string())),
        }
        return Ok(Box::pin(futures_util::stream::empty()));
    }
    Ok(lines(first, receiver, done))
}

fn lines<E: std::fmt::Display + Send + 'static>(
    first: Option<wire::JsonMessage>,
    receiver: UnboundedReceiver<wire::JsonMessage>,
    done: tokio::task::JoinHandle<std::result::Result<(), E>>,
) -> MessageStream {
    let state = (first, receiver, Some(done));
    Box::pin(futures_util::stream::unfold(
        state,
        |(first, mut receiver, mut done)| async move {
            if let Some(first) = first {
                return Some((first, (None, receiver, done)));
            }
            if let Some(next) = receiver.recv().await {
                return Some((next, (None, receiver, done)));
            }
            let error = match done.take()?.await {
                Ok(Ok(())) => return None,
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            Some((wire::JsonMessage::error(error), (None, receiver, None)))
        },
    ))
}

impl Engine {
    /// Checks credentials against a registry.
    ///
    /// # Errors
    /// Unauthorized when they are wrong.
    pub async fn auth(&self, auth: wire::AuthConfig) -> Result<wire::AuthReply> {
        let domain = registry_domain(&auth.serveraddress);
        let credentials = credentials(auth)?;
        let images = self.services.images.clone();
        let reply =
            crate::engine::blocking(move || images.authenticate(&domain, &credentials)).await??;
        Ok(wire::AuthReply {
            identity_token: reply.identity_token,
            status: reply.status,
        })
    }

    /// Fetches an image, or where nothing says which tag, all of a repository. What fails before the first line is an error.
    ///
    /// # Errors
    /// Bad names, images that are not there.
    pub async fn image_pull(
        &self,
        from: &str,
        tag: Option<&str>,
        platform: Option<&str>,
        auth: wire::RegistryAuth,
    ) -> Result<MessageStream> {
        let reference = match tag {
            Some(_) => reference(from, tag)?,
            None => parse_reference(from)?,
        };
        let options = PullOptions {
            platform: parse_platform(platform)?,
            credentials: credentials_for(&auth, reference.domain())?,
        };
        let images = self.services.images.clone();
        let all = reference.tag().is_none() && reference.digest().is_none();
        reported(move |reporter| match all {
            true => images.pull_all(&reference, &options, reporter).map(drop),
            false => images.pull(&reference, &options, reporter).map(drop),
        })
        .await
    }

    /// Sends an image to a registry, or without a tag all tags of that name.
    ///
    /// # Errors
    /// Bad names. What the registry refuses is a line.
    pub async fn image_push(
        &self,
        name: &str,
        tag: Option<&str>,
        platform: Option<&str>,
        auth: wire::RegistryAuth,
    ) -> Result<MessageStream> {
        let mut reference = parse_reference(name)?;
        if let Some(tag) = tag {
            let bad =
                |error: gantry_model::ReferenceError| EngineError::bad_request(error.to_string());
            reference = reference.with_tag(tag).map_err(bad)?;
        }
        let options = PushOptions {
            platform: parse_platform(platform)?,
            credentials: credentials_for(&auth, reference.domain())?,
        };
        let images = self.services.images.clone();
        reported(move |reporter| images.push(&reference, &options, reporter)).await
    }

    /// Looks for repositories in a registry's index.
    ///
    /// # Errors
    /// Bad limits and filters; what the registry says.
    pub async fn image_search(
        &self,
        term: &str,
        limit: Option<i64>,
        filters: &wire::Filters,
        auth: wire::RegistryAuth,
    ) -> Result<Vec<wire::ImageSearchResult>> {
        let domain = self.services.images.search_domain(term);
        let credentials = credentials_for(&auth, &domain)?;
        let (images, term) = (self.services.images.clone(), term.to_owned());
        let filters = super::images::decoded(filters);
        let found =
            crate::engine::blocking(move || images.search(&term, limit, &filters, &credentials))
                .await??;
        let result = |found: gantry_driver_api::registry::SearchResult| wire::ImageSearchResult {
            name: found.name,
            description: found.description,
            star_count: found.star_count,
            is_official: found.is_official,
            is_automated: false,
        };
        Ok(found.into_iter().map(result).collect())
    }

    /// Reads images from an archive.
    ///
    /// # Errors
    /// Archives that are none, when it shows before the first line.
    pub async fn image_load(
        &self,
        body: ByteReader,
        quiet: bool,
        platforms: &[String],
    ) -> Result<MessageStream> {
        let options = LoadOptions {
            platforms: parse_platforms(platforms)?,
            quiet,
        };
        let images = self.services.images.clone();
        let mut body = SyncIoBridge::new(body);
        reported(move |reporter| images.load(&mut body, &options, reporter).map(drop)).await
    }

    /// Writes images to an archive, with `platforms` only those for these. A failure on the way ends the archive early, with
    /// an error for the reader.
    ///
    /// # Errors
    /// `No such image: x`, or none for a platform.
    pub async fn image_save(&self, names: Vec<String>, platforms: &[String]) -> Result<ByteReader> {
        let images = self.services.images.clone();
        let platforms = parse_platforms(platforms)?;
        let (looked, wanted, only) = (images.clone(), names.clone(), platforms.clone());
        crate::engine::blocking(move || looked.check_save(&wanted, &only)).await??;
        let (reader, writer) = tokio::io::duplex(PIPE);
        let mut writer = SyncIoBridge::new(writer);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = images.save(&names, &platforms, &mut writer) {
                tracing::warn!(%error, "saving images failed");
            }
        });
        Ok(Box::pin(reader))
    }
}
