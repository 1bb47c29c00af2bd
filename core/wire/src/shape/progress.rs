//! Progress lines of versions before 1.52, which repeated in words what the details say in numbers.

use crate::{ApiVersion, JsonMessage, ProgressDetail};

/// The line as `version` knows it: up to 1.51 with `error` and with the bar as text.
#[must_use]
pub fn json_message(version: ApiVersion, mut message: JsonMessage) -> JsonMessage {
    if version >= ApiVersion::new(1, 52) {
        return message;
    }
    if message.error.is_none() {
        message.error = message.error_detail.as_ref().map(|d| d.message.clone());
    }
    if message.progress.is_none() {
        message.progress = message.progress_detail.as_ref().and_then(bar);
    }
    message
}

/// The bar of a client that does not know its terminal: fifty characters and the counts.
fn bar(detail: &ProgressDetail) -> Option<String> {
    if detail.current <= 0 && detail.total <= 0 {
        return None;
    }
    if detail.total <= 0 {
        return Some(format!("{:>8}", amount(detail.current, &detail.units)));
    }
    let percent = (i128::from(detail.current) * 100 / i128::from(detail.total)).clamp(0, 100) / 2;
    let done = usize::try_from(percent).unwrap_or_default();
    let mut bar = format!("[{}>{}]", "=".repeat(done), " ".repeat(50 - done));
    if !detail.hide_counts && detail.current <= detail.total {
        bar.push_str(&format!(
            " {:>8}/{}",
            amount(detail.current, &detail.units),
            amount(detail.total, &detail.units)
        ));
    }
    Some(bar)
}

/// A count with its unit; bytes in decimal units with four digits, as go-units writes them.
fn amount(count: i64, units: &str) -> String {
    if !units.is_empty() {
        return format!("{count} {units}");
    }
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    #[allow(clippy::cast_precision_loss)]
    let mut size = count as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    format!("{}{}", four_digits(size), UNITS[unit])
}

/// Go's `%.4g` for numbers from 0 to 1000.
fn four_digits(number: f64) -> String {
    let before_point = if number >= 100.0 {
        3
    } else if number >= 10.0 {
        2
    } else {
        1
    };
    let text = format!("{number:.*}", 4 - before_point);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        let message = JsonMessage::progress("a", "Downloading", Some((1_234_567, 2_000_000)));
        let old = json_message(ApiVersion::new(1, 51), message.clone());
        assert_eq!(
            old.progress.as_deref(),
            Some("[==============================>                    ]  1.235MB/2MB")
        );
        assert_eq!(
            json_message(ApiVersion::new(1, 52), message.clone()),
            message
        );
        let uncounted = JsonMessage::progress("a", "Waiting", None);
        assert_eq!(
            json_message(ApiVersion::new(1, 51), uncounted.clone()),
            uncounted
        );
        assert_eq!(
            serde_json::to_string(&uncounted).unwrap(),
            r#"{"status":"Waiting","progressDetail":{},"id":"a"}"#
        );
    }

    #[test]
    fn errors_are_said_twice() {
        let old = json_message(ApiVersion::MAX, JsonMessage::error("no"));
        assert_eq!(
            serde_json::to_string(&old).unwrap(),
            r#"{"errorDetail":{"message":"no"},"error":"no"}"#
        );
    }

    #[test]
    fn sizes() {
        for (count, want) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (68_440, "68.44kB"),
            (1_500_000_000, "1.5GB"),
        ] {
            assert_eq!(amount(count, ""), want);
        }
    }
}
