//! Searching a registry's index of repositories.

use std::collections::BTreeMap;

use gantry_driver_api::Call;
use gantry_driver_api::registry::{Credentials, Search, SearchResult};
use gantry_model::Reference;
use gantry_model::reference::DEFAULT_DOMAIN;

use crate::pull::HUB_URL;
use crate::service::Shared;
use crate::{Error, Result};

/// Where Docker Hub is searched.
const HUB_INDEX: &str = "https://index.docker.io";
/// The limits of the index.
const LIMITS: std::ops::RangeInclusive<i64> = 1..=100;
const DEFAULT_LIMIT: i64 = 25;

/// Repositories that suit `term` and all of `filters` (`is-official`, `is-automated`, `stars`).
pub(crate) fn search(
    shared: &Shared,
    term: &str,
    limit: Option<i64>,
    filters: &BTreeMap<String, Vec<String>>,
    credentials: &Credentials,
) -> Result<Vec<SearchResult>> {
    let accept = accept(filters)?;
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if !LIMITS.contains(&limit) {
        return Err(Error::Invalid(format!(
            "limit {limit} is outside the range of [1, 100]"
        )));
    }
    let (domain, term) = split(term)?;
    let registry = shared.drivers.registry_for(&domain, "")?;
    let mut servers = shared.own_servers(&domain, credentials)?;
    for server in &mut servers {
        if server.endpoint.url == HUB_URL {
            server.endpoint.url = HUB_INDEX.into();
        }
    }
    let reply = shared.ask(servers, |endpoint| {
        let request = Search {
            endpoint: endpoint.clone(),
            term: term.clone(),
            limit: u32::try_from(limit).unwrap_or_default(),
        };
        registry.search(&Call::new("search"), request)
    });
    Ok(reply?.results.into_iter().filter(accept).collect())
}

/// The registry that is asked for a term; Docker Hub for one that is refused.
pub(crate) fn domain(term: &str) -> String {
    split(term).map_or_else(|_| DEFAULT_DOMAIN.into(), |(domain, _)| domain)
}

/// The registry that a term names before its first slash, if any, and what to ask it.
fn split(term: &str) -> Result<(String, String)> {
    if term.contains("://") {
        return Err(Error::Invalid(
            "invalid repository name: repository name should not have a scheme".into(),
        ));
    }
    let (domain, rest) = match term.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => {
            return Ok((
                DEFAULT_DOMAIN.into(),
                term.strip_prefix("library/").unwrap_or(term).into(),
            ));
        }
    };
    // Whatever else a registry is called is refused where references are read.
    Reference::parse(&format!("{domain}/x"))?;
    match domain {
        "docker.io" | "index.docker.io" => Ok((
            DEFAULT_DOMAIN.into(),
            rest.strip_prefix("library/").unwrap_or(rest).into(),
        )),
        _ => Ok((domain.into(), rest.into())),
    }
}

/// What the filters say of a result.
fn accept(
    filters: &BTreeMap<String, Vec<String>>,
) -> Result<impl Fn(&SearchResult) -> bool + use<>> {
    let (mut official, mut automated, mut stars) = (None, None, 0);
    for (name, values) in filters {
        let invalid = |value: &str| Error::Invalid(format!("invalid filter '{name}={value}'"));
        for value in values {
            let flag = || match value.as_str() {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                other => Err(invalid(other)),
            };
            match name.as_str() {
                "is-official" => official = Some(flag()?),
                "is-automated" => automated = Some(flag()?),
                "stars" => stars = stars.max(value.parse::<u32>().map_err(|_| invalid(value))?),
                _ => return Err(Error::Invalid(format!("invalid filter '{name}'"))),
            }
        }
    }
    Ok(move |result: &SearchResult| {
        // Automated builds are no more: nothing is one.
        automated != Some(true)
            && official.is_none_or(|wanted| wanted == result.is_official)
            && result.star_count >= stars
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_may_name_a_registry() {
        for (term, domain, rest) in [
            ("busybox", "docker.io", "busybox"),
            ("library/busybox", "docker.io", "busybox"),
            ("someone/tool", "docker.io", "someone/tool"),
            ("docker.io/busybox", "docker.io", "busybox"),
            ("127.0.0.1:5000/tool", "127.0.0.1:5000", "tool"),
            ("localhost/a/b", "localhost", "a/b"),
        ] {
            assert_eq!(split(term).unwrap(), (domain.into(), rest.into()), "{term}");
        }
        assert!(split("https://hub/x").is_err());
        assert_eq!(domain("localhost:5000/No-Reference"), "localhost:5000");
        assert_eq!(domain("https://hub/x"), DEFAULT_DOMAIN);
    }

    #[test]
    fn filters() {
        let one = |name: &str, value: &str| BTreeMap::from([(name.into(), vec![value.into()])]);
        let result = SearchResult {
            star_count: 5,
            is_official: true,
            ..SearchResult::default()
        };
        let says = |name: &str, value: &str| accept(&one(name, value)).unwrap()(&result);
        assert!(says("is-official", "true") && !says("is-official", "0"));
        assert!(says("stars", "5") && !says("stars", "6"));
        assert!(says("is-automated", "false") && !says("is-automated", "true"));
        let error = |name: &str, value: &str| accept(&one(name, value)).err().unwrap().to_string();
        assert_eq!(error("colour", "x"), "invalid filter 'colour'");
        assert_eq!(error("stars", "many"), "invalid filter 'stars=many'");
    }
}
