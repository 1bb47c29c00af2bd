//! `--cpus`, `--memory-swap`, `--ulimit`, `--restart`.

use anyhow::{Result, anyhow, bail};
use gantry_wire::spec::{RestartPolicy, Ulimit};

use crate::format::units::parse_size;

const NANO: i64 = 1_000_000_000;
const ULIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// A number of CPUs in billionths.
pub(crate) fn parse_cpus(text: &str) -> Result<i64, String> {
    let bad = || format!("failed to parse {text} as a rational number");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return Err(bad());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err("value is too precise".into());
    }
    let nanos: i64 = format!("{fraction:0<9}").parse().map_err(|_| bad())?;
    let whole: i64 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| bad())?
    };
    whole
        .checked_mul(NANO)
        .and_then(|whole| whole.checked_add(nanos))
        .ok_or_else(bad)
}

/// A size, or -1 for no limit.
pub(crate) fn parse_memory_swap(text: &str) -> Result<i64, String> {
    if text == "-1" {
        Ok(-1)
    } else {
        parse_size(text)
    }
}

/// `name=soft[:hard]`.
pub(crate) fn parse_ulimit(text: &str) -> Result<Ulimit, String> {
    let (name, limits) = text
        .split_once('=')
        .ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    if !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let (soft, hard) = limits
        .split_once(':')
        .map_or((limits, None), |(soft, hard)| (soft, Some(hard)));
    let number = |text: &str| {
        text.parse::<i64>()
            .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
    };
    let soft = number(soft)?;
    let hard = hard.map_or(Ok(soft), number)?;
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        ));
    }
    Ok(Ulimit {
        name: name.into(),
        hard,
        soft,
    })
}

/// `no`, `always`, `unless-stopped`, `on-failure[:COUNT]`; the daemon judges the name.
pub(crate) fn restart_policy(text: &str) -> Result<RestartPolicy> {
    let (name, count) = text
        .split_once(':')
        .map_or((text, None), |(name, count)| (name, Some(count)));
    if text.matches(':').count() > 1 {
        bail!("invalid restart policy format: maximum retry count must be an integer");
    }
    if name.is_empty() && count.is_some() {
        bail!("invalid restart policy format: no policy provided before colon");
    }
    let maximum_retry_count = match count {
        Some(count) => count.parse().map_err(|_| {
            anyhow!("invalid restart policy format: maximum retry count must be an integer")
        })?,
        None => 0,
    };
    Ok(RestartPolicy {
        name: name.into(),
        maximum_retry_count,
        unhealthy: None,
    })
}

/// Whether the policy is to leave the container where it ended.
pub(crate) fn is_never(policy: &RestartPolicy) -> bool {
    matches!(policy.name.as_str(), "" | "no")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_exact() {
        for (text, nanos) in [
            ("1.5", 1_500_000_000),
            ("2", 2_000_000_000),
            (".5", 500_000_000),
            ("0.000000001", 1),
        ] {
            assert_eq!(parse_cpus(text), Ok(nanos), "{text}");
        }
        assert_eq!(
            parse_cpus("0.0000000001"),
            Err("value is too precise".into())
        );
        assert!(parse_cpus("x").is_err());
        assert!(parse_cpus("-1").is_err());
    }

    #[test]
    fn ulimits_are_pairs() {
        assert_eq!(
            parse_ulimit("nofile=10:20").unwrap(),
            Ulimit {
                name: "nofile".into(),
                soft: 10,
                hard: 20
            }
        );
        assert_eq!(
            parse_ulimit("core=-1").unwrap(),
            Ulimit {
                name: "core".into(),
                soft: -1,
                hard: -1
            }
        );
        assert!(
            parse_ulimit("nofile=20:10")
                .unwrap_err()
                .contains("20 > 10")
        );
        assert_eq!(parse_ulimit("x=1"), Err("invalid ulimit type: x".into()));
    }

    #[test]
    fn restart_policies_count() {
        assert_eq!(
            restart_policy("on-failure:3").unwrap().maximum_retry_count,
            3
        );
        assert!(is_never(&restart_policy("no").unwrap()));
        for bad in ["on-failure:x", ":3", "a:b:c"] {
            assert!(restart_policy(bad).is_err(), "{bad}");
        }
    }
}
