use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::{Result, bail};
use clap::Args;
use http_body_util::BodyExt;

use super::push::platform_json;
use crate::app::App;
use crate::client::Reply;
use crate::error::{ApiError, path_error};
use crate::format::put_bytes;

/// Flags of `save`.
#[derive(Args, Debug)]
pub(crate) struct Save {
    /// Write to a file, instead of STDOUT
    #[arg(long, short, value_name = "string")]
    pub(crate) output: Option<String>,
    /// Save only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")
    #[arg(long, value_name = "string")]
    pub(crate) platform: Option<String>,
    #[arg(required = true)]
    images: Vec<String>,
}

impl Save {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let output = check_output(self.output.as_deref(), "save")?;
        let platform = self.platform.as_deref().map(platform_json).transpose()?;
        let mut request = app.client()?.get("/images/get");
        for image in &self.images {
            request = request.query("names", image);
        }
        download(request.maybe("platform", platform).send().await?, output).await
    }
}

/// Refuses to flood a terminal, and paths that cannot be written.
pub(crate) fn check_output<'p>(output: Option<&'p str>, verb: &str) -> Result<Option<&'p Path>> {
    let Some(output) = output.filter(|path| !path.is_empty()) else {
        if std::io::stdout().is_terminal() {
            bail!("cowardly refusing to save to a terminal. Use the -o flag or redirect");
        }
        return Ok(None);
    };
    let path = Path::new(output);
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if !parent.is_dir() {
        bail!(
            "failed to {verb} image: invalid output path: stat {}: no such file or directory",
            parent.display()
        );
    }
    if path.is_dir() {
        bail!("failed to {verb} image: invalid output path: {output:?} must be a regular file");
    }
    Ok(Some(path))
}

/// Writes a reply to a file, which appears only once it is whole, or to standard output.
pub(crate) async fn download(reply: Reply, output: Option<&Path>) -> Result<()> {
    let mut body = reply.into_body();
    let Some(path) = output else {
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame.map_err(ApiError::from)?.data_ref() {
                put_bytes(data)?;
            }
        }
        return Ok(());
    };
    if path.exists() && !path.is_file() {
        // A device or a pipe cannot be replaced by renaming.
        let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
        return copy(&mut body, &mut file).await;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let mut file =
        std::fs::File::create(&temporary).map_err(|error| path_error("open", path, &error))?;
    let written = copy(&mut body, &mut file)
        .await
        .and_then(|()| Ok(std::fs::rename(&temporary, path)?));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

async fn copy(body: &mut hyper::body::Incoming, file: &mut std::fs::File) -> Result<()> {
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.map_err(ApiError::from)?.data_ref() {
            file.write_all(data)?;
        }
    }
    Ok(())
}
