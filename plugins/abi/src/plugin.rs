//! The plugin's side: entries that catch panics around a [`Plugin`].

use std::any::Any;
use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use abi_stable::library::RootModuleResult;
use abi_stable::std_types::{RErr, ROk, RSlice};

use crate::{CallHeader, HostCallbacks, Level, PluginModule, RawInstance, Sink, Status};

/// Reply buffers larger than this are not kept for the next call.
const KEEP: usize = 64 * 1024;

/// What the entries run. Faults are encoded by the implementor.
pub trait Plugin: Send + Sync + Sized + 'static {
    /// Makes the driver, or says why not.
    ///
    /// # Errors
    /// An encoded fault.
    fn create(config: &[u8], host: HostCallbacks) -> Result<Self, Vec<u8>>;
    /// Runs one call. `reply` holds the encoded reply, or on false the encoded fault.
    fn invoke(&self, call: &IncomingCall<'_>, request: &[u8], reply: &mut Vec<u8>) -> bool;
}

/// A call as the plugin sees it.
#[derive(Debug)]
pub struct IncomingCall<'a> {
    /// The contract's method.
    pub method: &'a str,
    /// The operation's name, for logs.
    pub operation: &'a str,
    /// How long the caller waits.
    pub timeout: Option<std::time::Duration>,
    /// The request's descriptors.
    pub fds: &'a [BorrowedFd<'a>],
}

/// A driver and what became of it.
struct Instance<P> {
    plugin: P,
    /// The first panic; from then on the driver is not entered again.
    fault: OnceLock<String>,
}

thread_local! {
    /// The message and place of the panic that is unwinding through this thread.
    static LAST_PANIC: Cell<Option<String>> = const { Cell::new(None) };
    /// The reply under construction; kept to spare an allocation a call.
    static REPLY: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The module of a plugin, for [`export_plugin!`](crate::export_plugin).
#[doc(hidden)]
pub fn root_module<P: Plugin>(manifest: &'static [u8]) -> RootModuleResult {
    use abi_stable::prefix_type::{PrefixRefTrait, PrefixTypeTrait};
    let built = catch_unwind(|| {
        let module = PluginModule {
            manifest: RSlice::from_slice(manifest),
            create: create::<P>,
            invoke: invoke::<P>,
            shutdown: shutdown::<P>,
        };
        let module = module.leak_into_prefix().to_prefix_ref();
        // SAFETY: the erased reference is only read back as a `PluginModuleRef`, the type whose layout the header of
        // `export_plugin!` names.
        unsafe { module.cast() }
    });
    match built {
        Ok(module) => ROk(module),
        Err(_) => RErr(abi_stable::library::RootModuleError::Unwound),
    }
}

unsafe extern "C" fn create<P: Plugin>(
    config: RSlice<'_, u8>,
    host: HostCallbacks,
    reply: Sink<'_>,
    status: &mut Status,
) -> RawInstance {
    let none = RawInstance(std::ptr::null_mut());
    // Each plugin has a standard library, and thus a panic hook, of its own.
    std::panic::set_hook(Box::new(move |info| {
        let text = info.to_string().replace('\n', " ");
        host.log(Level::ERROR, &text);
        LAST_PANIC.set(Some(text));
    }));
    match catch_unwind(|| P::create(config.as_slice(), host)) {
        Ok(Ok(plugin)) => {
            let instance = Box::new(Instance {
                plugin,
                fault: OnceLock::new(),
            });
            *status = Status::OK;
            RawInstance(Box::into_raw(instance).cast())
        }
        Ok(Err(fault)) => {
            reply.put(&fault);
            *status = Status::FAULT;
            none
        }
        Err(payload) => {
            reply.put(panic_text(payload).as_bytes());
            *status = Status::PANICKED;
            none
        }
    }
}

unsafe extern "C" fn invoke<P: Plugin>(
    instance: RawInstance,
    call: &CallHeader<'_>,
    request: RSlice<'_, u8>,
    sink: Sink<'_>,
) -> Status {
    // SAFETY: the caller passes what `create::<P>` returned and has not been shut down; shared access only.
    let instance = unsafe { &*instance.0.cast::<Instance<P>>() };
    if let Some(text) = instance.fault.get() {
        sink.put(format!("faulted by an earlier panic: {text}").as_bytes());
        return Status::PANICKED;
    }
    let mut reply = REPLY.take();
    reply.clear();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the caller keeps these descriptors open until the call returns, and the borrow ends with it.
        let borrow = |fd: &i32| unsafe { BorrowedFd::borrow_raw(*fd) };
        let fds: Vec<_> = call.fds.as_slice().iter().map(borrow).collect();
        let call = IncomingCall {
            method: call.method.as_str(),
            operation: call.operation.as_str(),
            timeout: (call.timeout != u64::MAX)
                .then(|| std::time::Duration::from_nanos(call.timeout)),
            fds: &fds,
        };
        instance
            .plugin
            .invoke(&call, request.as_slice(), &mut reply)
    }));
    let status = match outcome {
        Ok(true) => Status::OK,
        Ok(false) => Status::FAULT,
        Err(payload) => {
            let text = panic_text(payload);
            reply.clear();
            reply.extend_from_slice(text.as_bytes());
            let _ = instance.fault.set(text);
            Status::PANICKED
        }
    };
    sink.put(&reply);
    if reply.capacity() <= KEEP {
        REPLY.set(reply);
    }
    status
}

unsafe extern "C" fn shutdown<P: Plugin>(instance: RawInstance) {
    // SAFETY: the caller passes what `create::<P>` returned, once, when no call is running.
    let instance = unsafe { Box::from_raw(instance.0.cast::<Instance<P>>()) };
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(instance))) {
        let _ = panic_text(payload);
    }
}

/// The text of the panic that was just caught.
fn panic_text(payload: Box<dyn Any + Send>) -> String {
    let text = LAST_PANIC.take().unwrap_or_else(|| "panicked".to_owned());
    // A payload's destructor is foreign code too, and may panic again.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    text
}

/// Exports `$plugin` (a [`Plugin`](crate::plugin::Plugin)) as this library's one plugin, with `$manifest` (constant
/// bytes) as an ELF section of its own.
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty, $manifest:expr) => {
        const _: () = {
            const MANIFEST: &[u8] = $manifest;

            // SAFETY: the section's name is used by nothing else; the static is plain bytes.
            #[allow(unsafe_code)]
            #[unsafe(link_section = ".gantry.manifest")]
            #[used]
            static SECTION: [u8; MANIFEST.len()] = {
                let mut bytes = [0; MANIFEST.len()];
                bytes.copy_from_slice(MANIFEST);
                bytes
            };

            extern "C" fn root_module() -> $crate::abi_stable::library::RootModuleResult {
                $crate::plugin::root_module::<$plugin>(&SECTION)
            }

            // SAFETY: the name is `abi_stable`'s; a library holds at most one plugin, so nothing else defines it. The
            // constructor returns a `PluginModuleRef`.
            #[allow(unsafe_code)]
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            static HEADER: $crate::abi_stable::library::LibHeader = unsafe {
                $crate::abi_stable::library::LibHeader::from_constructor::<$crate::PluginModuleRef>(
                    root_module,
                    $crate::abi_stable::library::CheckTypeLayout::Yes,
                )
            };
        };
    };
}

#[cfg(test)]
mod tests {
    /// `export_plugin!` must spell the symbol as a literal.
    #[test]
    fn symbol_is_the_one_abi_stable_looks_up() {
        let source = include_str!("plugin.rs");
        let wanted = format!(
            "export_name = \"{}\"",
            abi_stable::library::ROOT_MODULE_LOADER_NAME
        );
        assert!(source.contains(&wanted), "{wanted}");
    }
}
