//! Telling heads of requests that take the connection over without saying so.

/// What is to be done with bytes that may be the head of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not yet to be told.
    NeedMore,
    /// Nothing to do.
    Ordinary,
    /// Takes the connection over without saying so; the length of the request line.
    Bare { first_line: usize },
}

pub(super) fn judge(head: &[u8]) -> Verdict {
    const POST: &[u8] = b"POST /";
    if !head.starts_with(POST) {
        return if POST.starts_with(head) {
            Verdict::NeedMore
        } else {
            Verdict::Ordinary
        };
    }
    let Some(first_line) = memchr::memmem::find(head, b"\r\n") else {
        return Verdict::NeedMore;
    };
    if !takes_over(&head[..first_line]) {
        return Verdict::Ordinary;
    }
    let Some(end) = memchr::memmem::find(head, b"\r\n\r\n") else {
        return Verdict::NeedMore;
    };
    let upgrades = head[..end]
        .split(|byte| *byte == b'\n')
        .any(|line| line.len() > 8 && line[..8].eq_ignore_ascii_case(b"upgrade:"));
    if upgrades {
        Verdict::Ordinary
    } else {
        Verdict::Bare {
            first_line: first_line + 2,
        }
    }
}

/// Whether a request line is `POST [/version]/containers/{id}/attach` or `POST [/version]/exec/{id}/start`.
fn takes_over(line: &[u8]) -> bool {
    let Ok(line) = std::str::from_utf8(line) else {
        return false;
    };
    let mut words = line.split(' ');
    let (_, Some(target), Some("HTTP/1.1"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return false;
    };
    let path = target.split('?').next().unwrap_or_default();
    let mut parts: Vec<&str> = path.split('/').skip(1).collect();
    if parts.first().is_some_and(|part| {
        part.strip_prefix('v')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    }) {
        parts.remove(0);
    }
    matches!(
        parts[..],
        ["containers", _, "attach"] | ["exec", _, "start"]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bare_hijacks_are_completed() {
        let head = |line: &str, headers: &str| format!("{line}\r\nHost: x\r\n{headers}\r\n");
        for line in [
            "POST /v1.24/containers/a/attach?stream=1 HTTP/1.1",
            "POST /exec/b/start HTTP/1.1",
        ] {
            let bare = head(line, "");
            assert_eq!(
                judge(bare.as_bytes()),
                Verdict::Bare {
                    first_line: line.len() + 2
                }
            );
            for cut in 0..bare.len() {
                assert_eq!(
                    judge(&bare.as_bytes()[..cut]),
                    Verdict::NeedMore,
                    "{:?}",
                    &bare[..cut]
                );
            }
            assert_eq!(
                judge(head(line, "upgrade: tcp\r\n").as_bytes()),
                Verdict::Ordinary
            );
        }
        for line in [
            "POST /containers/a/start HTTP/1.1",
            "GET /containers/a/attach HTTP/1.1",
            "POST /containers/a/attach HTTP/1.0",
            "POST /x/containers/a/attach HTTP/1.1",
            "PRI * HTTP/2.0",
        ] {
            assert_eq!(
                judge(head(line, "").as_bytes()),
                Verdict::Ordinary,
                "{line}"
            );
        }
    }
}
