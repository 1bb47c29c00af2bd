//! The `filters` query parameter.

use std::collections::BTreeMap;

use serde_json::Value;

/// Filters of a list, prune or events request: the values given for each key, in the order given, without repeats.
///
/// The order of keys and whether a key is known are not checked here; see [`Filters::check`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

/// Filters that make no sense. The wording is dockerd's; all are the client's fault (400).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Neither `{"key": ["value"]}` nor `{"key": {"value": true}}`.
    #[error("invalid filter")]
    Malformed,
    /// A key that this list does not know.
    #[error("invalid filter '{0}'")]
    UnknownKey(String),
    /// A value that the key does not take.
    #[error("invalid filter '{key}=[{}]'", values.join(" "))]
    BadValue {
        /// The key.
        key: String,
        /// What was given for it.
        values: Vec<String>,
    },
}

impl Filters {
    /// Reads the parameter's text; an empty one is no filters.
    ///
    /// # Errors
    /// [`FilterError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let parsed: BTreeMap<String, Value> =
            serde_json::from_str(text).map_err(|_| FilterError::Malformed)?;
        let mut filters = Self::default();
        for (key, values) in parsed {
            filters.0.entry(key.clone()).or_default();
            for value in words(values)? {
                filters.add(&key, value);
            }
        }
        Ok(filters)
    }

    /// Adds one value.
    pub fn add(&mut self, key: &str, value: impl Into<String>) {
        let value = value.into();
        let values = self.0.entry(key.to_owned()).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    }

    /// The values of a key; empty when it was not given.
    #[must_use]
    pub fn get(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether a key was given.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys that were given, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Removes a key and gives back its values.
    pub fn take(&mut self, key: &str) -> Vec<String> {
        self.0.remove(key).unwrap_or_default()
    }

    /// Refuses keys that are not in `known`.
    ///
    /// # Errors
    /// [`FilterError::UnknownKey`] for the first such key.
    pub fn check(&self, known: &[&str]) -> Result<(), FilterError> {
        match self.keys().find(|key| !known.contains(key)) {
            Some(key) => Err(FilterError::UnknownKey(key.to_owned())),
            None => Ok(()),
        }
    }

    /// The value of a yes-or-no key: `None` when it was not given.
    ///
    /// # Errors
    /// [`FilterError::BadValue`] for anything but one of `1 true 0 false`, or for both at once.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, FilterError> {
        let values = self.get(key);
        if !self.contains(key) {
            return Ok(None);
        }
        let yes = values
            .iter()
            .any(|v| v == "1" || v.eq_ignore_ascii_case("true"));
        let no = values
            .iter()
            .any(|v| v == "0" || v.eq_ignore_ascii_case("false"));
        if yes == no {
            return Err(FilterError::BadValue {
                key: key.to_owned(),
                values: values.to_vec(),
            });
        }
        Ok(Some(yes))
    }

    /// Whether `value` is among the key's values, or the key was not given.
    #[must_use]
    pub fn allows(&self, key: &str, value: &str) -> bool {
        let values = self.get(key);
        values.is_empty() || values.iter().any(|wanted| wanted == value)
    }

    /// Whether `labels` have every label that `key` (`label`, or `label!`) asks for: `name` or `name=value`.
    #[must_use]
    pub fn matches_labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.get(key)
            .iter()
            .all(|wanted| match wanted.split_once('=') {
                Some((name, value)) => labels.get(name).is_some_and(|have| have == value),
                None => labels.contains_key(wanted.as_str()),
            })
    }

    /// The parameter's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}

/// The words of `["a", "b"]` or of `{"a": true, "b": true}`.
fn words(values: Value) -> Result<Vec<String>, FilterError> {
    match values {
        Value::Array(items) => items
            .into_iter()
            .map(|item| match item {
                Value::String(word) => Ok(word),
                _ => Err(FilterError::Malformed),
            })
            .collect(),
        Value::Object(items) => items
            .into_iter()
            .filter_map(|(word, on)| match on {
                Value::Bool(true) => Some(Ok(word)),
                Value::Bool(false) => None,
                _ => Some(Err(FilterError::Malformed)),
            })
            .collect(),
        _ => Err(FilterError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let list = Filters::parse(r#"{"label":["a=b","c"],"dangling":["true"]}"#).unwrap();
        let map =
            Filters::parse(r#"{"label":{"a=b":true,"c":true},"dangling":{"true":true}}"#).unwrap();
        assert_eq!(list, map);
        assert_eq!(list.get("label"), ["a=b", "c"]);
        assert_eq!(list.flag("dangling"), Ok(Some(true)));
        assert_eq!(Filters::parse(&list.to_json()).unwrap(), list);
        assert!(Filters::parse("").unwrap().is_empty());
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "x",
            "[]",
            r#"{"a":"b"}"#,
            r#"{"a":[1]}"#,
            r#"{"a":{"b":1}}"#,
        ] {
            assert_eq!(Filters::parse(bad), Err(FilterError::Malformed), "{bad}");
        }
        let filters = Filters::parse(r#"{"nope":["x"],"dangling":["maybe"]}"#).unwrap();
        assert_eq!(
            filters.check(&["dangling"]).unwrap_err().to_string(),
            "invalid filter 'nope'"
        );
        assert!(matches!(
            filters.flag("dangling"),
            Err(FilterError::BadValue { .. })
        ));
    }

    #[test]
    fn labels() {
        let labels = BTreeMap::from([("a".to_owned(), "b=c".to_owned())]);
        for (wanted, matches) in [("a", true), ("a=b=c", true), ("a=b", false), ("x", false)] {
            let mut filters = Filters::default();
            filters.add("label", wanted);
            assert_eq!(
                filters.matches_labels("label", &labels),
                matches,
                "{wanted}"
            );
        }
    }
}
