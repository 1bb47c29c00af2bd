//! The log that callers read errors from: lines as logrus writes them.

use std::fmt::Display;
use std::fs::File;
use std::io::Write;

use serde_json::json;

use crate::cli::{Cli, LogFormat};
use crate::error::{Context, Result};

/// Where errors and warnings go.
#[derive(Debug)]
pub(crate) struct Log {
    file: Option<File>,
    format: LogFormat,
    debug: bool,
}

impl Log {
    pub(crate) fn open(cli: &Cli) -> Result<Self> {
        let open = |path| File::options().create(true).append(true).open(path);
        let file = cli.log.as_ref().map(open).transpose();
        Ok(Self {
            file: file.context(|| "open the log".into())?,
            format: cli.log_format,
            debug: cli.debug,
        })
    }
    /// The error that ends the program: in the log, and on standard error in any case.
    pub(crate) fn error(&self, message: &impl Display) {
        self.write("error", message);
        eprintln!("gantry-oci: {message}");
    }
    /// Something that went wrong and is passed over.
    pub(crate) fn warn(&self, message: &impl Display) {
        self.write("warning", message);
        if self.file.is_none() {
            eprintln!("gantry-oci: warning: {message}");
        }
    }
    /// For `--debug`.
    pub(crate) fn debug(&self, message: &impl Display) {
        if self.debug {
            self.write("debug", message);
        }
    }
    fn write(&self, level: &str, message: &impl Display) {
        let Some(mut file) = self.file.as_ref() else {
            return;
        };
        let (time, message) = (jiff::Timestamp::now(), message.to_string());
        let line = match self.format {
            LogFormat::Json => {
                json!({"level": level, "msg": message, "time": time.to_string()}).to_string()
            }
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={message:?}"),
        };
        // There is nobody else to tell.
        let _ = writeln!(file, "{line}");
    }
}
