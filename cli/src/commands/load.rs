use std::io::{IsTerminal, Read};
use std::path::Path;

use anyhow::{Result, bail};
use bytes::Bytes;
use clap::Args;
use hyper::body::Frame;

use super::push::platform_json;
use crate::app::App;
use crate::client::Body;
use crate::error::path_error;
use crate::progress::{Target, show};

/// Flags of `load`.
#[derive(Args, Debug)]
pub(crate) struct Load {
    /// Read from tar archive file, instead of STDIN
    #[arg(long, short, value_name = "string")]
    pub(crate) input: Option<String>,
    /// Load only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")
    #[arg(long, value_name = "string")]
    pub(crate) platform: Option<String>,
    /// Suppress the load output
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl Load {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        if self.input.is_none() && std::io::stdin().is_terminal() {
            bail!("requested load from stdin, but stdin is empty");
        }
        let platform = self.platform.as_deref().map(platform_json).transpose()?;
        let body = upload(self.input.as_deref().filter(|path| !path.is_empty()))?;
        let quiet = self.quiet || !std::io::stdout().is_terminal();
        let request = app
            .client()?
            .post("/images/load")
            .query("quiet", if quiet { "1" } else { "0" });
        let reply = request
            .maybe("platform", platform)
            .body(body, "application/x-tar")
            .send()
            .await?;
        show(reply, Target::Stdout).await
    }
}

const CHUNK: usize = 1 << 20;

/// The bytes of a file, or of standard input, as a request's body. Read by a thread of its own, two chunks ahead.
pub(crate) fn upload(path: Option<&str>) -> Result<Body> {
    let mut source: Box<dyn Read + Send> = match path {
        Some(path) => {
            let path = Path::new(path);
            Box::new(std::fs::File::open(path).map_err(|error| path_error("open", path, &error))?)
        }
        None => Box::new(std::io::stdin()),
    };
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Frame<Bytes>>>(2);
    std::thread::Builder::new()
        .name("upload".into())
        .spawn(move || {
            loop {
                let mut chunk = Vec::with_capacity(CHUNK);
                let item = match source.by_ref().take(CHUNK as u64).read_to_end(&mut chunk) {
                    Ok(0) => return,
                    Ok(_) => Ok(Frame::data(Bytes::from(chunk))),
                    Err(error) => Err(error),
                };
                let last = item.is_err();
                if sender.blocking_send(item).is_err() || last {
                    return;
                }
            }
        })?;
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    });
    Ok(Body::Stream(Box::pin(stream)))
}
