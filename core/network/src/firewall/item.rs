//! Elements of sets and maps, and how one collection of them becomes another.

use std::collections::HashSet;

use gantry_sys::nft::{Batch, Holds, Kind, SetSpec};

/// A set without values.
pub(super) const fn set(
    name: &'static str,
    key: &'static [Kind],
    holds: Holds,
) -> SetSpec<'static> {
    SetSpec {
        name,
        key,
        value: None,
        holds,
    }
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Item {
    pub(super) set: &'static str,
    pub(super) key: Vec<u8>,
    /// The last key of a range.
    pub(super) end: Option<Vec<u8>>,
    /// The set is one of [`Holds::Spans`].
    spans: bool,
    /// What a map has for it.
    pub(super) value: Option<Vec<u8>>,
}

impl Item {
    pub(super) fn key(set: &'static str, key: Vec<u8>) -> Self {
        Self {
            set,
            key,
            end: None,
            spans: false,
            value: None,
        }
    }

    pub(super) fn range(set: &'static str, [first, last]: [Vec<u8>; 2]) -> Self {
        Self {
            end: Some(last),
            ..Self::key(set, first)
        }
    }

    pub(super) fn span(set: &'static str, ends: [Vec<u8>; 2]) -> Self {
        Self {
            spans: true,
            ..Self::range(set, ends)
        }
    }

    pub(super) fn with(self, value: Vec<u8>) -> Self {
        Self {
            value: Some(value),
            ..self
        }
    }
}

/// Turns one collection into another. What goes goes before others come, which ranges might overlap.
pub(super) fn change(batch: &mut Batch, before: &HashSet<Item>, after: &HashSet<Item>) {
    for item in before.difference(after) {
        let key = item.key.clone();
        match &item.end {
            Some(end) if item.spans => batch.delete_spans(item.set, vec![(key, end.clone())]),
            Some(end) => batch.delete_ranges(item.set, vec![(key, end.clone())]),
            None => batch.delete_elements(item.set, vec![key]),
        }
    }
    for item in after.difference(before) {
        let key = item.key.clone();
        match (&item.end, &item.value) {
            (Some(end), value) if item.spans => {
                batch.add_spans(item.set, vec![((key, end.clone()), value.clone())]);
            }
            (Some(end), Some(value)) => {
                batch.map_ranges(item.set, vec![((key, end.clone()), value.clone())]);
            }
            (Some(end), None) => batch.add_ranges(item.set, vec![(key, end.clone())]),
            (None, value) => batch.add_elements(item.set, vec![(key, value.clone())]),
        }
    }
}
