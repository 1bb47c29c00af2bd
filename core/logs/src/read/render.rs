//! A line as a client wants to see it.

use std::collections::BTreeMap;

use gantry_model::Timestamp;

use super::cursor::Next;
use crate::entry::Entry;

/// What a client wants to see.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// From this time on (nanoseconds since the epoch).
    pub since: Option<i64>,
    /// Until this time.
    pub until: Option<i64>,
    /// The time before each line.
    pub timestamps: bool,
    /// The attributes before each line.
    pub details: bool,
    /// Frames as Docker multiplexes two streams (`{1|2,0,0,0,len: u32 BE}` before each line), instead of bare text.
    pub framed: bool,
    /// Lines of one stream that follow each other may share a frame. Many clients take a frame for a line, so this is for
    /// those that are known to put the stream together again.
    pub joined: bool,
}

impl View {
    /// A time as [`View::since`] and [`View::until`] take it; `None` for Go's zero time.
    #[must_use]
    pub fn time(time: Timestamp) -> Option<i64> {
        let nanos = time.nanoseconds();
        let clamped = i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX });
        (!time.is_zero()).then_some(clamped)
    }
}

/// Turns lines of the log into bytes for a client.
#[derive(Debug)]
pub(super) struct Renderer {
    view: View,
    /// The last attributes, as they are in the log and as they are shown: they hardly ever change.
    details: (Vec<u8>, String),
    /// Where the last frame begins, and which stream it is of.
    frame: (usize, bool),
}

/// Bytes of a frame's header.
const HEADER: usize = 8;

/// A frame with this many bytes takes no further line.
const JOINED: usize = 16 << 10;

impl Renderer {
    pub(super) fn new(view: View) -> Self {
        Self {
            view,
            details: Default::default(),
            frame: (0, false),
        }
    }

    /// Appends what the client is to see of a line.
    pub(super) fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> Next {
        let Some(entry) = Entry::parse(line) else {
            return Next::Line;
        };
        let view = &self.view;
        if view.since.is_some() || view.until.is_some() {
            let time = entry.nanos();
            if view.until.is_some_and(|until| time > until) {
                return Next::Stop;
            }
            if view.since.is_some_and(|since| time < since) {
                return Next::Line;
            }
        }
        let wanted = if entry.stderr {
            view.stderr
        } else {
            view.stdout
        };
        if !wanted {
            return Next::Line;
        }
        if view.framed {
            self.begin(entry.stderr, out);
        }
        let view = &self.view;
        if view.timestamps {
            fixed_width(entry.time, out);
            out.push(b' ');
        }
        if view.details {
            self.attributes(entry.attrs.unwrap_or_default(), out);
        }
        entry.text_into(out);
        if self.view.framed {
            // A line is far shorter than 4 GiB.
            let (head, _) = self.frame;
            let length = (out.len() - head - HEADER) as u32;
            out[head + 4..head + HEADER].copy_from_slice(&length.to_be_bytes());
        }
        Next::Line
    }

    /// Begins a frame, unless the last one takes another line.
    fn begin(&mut self, stderr: bool, out: &mut Vec<u8>) {
        let (head, of) = self.frame;
        // What was begun in an earlier piece has gone with it.
        let open = !out.is_empty() && of == stderr && out.len() - head < JOINED;
        if !(self.view.joined && open) {
            self.frame = (out.len(), stderr);
            out.extend_from_slice(&[1 + u8::from(stderr), 0, 0, 0, 0, 0, 0, 0]);
        }
    }

    fn attributes(&mut self, attrs: &[u8], out: &mut Vec<u8>) {
        let (of, text) = &mut self.details;
        if of != attrs {
            *of = attrs.to_owned();
            let pairs: BTreeMap<String, String> = serde_json::from_slice(attrs).unwrap_or_default();
            let pairs: Vec<String> = pairs
                .iter()
                .map(|(key, value)| format!("{}={}", escape(key), escape(value)))
                .collect();
            *text = pairs.join(",");
        }
        out.extend_from_slice(text.as_bytes());
        out.push(b' ');
    }
}

/// The time with all nine decimals, so that lines align.
fn fixed_width(time: &[u8], out: &mut Vec<u8>) {
    let body = time.strip_suffix(b"Z").unwrap_or(time);
    let point = memchr::memchr(b'.', body).unwrap_or(body.len());
    let decimals = body.get(point + 1..).unwrap_or_default();
    out.extend_from_slice(&body[..point]);
    out.push(b'.');
    out.extend_from_slice(decimals);
    out.extend(std::iter::repeat_n(
        b'0',
        9usize.saturating_sub(decimals.len()),
    ));
    out.push(b'Z');
}

/// Go's `url.QueryEscape`, with which Docker writes attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            b' ' => escaped.push('+'),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] =
        br#"{"log":"a\u003cb\n","stream":"stderr","attrs":{"k":"v w"},"time":"2024-05-06T07:08:09.12Z"}"#;

    fn view(change: impl FnOnce(&mut View)) -> View {
        let mut view = View {
            stdout: true,
            stderr: true,
            ..View::default()
        };
        change(&mut view);
        view
    }

    fn shown(view: View) -> (Next, String) {
        let mut out = Vec::new();
        let next = Renderer::new(view).line(LINE, &mut out);
        (next, String::from_utf8(out).unwrap())
    }

    #[test]
    fn forms() {
        assert_eq!(shown(view(|_| {})), (Next::Line, "a<b\n".into()));
        let framed = view(|v| v.framed = true);
        assert_eq!(
            shown(framed),
            (Next::Line, "\x02\0\0\0\0\0\0\x04a<b\n".into())
        );
        let all = view(|v| (v.timestamps, v.details) = (true, true));
        assert_eq!(shown(all).1, "2024-05-06T07:08:09.120000000Z k=v+w a<b\n");
        assert_eq!(
            shown(view(|v| v.stderr = false)),
            (Next::Line, String::new())
        );
    }

    #[test]
    fn lines_may_share_a_frame() {
        let other = LINE.to_owned();
        let other = String::from_utf8(other)
            .unwrap()
            .replace("stderr", "stdout");
        let joined = view(|v| (v.framed, v.joined) = (true, true));
        let mut renderer = Renderer::new(joined);
        let mut out = Vec::new();
        for line in [LINE, LINE, other.as_bytes(), LINE] {
            renderer.line(line, &mut out);
        }
        assert_eq!(
            out,
            b"\x02\0\0\0\0\0\0\x08a<b\na<b\n\x01\0\0\0\0\0\0\x04a<b\n\x02\0\0\0\0\0\0\x04a<b\n"
        );
        let mut next = Vec::new();
        renderer.line(LINE, &mut next);
        assert_eq!(
            next, b"\x02\0\0\0\0\0\0\x04a<b\n",
            "a piece stands for itself"
        );
    }

    #[test]
    fn times() {
        let at = |text: &str| View::time(text.parse().unwrap());
        assert_eq!(View::time(Timestamp::zero()), None);
        let later = at("2024-05-06T07:08:10Z");
        assert_eq!(
            shown(view(|v| v.since = later)),
            (Next::Line, String::new())
        );
        let same = at("2024-05-06T07:08:09.12Z");
        assert_eq!(shown(view(|v| v.since = same)).1, "a<b\n");
        assert_eq!(shown(view(|v| v.until = same)).1, "a<b\n");
        let before = at("2024-05-06T07:08:09Z");
        assert_eq!(shown(view(|v| v.until = before)).0, Next::Stop);
        let torn = Renderer::new(view(|_| {})).line(b"{\"log\":\"torn", &mut Vec::new());
        assert_eq!(torn, Next::Line);
    }
}
