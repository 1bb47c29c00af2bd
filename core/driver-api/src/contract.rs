//! One declaration per driver kind: trait, dispatcher and client from the same lines.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Call, DriverError, DriverResult};

/// Carries one encoded call to a driver and brings its encoded reply back.
pub trait Invoke: Send + Sync {
    /// Calls `method` with an encoded request; `reply` is cleared first and holds the encoded reply on success.
    ///
    /// # Errors
    /// Those of the driver; `Panicked` when it died, `DeadlineExceeded` when it did not answer in time.
    fn invoke(
        &self,
        method: &str,
        call: &Call<'_>,
        request: &[u8],
        reply: &mut Vec<u8>,
    ) -> DriverResult<()>;
}

/// The client side of a driver: implements the trait of each kind by encoding calls for an [`Invoke`].
#[derive(Debug)]
pub struct Remote<I>(pub I);

impl<I: Invoke> Remote<I> {
    /// Encodes, invokes, decodes.
    pub fn call<Q: Serialize, R: DeserializeOwned>(
        &self,
        method: &str,
        call: &Call<'_>,
        request: &Q,
    ) -> DriverResult<R> {
        let mut bytes = Vec::with_capacity(256);
        encode(request, &mut bytes)?;
        let mut reply = Vec::new();
        self.0.invoke(method, call, &bytes, &mut reply)?;
        decode(&reply)
    }
}

/// Encodes a message as MessagePack with named fields, replacing what `into` held.
pub fn encode<T: Serialize>(value: &T, into: &mut Vec<u8>) -> DriverResult<()> {
    into.clear();
    rmp_serde::encode::write_named(into, value)
        .map_err(|e| DriverError::internal(format!("encoding a message: {e}")))
}

/// Decodes a message.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> DriverResult<T> {
    rmp_serde::from_slice(bytes)
        .map_err(|e| DriverError::invalid(format!("decoding a message: {e}")))
}

/// Declares a driver kind. Each line `required fn name(Request) -> Reply;` or `optional fn ...` becomes a trait
/// method `fn name(&self, call: &Call<'_>, request: Request) -> DriverResult<Reply>`; optional ones answer
/// `NotImplemented` unless overridden.
macro_rules! contract {
    (
        $(#[$trait_doc:meta])*
        pub trait $Trait:ident: Driver {
            $( $(#[$doc:meta])* $need:ident fn $name:ident($Request:ty) -> $Reply:ty; )*
        }
    ) => {
        $(#[$trait_doc])*
        pub trait $Trait: $crate::Driver {
            $( $crate::contract::method! { $(#[$doc])* $need $name $Request, $Reply } )*
        }

        impl<I: $crate::Invoke> $Trait for $crate::Remote<I> {
            $(
                fn $name(&self, call: &$crate::Call<'_>, request: $Request) -> $crate::DriverResult<$Reply> {
                    self.call(stringify!($name), call, &request)
                }
            )*
        }

        /// Runs one encoded call on a driver; the plugin's side of [`crate::Remote`].
        pub fn dispatch(
            driver: &dyn $Trait,
            method: &str,
            call: &$crate::Call<'_>,
            request: &[u8],
            reply: &mut Vec<u8>,
        ) -> $crate::DriverResult<()> {
            match method {
                $( stringify!($name) => $crate::encode(&driver.$name(call, $crate::decode(request)?)?, reply), )*
                _ => $crate::driver::dispatch(driver, method, call, request, reply),
            }
        }

        /// Every method of this kind: name, and whether a driver must have it.
        pub const METHODS: &[(&str, bool)] = &[ $( (stringify!($name), $crate::contract::required!($need)) ),* ];
    };
}

macro_rules! method {
    ($(#[$doc:meta])* required $name:ident $Request:ty, $Reply:ty) => {
        $(#[$doc])*
        fn $name(&self, call: &$crate::Call<'_>, request: $Request) -> $crate::DriverResult<$Reply>;
    };
    ($(#[$doc:meta])* optional $name:ident $Request:ty, $Reply:ty) => {
        $(#[$doc])*
        fn $name(&self, call: &$crate::Call<'_>, request: $Request) -> $crate::DriverResult<$Reply> {
            let _ = (call, request);
            Err($crate::DriverError::new(
                $crate::ErrorCode::NotImplemented,
                concat!("the driver does not support ", stringify!($name)),
            ))
        }
    };
}

macro_rules! required {
    (required) => {
        true
    };
    (optional) => {
        false
    };
}

pub(crate) use {contract, method, required};
