//! Networks and published ports through the docker CLI.

mod changes;
mod forwarding;
mod reach;
mod shown;
mod stay;
