//! Every linked crate is under a permissive licence; deny.toml has the list.

use anyhow::{Context, Result, ensure};
use cargo_metadata::Metadata;

/// Fails on the first crate none of whose licence alternatives is allowed.
pub(crate) fn check(metadata: &Metadata) -> Result<()> {
    let text = std::fs::read_to_string(metadata.workspace_root.join("deny.toml"))
        .context("reading deny.toml")?;
    let list = text
        .split_once("allow = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .context("deny.toml: allow")?
        .0;
    let allowed: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    for package in &metadata.packages {
        let licence = package.license.as_deref().unwrap_or_default();
        ensure!(
            permitted(licence, &allowed),
            "{} {}: licence {licence:?} is not in deny.toml",
            package.name,
            package.version
        );
    }
    Ok(())
}

/// Evaluates an SPDX expression of OR, AND and parentheses: some alternative with every part allowed.
fn permitted(expression: &str, allowed: &[&str]) -> bool {
    let expression = expression.replace('/', " OR ");
    let (mut depth, mut parts, mut part) = (0i32, Vec::new(), String::new());
    for token in expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .split_whitespace()
    {
        match token {
            "(" => depth += 1,
            ")" => depth -= 1,
            "OR" if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push_str(token);
        part.push(' ');
    }
    parts.push(part);
    if parts.len() > 1 {
        return parts.iter().any(|p| permitted(p, allowed));
    }
    let whole = parts[0].trim();
    if allowed.contains(&whole) {
        return true;
    }
    if let Some(inner) = whole.strip_prefix("( ").and_then(|w| w.strip_suffix(" )"))
        && !inner.contains('(')
    {
        return permitted(inner, allowed);
    }
    match whole.split_once(" AND ") {
        Some((left, right)) => permitted(left, allowed) && permitted(right, allowed),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::permitted;

    #[test]
    fn expressions() {
        let allowed = [
            "MIT",
            "Apache-2.0",
            "Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ];
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "MIT/Apache-2.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR X",
        ] {
            assert!(permitted(good, &allowed), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(GPL-2.0 OR X) AND MIT"] {
            assert!(!permitted(bad, &allowed), "{bad}");
        }
    }
}
