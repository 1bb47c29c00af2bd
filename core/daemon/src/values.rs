//! Values as they are written on the command line, turned into what the configuration file would hold.

use serde_json::{Value, json};

/// Go's words for truth.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("parsing {text:?}: invalid syntax")),
    }
}

/// A decimal integer.
pub(crate) fn integer(text: &str) -> Result<Value, String> {
    text.parse::<i64>()
        .map(Value::from)
        .map_err(|_| format!("parsing {text:?}: invalid syntax"))
}

/// A size in bytes with Docker's binary units: `64m`, `1.5GiB`, `512`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(invalid()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(invalid);
    }
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let bytes = number * (1u64 << shift) as f64;
    if !(0.0..i64::MAX as f64).contains(&bytes) {
        return Err(invalid());
    }
    // Within the range just checked.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(bytes as u64)
}

/// `key=value`; without `=`, the value is empty.
#[allow(clippy::unnecessary_wraps)] // The shape of a clap value parser.
pub(crate) fn pair(text: &str) -> Result<Value, String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    Ok(json!({ key: value }))
}

/// `nofile=1024:2048`.
pub(crate) fn ulimit(text: &str) -> Result<Value, String> {
    let invalid = || format!("invalid ulimit argument: {text}");
    let (name, limits) = text.split_once('=').ok_or_else(invalid)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let soft: i64 = soft.parse().map_err(|_| invalid())?;
    let hard: i64 = hard.parse().map_err(|_| invalid())?;
    if hard >= 0 && (soft > hard || soft < 0) {
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        ));
    }
    Ok(json!({ name: {"Name": name, "Soft": soft, "Hard": hard} }))
}

/// `base=172.30.0.0/16,size=24`.
pub(crate) fn pool(text: &str) -> Result<Value, String> {
    let invalid = || format!("invalid default address pool: {text}");
    let (mut base, mut size) = (None, None);
    for field in text.split(',') {
        match field.split_once('=').ok_or_else(invalid)? {
            ("base", value) => base = Some(value),
            ("size", value) => size = value.parse::<u8>().ok(),
            _ => return Err(invalid()),
        }
    }
    match (base, size) {
        (Some(base), Some(size)) => Ok(json!({"base": base, "size": size})),
        _ => Err(invalid()),
    }
}

/// `crun=/usr/bin/crun`.
pub(crate) fn runtime(text: &str) -> Result<Value, String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok(json!({ name: {"path": path} }))
        }
        _ => Err(format!("invalid runtime argument: {text}")),
    }
}

/// `bridge=com.docker.network.driver.mtu=1400`.
pub(crate) fn network_option(text: &str) -> Result<Value, String> {
    let invalid = || format!("invalid default network option: {text}");
    let (driver, option) = text.split_once('=').ok_or_else(invalid)?;
    let (key, value) = option.split_once('=').ok_or_else(invalid)?;
    Ok(json!({ driver: { key: value } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", 0),
            ("512", 512),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("1.5g", 3 << 29),
            ("1 KiB", 1024),
        ] {
            assert_eq!(bytes(text), Ok(want), "{text}");
        }
        for bad in ["", "m", "1x", "-1", "1.2.3", "99999999999999999999p"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refusals() {
        assert!(ulimit("nofile").is_err());
        assert!(ulimit("nofile=2:1").is_err());
        assert!(ulimit("core=-1").is_ok());
        assert!(pool("base=10.0.0.0/8").is_err());
        assert!(runtime("x=").is_err());
        assert!(network_option("bridge=a").is_err());
        assert!(boolean("yes").is_err());
    }
}
