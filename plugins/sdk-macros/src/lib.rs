//! The one macro line that turns a driver into a plugin. Used through `gantry_plugin_sdk::plugin!`, which documents it.
//!
//! It checks what can be checked at compile time, writes the manifest, and hands the rest to `gantry-plugin-abi`'s
//! `export_plugin!`. It reads nothing but its input and the crate's version.

mod input;

use proc_macro::TokenStream;
use proc_macro2::{Literal, TokenStream as Tokens};
use quote::quote;

use input::Input;

/// See `gantry_plugin_sdk::plugin!`.
#[proc_macro]
pub fn plugin(tokens: TokenStream) -> TokenStream {
    match syn::parse::<Input>(tokens) {
        Ok(input) => expand(&input).into(),
        Err(error) => error.to_compile_error().into(),
    }
}

fn expand(input: &Input) -> Tokens {
    let Input { kind, driver, .. } = input;
    let manifest = manifest(input);
    quote! {
        const _: () = {
            struct __Exported;

            impl ::gantry_plugin_sdk::__private::Exported for __Exported {
                type Driver = #driver;

                fn new(
                    config: ::gantry_plugin_sdk::DriverConfig,
                    log: ::gantry_plugin_sdk::Log,
                ) -> ::gantry_plugin_sdk::DriverResult<#driver> {
                    <#driver>::new(config, log)
                }

                fn dispatch(
                    driver: &#driver,
                    method: &str,
                    call: &::gantry_plugin_sdk::Call<'_>,
                    request: &[u8],
                    reply: &mut ::std::vec::Vec<u8>,
                ) -> ::gantry_plugin_sdk::DriverResult<()> {
                    ::gantry_plugin_sdk::#kind::dispatch(driver, method, call, request, reply)
                }
            }

            const __PARTS: &[&[u8]] = #manifest;
            const __MANIFEST: [u8; ::gantry_plugin_sdk::__private::length(__PARTS)] =
                ::gantry_plugin_sdk::__private::concat(__PARTS);

            ::gantry_plugin_sdk::__private::abi::export_plugin! {
                ::gantry_plugin_sdk::__private::Adapter<__Exported>, &__MANIFEST
            }
        };
    }
}

/// The manifest as constant parts; the protocol's versions are the SDK's unless said otherwise.
fn manifest(input: &Input) -> Tokens {
    // Cargo sets it for the crate that is being compiled; without Cargo there is no version to tell.
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let capabilities: Vec<String> = input
        .capabilities
        .iter()
        .map(|c| format!("\"{c}\""))
        .collect();
    let head = format!(
        "{{\"kind\":\"{}\",\"name\":\"{}\",\"version\":\"{version}\",\"capabilities\":[{}],\"options\":{},\"protocol_min\":",
        input.kind,
        input.name,
        capabilities.join(","),
        input.options.as_deref().unwrap_or("null"),
    );
    let head = Literal::byte_string(head.as_bytes());
    let (min, max) = match &input.protocol {
        Some((min, max)) => (quote!(#min), quote!(#max)),
        None => (
            quote!(::gantry_plugin_sdk::PROTOCOL_MIN),
            quote!(::gantry_plugin_sdk::PROTOCOL),
        ),
    };
    quote! {
        &[
            #head,
            &::gantry_plugin_sdk::__private::number(#min),
            b",\"protocol_max\":",
            &::gantry_plugin_sdk::__private::number(#max),
            b"}",
        ]
    }
}
