//! Sending: blobs, from another repository where the server has them, and manifests.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use bytes::Bytes;
use gantry_plugin_sdk::registry::{
    BeginUpload, BlobStat, FinishUpload, GetManifest, GetReferrers, ManifestReply, PutManifest,
    PutReply, Repository, StatBlob, Upload, UploadChunk, UploadStatus,
};
use gantry_plugin_sdk::{DriverError, DriverResult, ErrorCode};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use url::Url;

use crate::client::{Body, Purpose};
use crate::http_call::{Answer, Wanted, is_own, push_scope, url_of};
use crate::{Hub, MAX_MANIFEST};

/// Bytes read from a descriptor at once.
const PIECE: usize = 256 << 10;
/// Pieces on their way to the socket.
const PIECES: usize = 4;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Hub {
    pub(crate) async fn stat(&self, request: StatBlob) -> DriverResult<BlobStat> {
        let path = format!("blobs/{}", request.digest);
        let wanted = Wanted::push(Method::HEAD, &request.at.repository);
        let answer = self
            .request(&request.at, &path, wanted)
            .await?
            .succeeded()
            .await?;
        let size = answer
            .header(CONTENT_LENGTH.as_str())
            .and_then(|size| size.parse().ok())
            .unwrap_or(0);
        Ok(BlobStat { size })
    }

    pub(crate) async fn begin(&self, request: BeginUpload) -> DriverResult<Upload> {
        let BeginUpload {
            at,
            digest,
            mount_from,
        } = request;
        let mut wanted = Wanted::push(Method::POST, &at.repository);
        let mut path = "blobs/uploads/".to_owned();
        if !mount_from.is_empty() {
            let query = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("mount", &digest)
                .append_pair("from", &mount_from)
                .finish();
            path = format!("{path}?{query}");
            wanted.scope = format!("{} repository:{mount_from}:pull", wanted.scope);
        }
        wanted
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let url = url_of(&at, &path)?;
        let answer = self
            .authorized(&at.endpoint, &url, wanted)
            .await?
            .succeeded()
            .await?;
        if answer.status() == StatusCode::CREATED {
            return Ok(Upload {
                location: String::new(),
                mounted: true,
                offset: 0,
            });
        }
        going_on(&answer, &url)
    }

    pub(crate) async fn chunk(
        &self,
        request: UploadChunk,
        source: OwnedFd,
    ) -> DriverResult<Upload> {
        let url = parse(&request.location)?;
        let mut headers = HeaderMap::new();
        let last = request.offset + request.size.saturating_sub(1);
        let range = header(&format!("{}-{last}", request.offset))?;
        headers.insert(CONTENT_RANGE, range);
        let answer = self
            .stream(
                &request.at,
                Method::PATCH,
                &url,
                headers,
                Some((source, request.size)),
            )
            .await?;
        let sent = request.offset + request.size;
        let next = going_on(&answer, &url)?;
        Ok(Upload {
            offset: received(&answer)
                .filter(|received| *received > 0)
                .unwrap_or(sent),
            ..next
        })
    }

    pub(crate) async fn status(&self, request: UploadStatus) -> DriverResult<Upload> {
        let url = parse(&request.location)?;
        let answer = self
            .stream(&request.at, Method::GET, &url, HeaderMap::new(), None)
            .await?;
        let received = received(&answer).ok_or_else(|| {
            DriverError::invalid("the registry does not say how much of an upload it has")
        })?;
        // A server that names no other place means the same.
        let next = match answer.header(LOCATION.as_str()) {
            Some(_) => going_on(&answer, &url)?.location,
            None => request.location,
        };
        Ok(Upload {
            location: next,
            mounted: false,
            offset: received,
        })
    }

    pub(crate) async fn finish(
        &self,
        request: FinishUpload,
        source: Option<OwnedFd>,
    ) -> DriverResult<()> {
        let mut url = parse(&request.location)?;
        url.query_pairs_mut().append_pair("digest", &request.digest);
        let body = source.map(|source| (source, request.size));
        self.stream(&request.at, Method::PUT, &url, HeaderMap::new(), body)
            .await
            .map(drop)
    }

    /// Sends what can be sent only once. A token that has expired is renewed for the next attempt.
    async fn stream(
        &self,
        at: &Repository,
        method: Method,
        url: &Url,
        mut headers: HeaderMap,
        source: Option<(OwnedFd, u64)>,
    ) -> DriverResult<Answer> {
        let endpoint = &at.endpoint;
        let scope = push_scope(&at.repository);
        let own = is_own(endpoint, url);
        if own && let Some(known) = self.tokens.known(endpoint, &scope) {
            headers.insert(AUTHORIZATION, known);
        }
        let size = source.as_ref().map_or(0, |(_, size)| *size);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        let body = match source {
            Some((source, size)) => reading(source, size)?,
            None => Full::new(Bytes::new())
                .map_err(|never| match never {})
                .boxed(),
        };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        let answer = self.once(endpoint, url, request, Purpose::Store).await?;
        if answer.status() == StatusCode::UNAUTHORIZED && own {
            self.tokens.forget(endpoint, &scope);
            self.answer_challenge(endpoint, &answer, &scope, false)
                .await?;
            return Err(DriverError::new(
                ErrorCode::Unavailable,
                "the registry wanted a new token in the middle of an upload",
            ));
        }
        answer.succeeded().await
    }

    pub(crate) async fn put(&self, request: PutManifest) -> DriverResult<PutReply> {
        let path = format!("manifests/{}", request.reference);
        let mut wanted = Wanted::push(Method::PUT, &request.at.repository);
        wanted
            .headers
            .insert(CONTENT_TYPE, header(&request.media_type)?);
        wanted.body = request.bytes.into();
        let answer = self
            .request(&request.at, &path, wanted)
            .await?
            .succeeded()
            .await?;
        let digest = answer.header("docker-content-digest").unwrap_or_default();
        Ok(PutReply {
            digest: digest.to_owned(),
        })
    }

    pub(crate) async fn delete(&self, request: GetManifest) -> DriverResult<()> {
        let path = format!("manifests/{}", request.reference);
        let mut wanted = Wanted::push(Method::DELETE, &request.at.repository);
        wanted.scope = format!("repository:{}:pull,push,delete", request.at.repository);
        self.request(&request.at, &path, wanted)
            .await?
            .succeeded()
            .await?;
        Ok(())
    }

    /// Registries without that list answer 404, which is as good as an empty one.
    pub(crate) async fn list_referrers(
        &self,
        request: GetReferrers,
    ) -> DriverResult<ManifestReply> {
        let path = format!("referrers/{}", request.digest);
        let mut wanted = Wanted::pull(Method::GET, &request.at.repository);
        wanted
            .headers
            .insert(ACCEPT, HeaderValue::from_static(INDEX));
        let answer = self.request(&request.at, &path, wanted).await?;
        let bytes = match answer.status() {
            StatusCode::NOT_FOUND => {
                br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#.to_vec()
            }
            _ => answer.succeeded().await?.body(MAX_MANIFEST).await?,
        };
        Ok(ManifestReply {
            media_type: INDEX.into(),
            digest: String::new(),
            size: bytes.len() as u64,
            bytes,
            rate_limit: Vec::new(),
        })
    }
}

/// Where the next bytes go.
fn going_on(answer: &Answer, url: &Url) -> DriverResult<Upload> {
    let location = answer.header(LOCATION.as_str()).unwrap_or_default();
    let next = url
        .join(location)
        .ok()
        .filter(|next| !location.is_empty() && matches!(next.scheme(), "http" | "https"))
        .ok_or_else(|| {
            DriverError::invalid(format!(
                "the registry does not say where to upload to: {location:?}"
            ))
        })?;
    if url.scheme() == "https" && next.scheme() == "http" {
        return Err(DriverError::invalid(format!(
            "the registry wants an upload to go to {next} without TLS"
        )));
    }
    Ok(Upload {
        location: next.into(),
        mounted: false,
        offset: 0,
    })
}

/// Bytes that the server has, of `Range: 0-LAST`. Nothing at all and one byte look the same: nothing is the safe reading.
fn received(answer: &Answer) -> Option<u64> {
    let range = answer.header("range")?;
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let (first, last) = range.split_once('-')?;
    match (first.trim(), last.trim().parse::<u64>().ok()?) {
        ("0", 0) => Some(0),
        ("0", last) => last.checked_add(1),
        _ => None,
    }
}

fn parse(location: &str) -> DriverResult<Url> {
    crate::http_call::parse(location)
}

fn header(text: &str) -> DriverResult<HeaderValue> {
    HeaderValue::try_from(text).map_err(|_| DriverError::invalid(format!("{text:?} is no header")))
}

/// `size` bytes of a descriptor as they are read, by a thread that ends with the request.
fn reading(source: OwnedFd, size: u64) -> DriverResult<Body> {
    let (sender, receiver) = tokio::sync::mpsc::channel::<io::Result<Frame<Bytes>>>(PIECES);
    let read = move || {
        let mut source = File::from(source).take(size);
        let mut left = size;
        while left > 0 {
            let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
            let got = match source.read(&mut piece) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    piece.truncate(count);
                    left -= count as u64;
                    Ok(Frame::data(piece.into()))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let over = got.is_err();
            if sender.blocking_send(got).is_err() || over {
                break;
            }
        }
    };
    std::thread::Builder::new()
        .name("upload".into())
        .spawn(read)
        .map_err(|e| DriverError::io("starting a thread", &e))?;
    let pieces = futures_util::stream::unfold(receiver, async |mut receiver| {
        Some((receiver.recv().await?, receiver))
    });
    Ok(StreamBody::new(pieces).boxed())
}
