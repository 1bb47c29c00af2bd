//! Images: pull, load, import, save. The image service blocks; progress and bytes cross to it through channels.

use base64::Engine as _;
use gantry_driver_api::registry::Credentials;
use gantry_image as image;
use gantry_image::{ImportOptions, LoadOptions, Message, Progress, PullOptions, PushOptions};
use gantry_model::Platform;
use gantry_wire as wire;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::io::SyncIoBridge;

use super::images::reference;
use crate::{ByteReader, Engine, EngineError, MessageStream, Result};

/// Bytes of an archive on their way to a client.
const PIPE: usize = 256 << 10;

/// Hands progress over to the stream that a client reads.
struct Reporter(UnboundedSender<wire::JsonMessage>);

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
async fn reported<F>(work: F) -> Result<MessageStream>
where
    F: FnOnce(&Reporter) -> image::Result<()> + Send + 'static,
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

fn lines(
    first: Option<wire::JsonMessage>,
    receiver: UnboundedReceiver<wire::JsonMessage>,
    done: tokio::task::JoinHandle<image::Result<()>>,
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

    /// Fetches an image. What fails before the first line is an error.
    ///
    /// # Errors
    /// Bad names, images that are not there.
    pub async fn image_pull(
        &self,
        from: &str,
        tag: Option<&str>,
        platform: Option<&str>,
        auth: Option<wire::AuthConfig>,
    ) -> Result<MessageStream> {
        let reference = reference(from, tag)?;
        let options = PullOptions {
            platform: parse_platform(platform)?,
            credentials: credentials(auth.unwrap_or_default())?,
        };
        let images = self.services.images.clone();
        reported(move |reporter| images.pull(&reference, &options, reporter).map(drop)).await
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
        auth: Option<wire::AuthConfig>,
    ) -> Result<MessageStream> {
        let bad = |error: gantry_model::ReferenceError| EngineError::bad_request(error.to_string());
        let mut reference = gantry_model::Reference::parse(name).map_err(bad)?;
        if let Some(tag) = tag {
            reference = reference.with_tag(tag).map_err(bad)?;
        }
        let options = PushOptions {
            platform: parse_platform(platform)?,
            credentials: credentials(auth.unwrap_or_default())?,
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
        auth: Option<wire::AuthConfig>,
    ) -> Result<Vec<wire::ImageSearchResult>> {
        let credentials = credentials(auth.unwrap_or_default())?;
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

    /// Makes an image of a tar archive.
    ///
    /// # Errors
    /// Bad names and changes.
    pub async fn image_import(
        &self,
        source: ByteReader,
        repo: Option<&str>,
        tag: Option<&str>,
        message: &str,
        changes: Vec<String>,
        platform: Option<&str>,
    ) -> Result<MessageStream> {
        let options = ImportOptions {
            name: repo
                .filter(|repo| !repo.is_empty())
                .map(|repo| reference(repo, tag))
                .transpose()?,
            changes,
            message: message.to_owned(),
            platform: parse_platform(platform)?,
        };
        let images = self.services.images.clone();
        let mut source = SyncIoBridge::new(source);
        reported(move |reporter| images.import(&mut source, &options, reporter).map(drop)).await
    }

    /// Reads images from an archive.
    ///
    /// # Errors
    /// Archives that are none, when it shows before the first line.
    pub async fn image_load(
        &self,
        body: ByteReader,
        quiet: bool,
        platform: Option<&str>,
    ) -> Result<MessageStream> {
        let options = LoadOptions {
            platform: parse_platform(platform)?,
            quiet,
        };
        let images = self.services.images.clone();
        let mut body = SyncIoBridge::new(body);
        reported(move |reporter| images.load(&mut body, &options, reporter).map(drop)).await
    }

    /// Writes images to an archive. A failure on the way ends the archive early, with an error for the reader.
    ///
    /// # Errors
    /// `No such image: x`.
    pub async fn image_save(&self, names: Vec<String>) -> Result<ByteReader> {
        let images = self.services.images.clone();
        let (looked, wanted) = (images.clone(), names.clone());
        crate::engine::blocking(move || {
            wanted
                .iter()
                .try_for_each(|name| looked.find(name).map(drop))
        })
        .await??;
        let (reader, writer) = tokio::io::duplex(PIPE);
        let mut writer = SyncIoBridge::new(writer);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = images.save(&names, &mut writer) {
                tracing::warn!(%error, "saving images failed");
            }
        });
        Ok(Box::pin(reader))
    }
}

fn parse_platform(text: Option<&str>) -> Result<Option<Platform>> {
    match text.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => Platform::parse(text).map(Some).ok_or_else(|| {
            EngineError::bad_request(format!("{text:?} is an invalid OS component"))
        }),
    }
}

/// The name under which references know a registry.
fn registry_domain(address: &str) -> String {
    let host = address
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or("");
    match host {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io".into(),
        host => host.into(),
    }
}

fn credentials(auth: wire::AuthConfig) -> Result<Credentials> {
    let mut credentials = Credentials {
        username: auth.username,
        password: auth.password,
        identity_token: auth.identitytoken,
        registry_token: auth.registrytoken,
    };
    if credentials.username.is_empty() && !auth.auth.is_empty() {
        let invalid = || EngineError::bad_request("invalid auth configuration");
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(&auth.auth)
            .map_err(|_| invalid())?;
        let decoded = String::from_utf8(decoded).map_err(|_| invalid())?;
        let (user, password) = decoded.split_once(':').ok_or_else(invalid)?;
        credentials.username = user.to_owned();
        credentials.password = password.trim_end_matches('\0').to_owned();
    }
    Ok(credentials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains() {
        for (address, want) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("", "docker.io"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("https://ghcr.io/v2", "ghcr.io"),
        ] {
            assert_eq!(registry_domain(address), want);
        }
    }

    #[test]
    fn combined_credentials() {
        let auth = wire::AuthConfig {
            auth: "dTpwOnE=".into(),
            ..wire::AuthConfig::default()
        };
        let credentials = credentials(auth).unwrap();
        assert_eq!(
            (credentials.username.as_str(), credentials.password.as_str()),
            ("u", "p:q")
        );
    }
}
