//! The macro's input: `key: value` pairs.

use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Ident, LitInt, LitStr, Result, Token, Type, bracketed};

const KINDS: [&str; 4] = ["storage", "network", "volume", "registry"];

/// What was written, checked.
pub(crate) struct Input {
    pub(crate) kind: Ident,
    pub(crate) driver: Type,
    pub(crate) name: String,
    pub(crate) capabilities: Vec<String>,
    pub(crate) options: Option<String>,
    pub(crate) protocol: Option<(LitInt, LitInt)>,
}

/// What was written so far.
#[derive(Default)]
struct Partial {
    kind: Option<Ident>,
    driver: Option<Type>,
    name: Option<String>,
    capabilities: Option<Vec<String>>,
    options: Option<String>,
    protocol: Option<(LitInt, LitInt)>,
}

impl Parse for Input {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut partial = Partial::default();
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            input.parse::<Token![:]>()?;
            let twice = match key.to_string().as_str() {
                "kind" => partial.kind.replace(kind(input)?).is_some(),
                "driver" => partial.driver.replace(input.parse()?).is_some(),
                "name" => partial.name.replace(name(input)?).is_some(),
                "capabilities" => partial.capabilities.replace(names(input)?).is_some(),
                "options" => partial.options.replace(schema(input)?).is_some(),
                "protocol" => partial.protocol.replace(range(input)?).is_some(),
                _ => {
                    return Err(Error::new(
                        key.span(),
                        "expected kind, driver, name, capabilities, options or protocol",
                    ));
                }
            };
            if twice {
                return Err(Error::new(key.span(), "said twice"));
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let missing = |key: &str| input.error(format!("{key} is missing"));
        Ok(Self {
            kind: partial.kind.ok_or_else(|| missing("kind"))?,
            driver: partial.driver.ok_or_else(|| missing("driver"))?,
            name: partial.name.ok_or_else(|| missing("name"))?,
            capabilities: partial.capabilities.unwrap_or_default(),
            options: partial.options,
            protocol: partial.protocol,
        })
    }
}

fn kind(input: ParseStream<'_>) -> Result<Ident> {
    let kind: Ident = input.parse()?;
    if KINDS.iter().any(|k| kind == k) {
        return Ok(kind);
    }
    Err(Error::new(
        kind.span(),
        "expected storage, network, volume or registry",
    ))
}

/// A driver's name is part of a file name and of Rust's library name.
fn name(input: ParseStream<'_>) -> Result<String> {
    let literal: LitStr = input.parse()?;
    let name = literal.value();
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(ok) {
        return Err(Error::new(
            literal.span(),
            "expected 1 to 64 of a-z, 0-9, '-' and '_'",
        ));
    }
    Ok(name)
}

fn names(input: ParseStream<'_>) -> Result<Vec<String>> {
    let list;
    bracketed!(list in input);
    let mut out = Vec::new();
    while !list.is_empty() {
        out.push(name(&list)?);
        if !list.is_empty() {
            list.parse::<Token![,]>()?;
        }
    }
    Ok(out)
}

fn schema(input: ParseStream<'_>) -> Result<String> {
    let literal: LitStr = input.parse()?;
    let text = literal.value();
    if text.trim_start().starts_with('{') && text.trim_end().ends_with('}') {
        return Ok(text);
    }
    Err(Error::new(literal.span(), "expected a JSON object"))
}

fn range(input: ParseStream<'_>) -> Result<(LitInt, LitInt)> {
    let list;
    bracketed!(list in input);
    let span = list.span();
    let numbers = Punctuated::<LitInt, Token![,]>::parse_terminated(&list)?;
    let mut numbers = numbers.into_iter();
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(min), Some(max), None) => Ok((min, max)),
        _ => Err(Error::new(
            span,
            "expected the oldest and the newest version",
        )),
    }
}
