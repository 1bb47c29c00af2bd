//! Filters that take regular expressions, as `name` and `id` do with dockerd.

use gantry_wire::Filters;
use regex::Regex;

/// The values of such a key.
pub(crate) struct Patterns(Option<Vec<Pattern>>);

struct Pattern {
    text: String,
    /// `None`: none that can be read, which matches what it is alone.
    regex: Option<Regex>,
}

impl Patterns {
    pub(crate) fn new(filters: &Filters, key: &str) -> Self {
        let pattern = |text: &String| Pattern {
            text: text.clone(),
            regex: Regex::new(text).ok(),
        };
        let values = filters.get(key);
        Self((!values.is_empty()).then(|| values.iter().map(pattern).collect()))
    }

    /// Whether one of them matches, or the key was not given.
    pub(crate) fn take(&self, text: &str) -> bool {
        self.0.as_ref().is_none_or(|patterns| {
            patterns.iter().any(|pattern| {
                let regex = pattern.regex.as_ref();
                pattern.text == text || regex.is_some_and(|regex| regex.is_match(text))
            })
        })
    }
}
