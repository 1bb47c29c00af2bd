//! What stands for a network card.

use crate::run;

/// A bridge that stands for the host's network card; removed when dropped.
#[derive(Debug)]
pub struct Card(String);

impl Card {
    /// Makes one, and sets it up.
    #[must_use]
    #[track_caller]
    pub fn new() -> Self {
        let name = format!("gcard{}", std::process::id());
        run("ip", &["link", "add", &name, "type", "bridge"]).ok();
        run("ip", &["link", "set", &name, "up"]).ok();
        Self(name)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl Default for Card {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        run("ip", &["link", "delete", &self.0]);
    }
}
