//! The use cases of the engine: everything that the API can ask for, put together from the services below.
//!
//! [`Engine`] is cheap to clone and may be used from any task. Invariants:
//! - A container's life-cycle steps (start, the handling of its end, removal, ...) are serial and fair; steps of
//!   different containers run concurrently. Lists and inspections read an immutable snapshot and never wait for a step.
//! - A step that fails leaves nothing behind: what it made is unmade in reverse order before the error is returned.
//! - A container's record is durable when its creation is acknowledged; what dies with the boot anyway (its run-time
//!   state, and containers with `--rm` altogether) is one small file under the exec-root, stamped with the boot and never
//!   flushed. The path of a start flushes nothing.
//! - After a crash of the daemon, [`Engine::open`] finds running containers again, finishes removals, undoes starts that were
//!   not acknowledged, and gives containers that ended meanwhile their true exit code and time.
//!
//! Under the data-root: `containers/<id>/` holds a container's `hosts`, `hostname`, `resolv.conf` and `<id>-json.log`.
//! Under the exec-root: `state/<id>.<number>.json`, `events/<number>` with events that are not in the log yet, and
//! `volumes/<id>/<name>` where volumes are mounted that are no directories.
//!
//! It speaks no HTTP, parents no process, and mounts nothing that others see: looking into a container that does not run takes a
//! private tree that only descriptors hold.

mod attach;
mod config;
mod container;
mod create;
mod engine;
mod error;
mod events;
mod exec;
mod fsck;
mod life;
mod logs;
mod look;
mod names;
mod objects;
mod patterns;
mod query;
mod security;
mod services;
mod show;
mod signal;
mod spec;
mod stats;
mod stream;
pub mod time;
mod update;
mod userns;

pub use attach::Attachment;
pub use config::{EngineConfig, SeccompDefault, UsernsConfig};
pub use engine::{Engine, Services};
pub use error::{EngineError, ErrorKind, Result};
pub use events::ResumeAfter;
pub use exec::{ExecIo, ExecReader, ExecWriter};
pub use fsck::{Offline, set_aside_unreadable, unreadable};
pub use logs::{LogStream, Logs, check_log_driver};
pub use look::{Archive, ByteStream, CommitQuery, CopyInto};
pub use objects::{ImportSource, encode_image_event};
pub use query::{
    AttachQuery, EventsQuery, ImageListQuery, ListQuery, LogsQuery, RemoveOptions, WaitCondition,
};
pub use stats::StatsMode;

pub(crate) use life::until;

use std::pin::Pin;

use futures_util::Stream;

/// Events as they happen; it ends at the query's `until`, or never.
pub type EventStream = Pin<Box<dyn Stream<Item = gantry_wire::EventMessage> + Send>>;
/// Progress of a long operation on images. A failure after the first line is a line itself.
pub type MessageStream = Pin<Box<dyn Stream<Item = gantry_wire::JsonMessage> + Send>>;
/// An archive being written.
pub type ByteReader = Pin<Box<dyn tokio::io::AsyncRead + Send>>;
/// How a wait will end.
pub type WaitFuture = Pin<Box<dyn Future<Output = gantry_wire::WaitReply> + Send>>;
