//! What the documentation prints, done as it is printed: configurations start real engines, commands are run. Only
//! addresses and paths are the test's own, and what is installed is not installed again.

mod cluster;
mod configurations;
mod page;
mod plugins;
