//! The types that cross. Frozen: a change here refuses every plugin built before it.

use std::ffi::c_void;
use std::marker::PhantomData;

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RSlice, RStr};

/// What a plugin exports.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginModuleRef)))]
#[sabi(missing_field(panic))]
pub struct PluginModule {
    /// The same bytes as the file's `.gantry.manifest` section.
    pub manifest: RSlice<'static, u8>,
    /// Makes an instance from an encoded configuration. Without an instance, `reply` holds the encoded fault or the
    /// text of a panic, as `status` says.
    pub create: unsafe extern "C" fn(
        config: RSlice<'_, u8>,
        host: HostCallbacks,
        reply: Sink<'_>,
        status: &mut Status,
    ) -> RawInstance,
    /// Runs one call; may be entered by several threads at once.
    pub invoke: unsafe extern "C" fn(
        instance: RawInstance,
        call: &CallHeader<'_>,
        request: RSlice<'_, u8>,
        reply: Sink<'_>,
    ) -> Status,
    /// Ends the instance. No call may be running or follow.
    #[sabi(last_prefix_field)]
    pub shutdown: unsafe extern "C" fn(instance: RawInstance),
}

impl RootModule for PluginModuleRef {
    abi_stable::declare_root_module_statics! {PluginModuleRef}
    const BASE_NAME: &'static str = "gantry_plugin";
    const NAME: &'static str = "gantry_plugin";
    /// The interface's own version, not this crate's.
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("1.0.0");
}

/// How a call ended.
#[repr(transparent)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// The reply is encoded in the sink.
    pub const OK: Self = Self(0);
    /// An encoded fault is in the sink.
    pub const FAULT: Self = Self(1);
    /// The plugin panicked, now or in an earlier call; the text is in the sink.
    pub const PANICKED: Self = Self(2);
}

/// What comes with a request.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct CallHeader<'a> {
    /// The contract's method.
    pub method: RStr<'a>,
    /// The operation's name, for logs.
    pub operation: RStr<'a>,
    /// How long the caller waits, in nanoseconds; `u64::MAX` for ever.
    pub timeout: u64,
    /// Open descriptors, borrowed for the call.
    pub fds: RSlice<'a, i32>,
}

/// An instance of a plugin's driver; null for none.
#[repr(transparent)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawInstance(pub(crate) *mut c_void);

/// Where the plugin writes its reply: the receiver's own buffer, by the receiver's own function.
#[repr(C)]
#[derive(StableAbi)]
pub struct Sink<'a> {
    target: *mut c_void,
    write: unsafe extern "C" fn(target: *mut c_void, bytes: RSlice<'_, u8>),
    borrow: PhantomData<&'a mut u8>,
}

impl<'a> Sink<'a> {
    /// A sink that replaces what `buffer` holds.
    pub(crate) fn new(buffer: &'a mut Vec<u8>) -> Self {
        unsafe extern "C" fn write(target: *mut c_void, bytes: RSlice<'_, u8>) {
            // SAFETY: `target` was made from the `&mut Vec<u8>` below, which the sink's lifetime keeps borrowed; the
            // sink is neither `Sync` nor `Clone`, so this is the only reference.
            let buffer = unsafe { &mut *target.cast::<Vec<u8>>() };
            buffer.clear();
            buffer.extend_from_slice(bytes.as_slice());
        }
        Self {
            target: std::ptr::from_mut(buffer).cast(),
            write,
            borrow: PhantomData,
        }
    }

    /// Hands `bytes` over.
    pub(crate) fn put(self, bytes: &[u8]) {
        // SAFETY: `target` and `write` were made together by `new` and the target is still borrowed.
        unsafe { (self.write)(self.target, RSlice::from_slice(bytes)) }
    }
}

/// How much a log line matters.
#[repr(transparent)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level(pub u8);

impl Level {
    /// Something failed.
    pub const ERROR: Self = Self(1);
    /// Something is odd.
    pub const WARN: Self = Self(2);
    /// Worth knowing.
    pub const INFO: Self = Self(3);
    /// For developers.
    pub const DEBUG: Self = Self(4);
}

/// What a plugin may ask of its host, from any thread, at any time, for ever.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct HostCallbacks {
    pub(crate) context: *const c_void,
    pub(crate) log: unsafe extern "C" fn(context: *const c_void, level: Level, message: RStr<'_>),
}

// SAFETY: `HostCallbacks::new` takes only a `'static` context that is `Sync`.
unsafe impl Send for HostCallbacks {}
// SAFETY: as above; the function reads the context through a shared reference.
unsafe impl Sync for HostCallbacks {}

impl HostCallbacks {
    /// Callbacks that write to `log`. It is leaked: a plugin may hold on to it for as long as the process lives.
    pub fn new<F: Fn(Level, &str) + Send + Sync + 'static>(log: F) -> Self {
        unsafe extern "C" fn write<F: Fn(Level, &str)>(
            context: *const c_void,
            level: Level,
            message: RStr<'_>,
        ) {
            // SAFETY: `context` is the `&'static F` leaked below.
            let log = unsafe { &*context.cast::<F>() };
            // A panic of the logger must not unwind into the plugin.
            let run = std::panic::AssertUnwindSafe(|| log(level, message.as_str()));
            let _ = std::panic::catch_unwind(run);
        }
        let context: &'static F = Box::leak(Box::new(log));
        Self {
            context: std::ptr::from_ref(context).cast(),
            log: write::<F>,
        }
    }

    /// Writes one line to the host's log.
    pub fn log(&self, level: Level, message: &str) {
        // SAFETY: `context` belongs to `log` and is never freed (see `new`).
        unsafe { (self.log)(self.context, level, RStr::from_str(message)) }
    }
}

impl std::fmt::Debug for HostCallbacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostCallbacks")
    }
}
