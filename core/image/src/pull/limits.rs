//! How many pulls registries still allow. Source: Docker Hub's *Pull usage and limits*.

use gantry_driver_api::registry::ManifestReply;
use gantry_model::Timestamp;

use super::endpoint::Server;
use crate::service::Shared;
use crate::{Message, Progress};

/// What a registry last told of its limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Pulls allowed in a window.
    pub limit: u64,
    /// Pulls that are left.
    pub remaining: u64,
    /// The window, in seconds; 0 where the registry does not say.
    pub window: u64,
    /// Whose limit it is, as the registry says it: an address or an account. May be empty.
    pub source: String,
    /// When it was told.
    pub told: Timestamp,
}

impl RateLimit {
    fn of(reply: &ManifestReply) -> Option<Self> {
        let header = |wanted: &str| {
            let found = reply
                .rate_limit
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.as_str())
        };
        let (limit, window) = numbers(header("RateLimit-Limit")?)?;
        let (remaining, _) = numbers(header("RateLimit-Remaining")?)?;
        Some(Self {
            limit,
            remaining,
            window,
            source: header("Docker-RateLimit-Source").unwrap_or_default().into(),
            told: Timestamp::now(),
        })
    }

    /// Whether so little is left that the user should know.
    fn is_low(&self) -> bool {
        self.remaining <= self.limit / 10
    }
}

/// `100;w=21600`.
fn numbers(value: &str) -> Option<(u64, u64)> {
    let (count, rest) = value.split_once(';').unwrap_or((value, ""));
    let window = rest
        .split(';')
        .find_map(|part| part.trim().strip_prefix("w="));
    let window = window.and_then(|window| window.parse().ok()).unwrap_or(0);
    Some((count.trim().parse().ok()?, window))
}

impl Shared {
    /// Remembers what a registry tells with its answer. Mirrors' limits are not the registry's.
    pub(crate) fn note_limit(&self, server: &Server, reply: &ManifestReply) {
        if let Some(limit) = RateLimit::of(reply)
            && server.own
        {
            let domain = server.endpoint.domain.clone();
            self.limits.lock().insert(domain, limit);
        }
    }
}

/// Tells the user when a registry will soon allow no more pulls.
pub(super) fn tell(shared: &Shared, domain: &str, progress: &dyn Progress) {
    let limit = shared.limits.lock().get(domain).cloned();
    let Some(limit) = limit.filter(RateLimit::is_low) else {
        return;
    };
    let per = match limit.window {
        0 => String::new(),
        window if window % 3600 == 0 => format!(" per {} hours", window / 3600),
        window => format!(" per {window} seconds"),
    };
    progress.report(Message::status(format!(
        "Rate limit of {domain}: {} of {} pulls{per} left",
        limit.remaining, limit.limit
    )));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_hub() {
        let reply = |headers: &[(&str, &str)]| ManifestReply {
            media_type: String::new(),
            digest: String::new(),
            bytes: Vec::new(),
            size: 0,
            rate_limit: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        let whole = [
            ("ratelimit-limit", "100;w=21600"),
            ("RateLimit-Remaining", "10;w=21600"),
            ("Docker-RateLimit-Source", "192.0.2.1"),
        ];
        let limit = RateLimit::of(&reply(&whole)).unwrap();
        assert_eq!(
            (limit.limit, limit.remaining, limit.window),
            (100, 10, 21600)
        );
        assert!(limit.is_low());
        for odd in ["", "x", "-1;w=2", "1e3"] {
            let headers = [("RateLimit-Limit", odd), ("RateLimit-Remaining", "1")];
            assert_eq!(RateLimit::of(&reply(&headers)), None, "{odd}");
        }
    }
}
