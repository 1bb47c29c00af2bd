//! A driver's way to the engine's log.

use gantry_plugin_abi::{HostCallbacks, Level};

/// Writes lines to the engine's log under the driver's name. Cheap to clone; usable from any thread.
#[derive(Debug, Clone)]
pub struct Log(Option<HostCallbacks>);

impl Log {
    pub(crate) fn new(host: HostCallbacks) -> Self {
        Self(Some(host))
    }

    /// A log that drops everything, for a driver's unit tests.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// A log that hands each line to a function, for a driver's unit tests. The function is leaked.
    #[must_use]
    pub fn to(write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(HostCallbacks::new(move |_, line| write(line))))
    }

    /// Something failed.
    pub fn error(&self, message: impl AsRef<str>) {
        self.write(Level::ERROR, message.as_ref());
    }

    /// Something is odd.
    pub fn warn(&self, message: impl AsRef<str>) {
        self.write(Level::WARN, message.as_ref());
    }

    /// Worth knowing.
    pub fn info(&self, message: impl AsRef<str>) {
        self.write(Level::INFO, message.as_ref());
    }

    /// For developers.
    pub fn debug(&self, message: impl AsRef<str>) {
        self.write(Level::DEBUG, message.as_ref());
    }

    fn write(&self, level: Level, message: &str) {
        if let Some(host) = &self.0 {
            host.log(level, message);
        }
    }
}
