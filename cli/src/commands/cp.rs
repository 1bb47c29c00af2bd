use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::mpsc;

use super::load::upload;
use super::save::download;
use crate::app::App;
use crate::archive::{self, Incoming, Target};
use crate::client::{Body, Client, Reply, segment};
use crate::error::{ApiError, is_not_found, path_error};
use crate::format::units::human_size;

/// Flags of `cp`.
#[derive(Args, Debug)]
pub(crate) struct Cp {
    /// Archive mode (copy all uid/gid information)
    #[arg(long, short)]
    pub(crate) archive: bool,
    /// Always follow symbol link in SRC_PATH
    #[arg(long, short = 'L')]
    pub(crate) follow_link: bool,
    /// Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached
    #[arg(long, short)]
    pub(crate) quiet: bool,
    source: String,
    destination: String,
}

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Here(String),
    Container { name: String, path: String },
}

impl Place {
    /// `CONTAINER:PATH`, unless it is plainly a path of ours.
    fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((name, path)) if !text.starts_with(['/', '.']) && !name.contains('/') => {
                Self::Container {
                    name: name.into(),
                    path: path.into(),
                }
            }
            _ => Self::Here(text.to_owned()),
        }
    }
}

/// What is at a path, there or here.
#[derive(Clone, Copy)]
struct Found {
    is_dir: bool,
}

impl Cp {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let client = app.client()?;
        match (Place::parse(&self.source), Place::parse(&self.destination)) {
            (Place::Container { name, path }, Place::Here(to)) => {
                self.fetch(client, &name, &path, &to).await
            }
            (Place::Here(from), Place::Container { name, path }) => {
                self.send(client, &from, &name, &path).await
            }
            (Place::Container { .. }, Place::Container { .. }) => {
                bail!("copying between containers is not supported")
            }
            (Place::Here(_), Place::Here(_)) => bail!("must specify at least one container source"),
        }
    }

    async fn fetch(&self, client: &Client, container: &str, path: &str, to: &str) -> Result<()> {
        let api = format!("/containers/{}/archive", segment(container));
        let mut source = path.to_owned();
        if self.follow_link
            && let (_, Some(target)) = stat(client, &api, path).await?
        {
            source = beside(path, &target);
        }
        let reply = client.get(&api).query("path", &source).send().await?;
        if to == "-" {
            return download(reply, None).await;
        }
        let (found, _) = path_stat(&reply)?;
        let there = std::fs::metadata(to).ok().map(|meta| Found {
            is_dir: meta.is_dir(),
        });
        let (directory, name) = destination(path, found, to, there)?;
        let directory = PathBuf::from(if directory.is_empty() {
            "."
        } else {
            &directory
        });
        if !directory.is_dir() {
            bail!(
                "invalid output path: directory {:?} does not exist",
                directory.display().to_string()
            );
        }
        let target = Target {
            directory,
            name,
            owners: self.archive,
        };
        let bytes = receive(reply, target).await?;
        self.report(Some(bytes), to);
        Ok(())
    }

    async fn send(&self, client: &Client, from: &str, container: &str, path: &str) -> Result<()> {
        let api = format!("/containers/{}/archive", segment(container));
        let mut target = path.to_owned();
        let mut there = match stat(client, &api, path).await {
            Ok((found, None)) => Some(found),
            Ok((_, Some(link))) => {
                target = beside(path, &link);
                stat(client, &api, &target)
                    .await
                    .ok()
                    .map(|(found, _)| found)
            }
            Err(error) if is_not_found(&error) => None,
            Err(error) => return Err(error),
        };
        if path.ends_with("/.") || path == "/" {
            there = there.or(Some(Found { is_dir: true }));
        }
        let (directory, body) = if from == "-" {
            if !there.is_some_and(|found| found.is_dir) {
                bail!("destination \"{container}:{path}\" must be a directory");
            }
            (target, upload(None)?)
        } else {
            let source = if self.follow_link {
                std::fs::canonicalize(from).unwrap_or_else(|_| from.into())
            } else {
                from.into()
            };
            let metadata = if from.ends_with('/') {
                source.metadata()
            } else {
                source.symlink_metadata()
            };
            let metadata =
                metadata.map_err(|error| path_error("lstat", Path::new(from), &error))?;
            let (directory, name) = destination(
                from,
                Found {
                    is_dir: metadata.is_dir(),
                },
                &target,
                there,
            )?;
            (directory, pack(source, name.unwrap_or_else(|| ".".into()))?)
        };
        let directory = if directory.is_empty() {
            "/".to_owned()
        } else {
            directory
        };
        client
            .put(&api)
            .query("path", &directory)
            .query("noOverwriteDirNonDir", "true")
            .flag("copyUIDGID", self.archive)
            .body(body, "application/x-tar")
            .done()
            .await?;
        self.report(None, &format!("{container}:{path}"));
        Ok(())
    }

    fn report(&self, bytes: Option<u64>, to: &str) {
        use std::io::IsTerminal;
        if self.quiet || !std::io::stderr().is_terminal() {
            return;
        }
        match bytes {
            Some(bytes) => eprintln!("Successfully copied {} to {to}", human_size(bytes as f64)),
            None => eprintln!("Successfully copied to {to}"),
        }
    }
}

/// Into which directory a copy goes, and under which name; none when the source's contents go straight into it.
///
/// The rules are those of `cp -a`: see `docker cp`'s reference for the whole table.
fn destination(
    from: &str,
    source: Found,
    to: &str,
    there: Option<Found>,
) -> Result<(String, Option<String>)> {
    let contents = from.ends_with("/.") || from == "." || from == "/";
    let (parent, base) = split(to);
    match there {
        Some(Found { is_dir: true }) if contents => Ok((to.into(), None)),
        Some(Found { is_dir: true }) => Ok((to.into(), Some(split(from).1))),
        Some(_) if source.is_dir => bail!("cannot copy directory"),
        Some(_) => Ok((parent, Some(base))),
        None if !source.is_dir && to.ends_with('/') => bail!("no such directory"),
        None => Ok((parent, Some(base))),
    }
}

/// A path's directory and its last part, without slashes at the end.
fn split(path: &str) -> (String, String) {
    let trimmed = path
        .strip_suffix("/.")
        .unwrap_or(path)
        .trim_end_matches('/');
    match trimmed.rsplit_once('/') {
        Some(("", base)) => ("/".into(), base.into()),
        Some((parent, base)) => (parent.into(), base.into()),
        None => (String::new(), trimmed.into()),
    }
}

/// Where a link at `path` leads.
fn beside(path: &str, target: &str) -> String {
    if target.starts_with('/') {
        return target.into();
    }
    let (parent, _) = split(path);
    format!("{}/{target}", parent.trim_end_matches('/'))
}

async fn stat(client: &Client, api: &str, path: &str) -> Result<(Found, Option<String>)> {
    match client.head(api).query("path", path).send().await {
        // The reply to a HEAD has no body to explain itself with.
        Err(ApiError::Daemon { status: 404, .. }) => Err(ApiError::Daemon {
            status: 404,
            message: format!("Could not find the file {path} in container"),
        }
        .into()),
        reply => path_stat(&reply?),
    }
}

/// What the daemon tells of a path in a header: whether it is a directory, and where a link leads.
fn path_stat(reply: &Reply) -> Result<(Found, Option<String>)> {
    /// How Go marks a directory in a file mode.
    const DIRECTORY: u64 = 1 << 31;
    let header = reply.headers().get("X-Docker-Container-Path-Stat");
    let header =
        header.ok_or_else(|| anyhow!("unable to decode container path stat header: missing"))?;
    let stat: Value = serde_json::from_slice(&STANDARD.decode(header.as_bytes())?)?;
    let found = Found {
        is_dir: stat["mode"]
            .as_u64()
            .is_some_and(|mode| mode & DIRECTORY != 0),
    };
    Ok((
        found,
        stat["linkTarget"]
            .as_str()
            .filter(|target| !target.is_empty())
            .map(str::to_owned),
    ))
}

/// A local tree as a request's body.
fn pack(source: PathBuf, name: String) -> Result<Body> {
    let (sender, receiver) = mpsc::channel(2);
    std::thread::Builder::new()
        .name("pack".into())
        .spawn(move || archive::pack(&source, &name, sender))?;
    Ok(Body::Stream(Box::pin(futures_util::stream::unfold(
        receiver,
        |mut receiver| async move { receiver.recv().await.map(|item| (item, receiver)) },
    ))))
}

/// Unpacks a reply while it arrives.
async fn receive(reply: Reply, target: Target) -> Result<u64> {
    let (sender, receiver) = mpsc::channel(4);
    let unpacking =
        tokio::task::spawn_blocking(move || archive::unpack(Incoming::new(receiver), &target));
    let mut body = reply.into_body();
    while let Some(frame) = body.frame().await {
        let piece = match frame {
            Ok(frame) => frame
                .into_data()
                .map_err(|_| std::io::Error::other("unexpected trailers")),
            Err(error) => Err(std::io::Error::other(error)),
        };
        if sender.send(piece).await.is_err() {
            break;
        }
    }
    drop(sender);
    unpacking.await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        assert_eq!(
            Place::parse("web:/etc"),
            Place::Container {
                name: "web".into(),
                path: "/etc".into()
            }
        );
        for here in ["/a:b", "./a:b", "a/b:c", "plain", "-"] {
            assert_eq!(Place::parse(here), Place::Here(here.into()));
        }
    }

    #[test]
    fn copies_land_where_cp_would_put_them() {
        const DIR: Found = Found { is_dir: true };
        const FILE: Found = Found { is_dir: false };
        for (from, source, to, there, directory, name) in [
            ("/etc/hosts", FILE, "/tmp", Some(DIR), "/tmp", Some("hosts")),
            ("/etc/hosts", FILE, "/tmp/h", None, "/tmp", Some("h")),
            ("/etc/hosts", FILE, "/tmp/h", Some(FILE), "/tmp", Some("h")),
            ("dir", DIR, "/new", None, "/", Some("new")),
            ("dir/", DIR, "/tmp", Some(DIR), "/tmp", Some("dir")),
            ("dir/.", DIR, "/tmp", Some(DIR), "/tmp", None),
            ("dir/.", DIR, "/tmp/new/", None, "/tmp", Some("new")),
            ("f", FILE, "g", None, "", Some("g")),
        ] {
            let (d, n) = destination(from, source, to, there).unwrap();
            assert_eq!(
                (d.as_str(), n.as_deref()),
                (directory, name),
                "{from} -> {to}"
            );
        }
        assert!(destination("dir", DIR, "/file", Some(FILE)).is_err());
        assert!(destination("f", FILE, "/new/", None).is_err());
        assert_eq!(beside("/a/link", "target"), "/a/target");
        assert_eq!(beside("/link", "/x"), "/x");
    }
}
