//! Things about ports that come in rows: of `-p 10000-20000:10000-20000/udp` one is kept, and how many follow.

use serde::{Deserialize, Serialize};

/// What can stand in a row.
pub(crate) trait InRow: Sized + Clone + PartialEq {
    /// What comes `by` ports after this one; none where the ports end.
    fn after(&self, by: u16) -> Option<Self>;
}

/// Some in a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Row<T> {
    #[serde(flatten)]
    first: T,
    /// How many follow the first.
    #[serde(default, skip_serializing_if = "is_none")]
    more: u16,
}

// serde hands it over by reference.
#[expect(clippy::trivially_copy_pass_by_ref)]
fn is_none(more: &u16) -> bool {
    *more == 0
}

/// A list that takes as much room as it has rows. The order is kept but for rows that are woven into each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Rows<T>(Vec<Row<T>>);

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: InRow> Rows<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts one at the end.
    pub(crate) fn push(&mut self, item: T) {
        // A port is published on an address of each family, and in several ways.
        const WOVEN: usize = 6;
        for row in self.0.iter_mut().rev().take(WOVEN) {
            let next = row.more.checked_add(1);
            if let Some(more) = next.filter(|by| row.first.after(*by).as_ref() == Some(&item)) {
                row.more = more;
                return;
            }
        }
        self.0.push(Row {
            first: item,
            more: 0,
        });
    }

    /// Every one of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        self.0
            .iter()
            .flat_map(|row| (0..=row.more).filter_map(|by| row.first.after(by)))
    }

    /// The first of each row, and how many follow.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (&T, u16)> {
        self.0.iter().map(|row| (&row.first, row.more))
    }
}

impl<T: InRow> FromIterator<T> for Rows<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut rows = Self::default();
        rows.extend(items);
        rows
    }
}

impl<T: InRow> Extend<T> for Rows<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        items.into_iter().for_each(|item| self.push(item));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Port {
        of: String,
        port: u16,
    }

    impl InRow for Port {
        fn after(&self, by: u16) -> Option<Self> {
            Some(Self {
                of: self.of.clone(),
                port: self.port.checked_add(by)?,
            })
        }
    }

    fn port(of: &str, port: u16) -> Port {
        Port {
            of: of.into(),
            port,
        }
    }

    #[test]
    fn rows_are_found_even_when_woven() {
        let woven = (1000..2000).flat_map(|n| [port("a", n), port("b", n + 1)]);
        let rows: Rows<Port> = woven.chain([port("a", 5)]).collect();
        let heads: Vec<_> = rows
            .heads()
            .map(|(p, more)| (p.of.as_str(), p.port, more))
            .collect();
        assert_eq!(heads, [("a", 1000, 999), ("b", 1001, 999), ("a", 5, 0)]);
        let all: Vec<Port> = rows.iter().collect();
        assert_eq!(all.len(), 2001);
        assert_eq!(
            (&all[999], &all[1000]),
            (&port("a", 1999), &port("b", 1001))
        );
        let end: Rows<Port> = [port("a", 65535), port("a", 0)].into_iter().collect();
        assert_eq!(end.iter().count(), 2);
        assert_eq!(end.heads().count(), 2);
    }

    #[test]
    fn one_alone_is_written_as_ever() {
        let rows: Rows<Port> = [port("a", 1), port("a", 2), port("b", 9)]
            .into_iter()
            .collect();
        let text = serde_json::to_string(&rows).unwrap();
        assert_eq!(
            text,
            r#"[{"of":"a","port":1,"more":1},{"of":"b","port":9}]"#
        );
        assert_eq!(serde_json::from_str::<Rows<Port>>(&text).unwrap(), rows);
    }
}
