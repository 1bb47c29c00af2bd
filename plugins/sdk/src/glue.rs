//! What the macro's expansion needs: the driver behind the binary interface, and constant text.

use gantry_driver_api::{Call, DriverConfig, DriverError, DriverResult, decode, encode};
use gantry_plugin_abi::HostCallbacks;
use gantry_plugin_abi::plugin::{IncomingCall, Plugin};

use crate::Log;

/// What the macro says of a driver.
pub trait Exported: 'static {
    /// The driver's type.
    type Driver: Send + Sync + 'static;
    /// Its constructor.
    fn new(config: DriverConfig, log: Log) -> DriverResult<Self::Driver>;
    /// Its contract's dispatcher.
    fn dispatch(
        driver: &Self::Driver,
        method: &str,
        call: &Call<'_>,
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> DriverResult<()>;
}

/// A driver as the binary interface sees it.
pub struct Adapter<E: Exported>(E::Driver);

impl<E: Exported> Plugin for Adapter<E> {
    fn create(config: &[u8], host: HostCallbacks) -> Result<Self, Vec<u8>> {
        decode(config)
            .and_then(|config| E::new(config, Log::new(host)))
            .map(Self)
            .map_err(|error| {
                let mut fault = Vec::new();
                write_fault(&error, &mut fault);
                fault
            })
    }

    fn invoke(&self, incoming: &IncomingCall<'_>, request: &[u8], reply: &mut Vec<u8>) -> bool {
        let call = Call {
            operation: incoming.operation,
            timeout: incoming.timeout,
            fds: incoming.fds,
        };
        match E::dispatch(&self.0, incoming.method, &call, request, reply) {
            Ok(()) => true,
            Err(error) => {
                write_fault(&error, reply);
                false
            }
        }
    }
}

fn write_fault(error: &DriverError, into: &mut Vec<u8>) {
    // Three plain fields: the encoder has nothing to refuse. An empty fault is read as an internal error.
    if encode(error, into).is_err() {
        into.clear();
    }
}

/// The length of `parts` put together.
#[must_use]
pub const fn length(parts: &[&[u8]]) -> usize {
    let (mut total, mut i) = (0, 0);
    while i < parts.len() {
        total += parts[i].len();
        i += 1;
    }
    total
}

/// `parts` put together; `N` is their [`length`].
#[must_use]
pub const fn concat<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    let (mut at, mut i) = (0, 0);
    while i < parts.len() {
        let (mut j, part) = (0, parts[i]);
        while j < part.len() {
            out[at] = part[j];
            at += 1;
            j += 1;
        }
        i += 1;
    }
    out
}

/// A number as JSON, right-aligned.
#[must_use]
pub const fn number(value: u32) -> [u8; 10] {
    let mut out = [b' '; 10];
    let (mut rest, mut at) = (value, 10);
    loop {
        at -= 1;
        out[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return out;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_json() {
        for value in [0, 7, 10, 4_294_967_295] {
            let bytes = number(value);
            assert_eq!(serde_json::from_slice::<u32>(&bytes).unwrap(), value);
        }
    }

    #[test]
    fn parts_join() {
        const PARTS: &[&[u8]] = &[b"ab", b"", b"c"];
        assert_eq!(&concat::<{ length(PARTS) }>(PARTS), b"abc");
    }
}
