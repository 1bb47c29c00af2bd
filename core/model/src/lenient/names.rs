//! What Go calls types.

/// Go's name of a type, from Rust's.
pub(super) fn go_name(rust: &str) -> String {
    let inner = |prefix: &str| rust.strip_prefix(prefix)?.strip_suffix('>');
    if let Some(item) = inner("alloc::vec::Vec<") {
        return format!("[]{}", go_name(item));
    }
    if let Some(item) = inner("core::option::Option<") {
        return go_name(item);
    }
    if let Some(pair) = inner("alloc::collections::btree::map::BTreeMap<")
        && let Some((key, value)) = pair.split_once(", ")
    {
        return format!("map[{}]{}", go_name(key), go_name(value));
    }
    if let Some((item, length)) = rust.strip_prefix('[').and_then(|r| r.split_once("; ")) {
        return format!("[{}{}", length, go_name(item));
    }
    match rust.rsplit("::").next().unwrap_or(rust) {
        "String" => "string".into(),
        "StrSlice" => "[]string".into(),
        "EmptyObject" => "struct {}".into(),
        "i64" => "int64".into(),
        "u16" => "uint16".into(),
        "u32" => "uint".into(),
        "u64" => "uint64".into(),
        name => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::any::type_name;
    use std::collections::BTreeMap;

    use super::go_name;
    use crate::container::{Mount, StrSlice, StringSet};

    #[test]
    fn types() {
        for (rust, go) in [
            (type_name::<Vec<String>>(), "[]string"),
            (type_name::<Option<Vec<Mount>>>(), "[]Mount"),
            (
                type_name::<BTreeMap<String, Option<Vec<u64>>>>(),
                "map[string][]uint64",
            ),
            (type_name::<StringSet>(), "map[string]struct {}"),
            (type_name::<[u32; 2]>(), "[2]uint"),
            (type_name::<StrSlice>(), "[]string"),
            (type_name::<bool>(), "bool"),
            ("EmptyObject", "struct {}"),
        ] {
            assert_eq!(go_name(rust), go, "{rust}");
        }
    }
}
