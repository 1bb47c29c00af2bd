//! What the host's processors have done. Source: proc(5), `/proc/stat`.

/// Nanoseconds of one tick (`USER_HZ` is 100 wherever Linux runs).
const TICK: u64 = 10_000_000;

/// The host's processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// Time of all of them, idle time included, in nanoseconds.
    pub(super) cpu: u64,
    /// How many are online.
    pub(super) cpus: u64,
}

/// The host now; zeros where it does not tell.
pub(super) fn read() -> Host {
    parse(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
}

fn parse(text: &str) -> Host {
    let mut host = Host::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            // user, nice, system, idle, iowait, irq, softirq: what Docker adds up.
            Some("cpu") => {
                host.cpu = TICK * words.take(7).flat_map(str::parse::<u64>).sum::<u64>();
            }
            Some(word) if word.starts_with("cpu") => host.cpus += 1,
            _ => break,
        }
    }
    host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_fields_are_added_up() {
        let text = "cpu  1 2 3 4 5 6 7 800 900 1000\ncpu0 1 1\ncpu1 0 1\nintr 5 cpu\ncpu9 1\n";
        let host = parse(text);
        assert_eq!((host.cpu, host.cpus), (28 * TICK, 2));
        assert_eq!(parse(""), Host::default());
        assert!(read().cpu > 0);
    }
}
