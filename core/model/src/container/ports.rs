//! Ports as the API writes them (`80/tcp`), with what belongs to each. Ten thousand in a row take as much room as one.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{EmptyObject, PortBinding};

/// `port/protocol` to host addresses; `None` (written `null`) for a port that is exposed but not published.
pub type PortMap = Ports<Option<Vec<PortBinding>>>;

/// A set of `port/protocol`.
pub type PortSet = Ports<EmptyObject>;

/// What can belong to a port.
pub trait PortValue: Clone + PartialEq {
    /// What belongs to the port that comes `by` ports later, if that is in a row with this one's; none where ports end.
    fn after(&self, by: u16) -> Option<Self>;
}

impl PortValue for EmptyObject {
    fn after(&self, _: u16) -> Option<Self> {
        Some(Self {})
    }
}

impl PortValue for Option<Vec<PortBinding>> {
    fn after(&self, by: u16) -> Option<Self> {
        let Some(bindings) = self else {
            return Some(None);
        };
        let after = |binding: &PortBinding| {
            let host_port = match number(&binding.host_port) {
                Some(port) => port.checked_add(by)?.to_string(),
                // A range, or any port.
                None => binding.host_port.clone(),
            };
            Some(PortBinding {
                host_ip: binding.host_ip.clone(),
                host_port,
            })
        };
        bindings.iter().map(after).collect::<Option<_>>().map(Some)
    }
}

/// A port that is written in the one way that numbers are.
fn number(text: &str) -> Option<u16> {
    let port = text.parse().ok()?;
    (port != 0 && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0'))
        .then_some(port)
}

/// The number that a key begins with, and the rest.
fn parts(key: &str) -> Option<(u16, &str)> {
    let end = key.find('/').unwrap_or(key.len());
    let (port, rest) = key.split_at_checked(end)?;
    Some((number(port)?, rest))
}

/// A map from ports. In JSON, and by its methods, it is one from strings, in the order of their text; any string is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports<V> {
    /// By what follows the number, and the first port: the last port, and what belongs to the first. Rows are as long as
    /// they can be.
    rows: BTreeMap<String, BTreeMap<u16, (u16, V)>>,
    /// Keys that are not a port.
    others: BTreeMap<String, V>,
}

impl<V> Default for Ports<V> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            others: BTreeMap::new(),
        }
    }
}

impl<V: PortValue> Ports<V> {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.others.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        let rows = self.rows.values().flatten();
        let in_rows: usize = rows
            .map(|(first, (last, _))| usize::from(last - first) + 1)
            .sum();
        in_rows + self.others.len()
    }

    /// What belongs to a port.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<V> {
        let Some((port, rest)) = parts(key) else {
            return self.others.get(key).cloned();
        };
        let (first, (last, value)) = self.rows.get(rest)?.range(..=port).next_back()?;
        (port <= *last).then(|| value.after(port - first)).flatten()
    }

    /// Whether a port is there.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Adds a port, or changes what belongs to it.
    pub fn insert(&mut self, key: &str, value: V) {
        let Some((port, rest)) = parts(key) else {
            self.others.insert(key.to_owned(), value);
            return;
        };
        self.remove(key);
        if !self.rows.contains_key(rest) {
            self.rows.insert(rest.to_owned(), BTreeMap::new());
        }
        let Some(rows) = self.rows.get_mut(rest) else {
            return;
        };
        let (mut row, mut last) = ((port, value), port);
        // The row that begins behind it is a part of this one now, and this one of the row that ends before it.
        if let Some(next) = port.checked_add(1)
            && let Some((end, follows)) = rows.get(&next)
            && row.1.after(1).as_ref() == Some(follows)
        {
            last = *end;
            rows.remove(&next);
        }
        if let Some((first, (end, value))) = rows.range(..port).next_back()
            && end.checked_add(1) == Some(port)
            && value.after(port - first).as_ref() == Some(&row.1)
        {
            row = (*first, value.clone());
        }
        rows.insert(row.0, (last, row.1));
    }

    /// Removes a port; what belonged to it.
    pub fn remove(&mut self, key: &str) -> Option<V> {
        let Some((port, rest)) = parts(key) else {
            return self.others.remove(key);
        };
        let rows = self.rows.get_mut(rest)?;
        let (&first, &(last, _)) = rows.range(..=port).next_back()?;
        if last < port {
            return None;
        }
        let (_, value) = rows.remove(&first)?;
        let removed = value.after(port - first);
        if let Some(next) = port.checked_add(1).filter(|next| *next <= last)
            && let Some(value) = value.after(next - first)
        {
            rows.insert(next, (last, value));
        }
        if first < port {
            rows.insert(first, (port - 1, value));
        }
        if rows.is_empty() {
            self.rows.remove(rest);
        }
        removed
    }

    /// Changes what belongs to a port, the default if it is new.
    pub fn update(&mut self, key: &str, change: impl FnOnce(&mut V))
    where
        V: Default,
    {
        let mut value = self.get(key).unwrap_or_default();
        change(&mut value);
        self.insert(key, value);
    }

    /// Keeps those for which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        let gone: Vec<_> = self.keys().filter(|key| !keep(key)).collect();
        for key in gone {
            self.remove(&key);
        }
    }

    /// Every port.
    pub fn keys(&self) -> impl Iterator<Item = String> {
        self.sorted().into_iter().map(|entry| entry.key())
    }

    /// Every port with what belongs to it.
    pub fn iter(&self) -> impl Iterator<Item = (String, V)> {
        let all = self.sorted().into_iter();
        all.filter_map(|entry| Some((entry.key(), entry.value.after(entry.by)?)))
    }

    /// Every port in the order of the keys. It is one block of memory, which goes back as a whole: a string each would leave
    /// holes.
    fn sorted(&self) -> Vec<Entry<'_, V>> {
        let mut all = Vec::with_capacity(self.len());
        for (rest, rows) in &self.rows {
            for (first, (last, value)) in rows {
                all.extend((*first..=*last).map(|port| Entry {
                    port: Some(port),
                    rest,
                    value,
                    by: port - first,
                }));
            }
        }
        all.extend(self.others.iter().map(|(key, value)| Entry {
            port: None,
            rest: key,
            value,
            by: 0,
        }));
        all.sort_unstable_by(|a, b| a.bytes().cmp(b.bytes()));
        all
    }
}

/// A port, or another key.
struct Entry<'a, V> {
    port: Option<u16>,
    rest: &'a str,
    /// What its row begins with, and how far from there it is.
    value: &'a V,
    by: u16,
}

impl<V> Entry<'_, V> {
    fn key(&self) -> String {
        match self.port {
            Some(port) => format!("{port}{}", self.rest),
            None => self.rest.to_owned(),
        }
    }

    /// The key's.
    fn bytes(&self) -> impl Iterator<Item = u8> {
        let port = self.port.unwrap_or_default();
        let digits = [10_000, 1000, 100, 10, 1].into_iter();
        // Ports do not begin with a zero, and none is zero.
        let digits = digits
            .skip_while(move |unit| port < *unit)
            .map(move |unit| b'0' + (port / unit % 10) as u8);
        digits.chain(self.rest.bytes())
    }
}

impl<V: PortValue> FromIterator<(String, V)> for Ports<V> {
    fn from_iter<I: IntoIterator<Item = (String, V)>>(all: I) -> Self {
        let mut ports = Self::new();
        for (key, value) in all {
            ports.insert(&key, value);
        }
        ports
    }
}

impl<V: PortValue, const N: usize> From<[(String, V); N]> for Ports<V> {
    fn from(all: [(String, V); N]) -> Self {
        all.into_iter().collect()
    }
}

impl<V: PortValue + Serialize> Serialize for Ports<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, V: PortValue + Deserialize<'de>> Deserialize<'de> for Ports<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // What is wrong with a map is told by a map's reader.
        let map = BTreeMap::<String, V>::deserialize(deserializer)?;
        Ok(map.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(ip: &str, ports: &[&str]) -> Option<Vec<PortBinding>> {
        let binding = |port: &&str| PortBinding {
            host_ip: ip.into(),
            host_port: (*port).into(),
        };
        Some(ports.iter().map(binding).collect())
    }

    fn rows<V>(ports: &Ports<V>) -> usize {
        ports.rows.values().map(BTreeMap::len).sum()
    }

    #[test]
    fn ten_thousand_are_one_row_and_the_same_in_json() {
        let all: BTreeMap<String, _> = (10_000..=20_000_u16)
            .map(|port| {
                (
                    format!("{port}/udp"),
                    bound("", &[&(port + 1).to_string(), "0"]),
                )
            })
            .collect();
        let text = serde_json::to_string(&all).unwrap();
        let ports: PortMap = serde_json::from_str(&text).unwrap();
        assert_eq!((rows(&ports), ports.len()), (1, 10_001));
        assert_eq!(serde_json::to_string(&ports).unwrap(), text);
        assert_eq!(ports.get("15000/udp"), Some(bound("", &["15001", "0"])));
        assert!(!ports.contains_key("15000/tcp") && !ports.contains_key("9999/udp"));
    }

    #[test]
    fn any_order_and_any_key() {
        let keys = [
            "9/tcp",
            "8/tcp",
            "10/tcp",
            "80",
            "x",
            "08/tcp",
            "11/tcp",
            "80/",
            "0/tcp",
            "70000/tcp",
            "",
        ];
        let set: PortSet = keys
            .iter()
            .map(|key| ((*key).to_owned(), EmptyObject {}))
            .collect();
        let mut sorted = keys.to_vec();
        sorted.sort_unstable();
        assert_eq!(set.keys().collect::<Vec<_>>(), sorted);
        assert_eq!((rows(&set), set.len()), (3, keys.len()));
        let other: PortSet = sorted
            .iter()
            .rev()
            .map(|key| ((*key).to_owned(), EmptyObject {}))
            .collect();
        assert_eq!(set, other);
    }

    #[test]
    fn rows_break_and_heal() {
        let mut ports = PortMap::new();
        for port in 65_000..=65_535_u16 {
            ports.insert(&format!("{port}/tcp"), bound("::1", &[&port.to_string()]));
        }
        let whole = ports.clone();
        assert_eq!(ports.remove("65100/tcp"), Some(bound("::1", &["65100"])));
        assert_eq!((rows(&ports), ports.remove("65100/tcp")), (2, None));
        ports.update("65535/tcp", |value| *value = None);
        assert_eq!((rows(&ports), ports.get("65535/tcp")), (3, Some(None)));
        ports.retain(|key| key != "65000/tcp");
        assert_eq!(ports.len(), 534);
        for port in [65_000, 65_100, 65_535_u16] {
            ports.insert(&format!("{port}/tcp"), bound("::1", &[&port.to_string()]));
        }
        assert_eq!(ports, whole);
        ports.retain(|_| false);
        assert_eq!(ports, PortMap::new());
    }

    #[test]
    fn ports_that_share_one_of_the_host_are_no_row() {
        let ports: PortMap = [
            ("1/tcp".to_owned(), bound("", &["80"])),
            ("2/tcp".to_owned(), bound("", &["80"])),
        ]
        .into();
        assert_eq!(rows(&ports), 2);
        // Ports of the host end before those of the container.
        let end: PortMap = [
            ("1/tcp".to_owned(), bound("", &["65535"])),
            ("2/tcp".to_owned(), bound("", &["0"])),
        ]
        .into();
        assert_eq!((rows(&end), end.get("2/tcp")), (2, Some(bound("", &["0"]))));
    }
}
