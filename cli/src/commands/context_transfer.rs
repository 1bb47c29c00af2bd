use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;

use anyhow::{Result, bail};
use clap::Args;
use tar::{Archive, Builder, EntryType, Header};

use crate::app::App;
use crate::contexts::{Context, Store, TLS_NAMES, check_name};
use crate::error::path_error;
use crate::format::outln;

/// An entry larger than this is no context's.
const MAX_ENTRY: u64 = 10 << 20;

/// `context export`.
#[derive(Args, Debug)]
pub(crate) struct ContextExport {
    context: String,
    #[arg(value_name = "FILE|-")]
    file: Option<String>,
}

impl ContextExport {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        check_name(&self.context)?;
        let store = Store::new(app.config().directory());
        let context = store.get(&self.context)?;
        let file = self
            .file
            .unwrap_or_else(|| format!("{}.dockercontext", self.context));
        if file == "-" {
            if std::io::stdout().is_terminal() {
                bail!("cowardly refusing to export to a terminal, specify a file path");
            }
            return write(&store, &context, std::io::stdout().lock());
        }
        let path = Path::new(&file);
        let target = File::options().write(true).create_new(true).open(path);
        write(
            &store,
            &context,
            target.map_err(|error| path_error("open", path, &error))?,
        )?;
        eprintln!("Written file {file:?}");
        Ok(())
    }
}

fn write(store: &Store, context: &Context, sink: impl Write) -> Result<()> {
    let mut builder = Builder::new(sink);
    let file = |size: u64, mode: u32| {
        let mut header = Header::new_ustar();
        header.set_size(size);
        header.set_mode(mode);
        header
    };
    let directory = || {
        let mut header = file(0, 0o700);
        header.set_entry_type(EntryType::Directory);
        header
    };
    let meta = serde_json::to_vec(context)?;
    builder.append_data(&mut file(meta.len() as u64, 0o644), "meta.json", &meta[..])?;
    builder.append_data(&mut directory(), "tls", std::io::empty())?;
    let names = store.tls_names(&context.name);
    if !names.is_empty() {
        builder.append_data(&mut directory(), "tls/docker", std::io::empty())?;
    }
    for name in names {
        let bytes = std::fs::read(store.tls_path(&context.name).join("docker").join(name))?;
        builder.append_data(
            &mut file(bytes.len() as u64, 0o600),
            format!("tls/docker/{name}"),
            &bytes[..],
        )?;
    }
    Ok(builder.into_inner()?.flush()?)
}

/// `context import`.
#[derive(Args, Debug)]
pub(crate) struct ContextImport {
    context: String,
    #[arg(value_name = "FILE|-")]
    file: String,
}

impl ContextImport {
    pub(crate) async fn execute(self, app: &App) -> Result<()> {
        let store = Store::new(app.config().directory());
        check_name(&self.context)?;
        if store.exists(&self.context) {
            bail!("context {:?} already exists", self.context);
        }
        let source: Box<dyn Read> = if self.file == "-" {
            Box::new(std::io::stdin())
        } else {
            let path = Path::new(&self.file);
            Box::new(File::open(path).map_err(|error| path_error("open", path, &error))?)
        };
        read(&store, &self.context, source)?;
        outln!("{}", self.context)?;
        eprintln!("Successfully imported context {:?}", self.context);
        Ok(())
    }
}

/// Takes from an archive what a context consists of, and nothing else.
fn read(store: &Store, name: &str, source: impl Read) -> Result<()> {
    let mut archive = Archive::new(source);
    let mut context = None;
    let mut files = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.size() > MAX_ENTRY {
            bail!("unexpected context file: entry is too large");
        }
        let path = entry.path()?.to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        if path == "meta.json" {
            entry.read_to_end(&mut bytes)?;
            context = Some(serde_json::from_slice::<Context>(&bytes)?);
        } else if let Some(file) = TLS_NAMES
            .iter()
            .find(|file| path.strip_prefix("tls/docker/") == Some(file))
        {
            entry.read_to_end(&mut bytes)?;
            files.push((*file, bytes));
        }
    }
    let Some(context) = context else {
        bail!("invalid context: no metadata found")
    };
    store.put(&Context {
        name: name.to_owned(),
        ..context
    })?;
    for (file, bytes) in files {
        store.put_tls(name, file, &bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_exported_can_be_imported() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::new(home.path());
        let mut context = Context {
            name: "one".into(),
            ..Context::default()
        };
        context.endpoints.docker.host = "tcp://x:1".into();
        store.put(&context).unwrap();
        store.put_tls("one", "key.pem", b"secret").unwrap();
        let mut bytes = Vec::new();
        write(&store, &context, &mut bytes).unwrap();
        read(&store, "two", &bytes[..]).unwrap();
        let (host, tls) = store.endpoint("two").unwrap();
        assert_eq!(host, "tcp://x:1");
        assert_eq!(std::fs::read(tls.unwrap().key).unwrap(), b"secret");
        assert!(read(&store, "three", &[0u8; 1024][..]).is_err());
    }
}
