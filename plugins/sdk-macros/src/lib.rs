//! The one macro line that turns a driver into a plugin.
