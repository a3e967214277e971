//! The first look at an offer: lines, sizes, order (RFC 8866 §5).
//!
//! The `sdp` crate refuses whole descriptions for things that do not matter here (a new media type, an odd `b=` line, the
//! order of `s=` and `t=`), without naming the line. So the lines are checked first, and what the crate is handed holds
//! only what counts: `v=`, `o=`, `s=`, `t=`, `m=` and the attributes.

use super::SdpError;
use media_core::negotiation::MAX_REMOTE_CANDIDATES;

/// SDP-06
const MAX_SECTIONS: usize = 64;
const MAX_ATTRIBUTES: usize = 256;
const MAX_LINE: usize = 8 * 1024;

/// One m-line, split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MediaLine {
    /// Line number, counted from 1.
    pub(crate) line: usize,
    pub(crate) media: String,
    pub(crate) port: u16,
    pub(crate) protocol: String,
    pub(crate) formats: Vec<String>,
}

/// An offer whose lines are in order.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The text for the `sdp` crate. Its m-lines stand in order, with a neutral media type and protocol.
    pub(crate) text: String,
    pub(crate) media: Vec<MediaLine>,
}

/// Checks the lines of an offer.
pub(crate) fn check(body: &[u8]) -> Result<Checked, SdpError> {
    let mut description = Description::default();
    let mut blank = None;
    let mut number = 0;
    for raw in body.split(|&byte| byte == b'\n') {
        number += 1;
        let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
        if raw.is_empty() {
            blank = blank.or(Some(number));
            continue;
        }
        if let Some(blank) = blank {
            return Err(SdpError::syntax(blank, "an empty line inside the description"));
        }
        let (key, value) = split_line(number, raw)?;
        description.take(number, key, value)?;
    }
    description.finish(number)
}

/// Splits one line, without its end, at the `=`.
fn split_line(number: usize, raw: &[u8]) -> Result<(&str, &str), SdpError> {
    if raw.len() > MAX_LINE {
        return Err(SdpError::syntax(number, "longer than 8 KiB"));
    }
    let Ok(line) = std::str::from_utf8(raw) else {
        return Err(SdpError::syntax(number, "not UTF-8"));
    };
    if line.chars().any(|c| c.is_control() && c != '\t') {
        return Err(SdpError::syntax(number, "a control character"));
    }
    let Some((key, value)) = line.split_once('=').filter(|(key, _)| key.len() == 1) else {
        return Err(SdpError::syntax(number, "not of the form `x=…`"));
    };
    if number == 1 && line.trim_end() != "v=0" {
        return Err(SdpError::syntax(1, "the first line must be `v=0`"));
    }
    Ok((key, value))
}

/// What the lines so far have said.
#[derive(Default)]
struct Description {
    origin: Option<String>,
    name_seen: bool,
    timing: Option<String>,
    /// Attribute lines of the session.
    session: String,
    /// All lines from the first m-line on.
    sections: String,
    media: Vec<MediaLine>,
    /// In the current section.
    attributes: usize,
    candidates: usize,
}

impl Description {
    fn take(&mut self, number: usize, key: &str, value: &str) -> Result<(), SdpError> {
        match key {
            "v" if number == 1 => {}
            "o" if self.media.is_empty() => self.origin = Some(check_origin(number, value)?),
            "s" if self.media.is_empty() => self.name_seen = true,
            "t" if self.media.is_empty() => self.timing = Some(check_timing(number, value)?),
            "v" | "o" | "s" | "t" => {
                return Err(SdpError::syntax(number, "a line that may stand only once, at the top"));
            }
            "m" => self.take_media(number, value)?,
            "a" => self.take_attribute(number, value)?,
            // c=, b=, i=, k=, u=, e=, p=, r=, z= say nothing to a WebRTC server (SDP-03).
            _ if key.bytes().all(|byte| byte.is_ascii_lowercase()) => {}
            _ => return Err(SdpError::syntax(number, "a line type that SDP does not have")),
        }
        Ok(())
    }

    fn take_media(&mut self, number: usize, value: &str) -> Result<(), SdpError> {
        if self.media.len() == MAX_SECTIONS {
            return Err(SdpError::syntax(number, "more than 64 m-lines"));
        }
        let line = media_line(number, value)?;
        // The real type and protocol stay in `media`; the crate knows only some of each.
        self.sections.push_str("m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n");
        self.media.push(line);
        self.attributes = 0;
        Ok(())
    }

    fn take_attribute(&mut self, number: usize, value: &str) -> Result<(), SdpError> {
        self.attributes += 1;
        if self.attributes > MAX_ATTRIBUTES {
            return Err(SdpError::syntax(number, "more than 256 attributes in one section"));
        }
        if value.starts_with("candidate:") {
            self.candidates += 1;
            if self.candidates > MAX_REMOTE_CANDIDATES {
                return Err(SdpError::syntax(number, "more than 100 candidates"));
            }
        }
        let text = if self.media.is_empty() { &mut self.session } else { &mut self.sections };
        text.push_str("a=");
        text.push_str(value);
        text.push_str("\r\n");
        Ok(())
    }

    /// The end, after `last` lines.
    fn finish(self, last: usize) -> Result<Checked, SdpError> {
        let missing = |what: &str| SdpError::syntax(last, &format!("the description ends without `{what}=`"));
        let origin = self.origin.ok_or_else(|| missing("o"))?;
        let timing = self.timing.ok_or_else(|| missing("t"))?;
        if !self.name_seen {
            return Err(missing("s"));
        }
        if self.media.is_empty() {
            return Err(missing("m"));
        }
        let (session, sections) = (self.session, self.sections);
        Ok(Checked {
            text: format!("v=0\r\no={origin}\r\ns=-\r\nt={timing}\r\n{session}{sections}"),
            media: self.media,
        })
    }
}

/// Six fields; ids beyond 64 bits, which the crate does not take, are as good as any other.
fn check_origin(number: usize, value: &str) -> Result<String, SdpError> {
    let fields: Vec<&str> = value.split_ascii_whitespace().collect();
    let [user, id, version, network, family, address] = fields[..] else {
        return Err(SdpError::syntax(number, "`o=` needs six fields"));
    };
    let numeric = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !numeric(id) || !numeric(version) {
        return Err(SdpError::syntax(number, "session id and version of `o=` must be numbers"));
    }
    if network != "IN" || !matches!(family, "IP4" | "IP6") {
        return Err(SdpError::syntax(number, "`o=` must name IN IP4 or IN IP6"));
    }
    let small = |text: &str| text.parse().unwrap_or(u64::MAX);
    Ok(format!("{user} {} {} {network} {family} {address}", small(id), small(version)))
}

fn check_timing(number: usize, value: &str) -> Result<String, SdpError> {
    let fields: Vec<&str> = value.split_ascii_whitespace().collect();
    match fields[..] {
        [start, stop] if start.parse::<u64>().is_ok() && stop.parse::<u64>().is_ok() => Ok(format!("{start} {stop}")),
        _ => Err(SdpError::syntax(number, "`t=` needs two numbers")),
    }
}

fn media_line(number: usize, value: &str) -> Result<MediaLine, SdpError> {
    let mut fields = value.split_ascii_whitespace();
    let (Some(media), Some(port), Some(protocol)) = (fields.next(), fields.next(), fields.next()) else {
        return Err(SdpError::syntax(number, "`m=` needs media, port, protocol and formats"));
    };
    let Some(port) = port.split('/').next().and_then(|port| port.parse().ok()) else {
        return Err(SdpError::syntax(number, "the port of `m=` must be a number up to 65535"));
    };
    let formats: Vec<String> = fields.map(str::to_owned).collect();
    if formats.is_empty() {
        return Err(SdpError::syntax(number, "`m=` names no format"));
    }
    let token = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !token(media) || !token(protocol) || !formats.iter().all(|format| token(format)) {
        return Err(SdpError::syntax(number, "`m=` must be ASCII"));
    }
    Ok(MediaLine { line: number, media: media.to_owned(), port, protocol: protocol.to_owned(), formats })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n";

    fn detail(text: &str) -> String {
        check(text.as_bytes()).map(|_| ()).unwrap_err().detail
    }

    // SDP-01
    #[test]
    fn line_ends_may_be_bare_or_missing_at_the_end() {
        assert!(check(GOOD.as_bytes()).is_ok());
        assert!(check(GOOD.replace("\r\n", "\n").as_bytes()).is_ok());
        assert!(check(GOOD.trim_end().as_bytes()).is_ok());
        assert!(check(format!("{GOOD}\r\n\r\n\n").as_bytes()).is_ok());
        assert!(detail(&GOOD.replace("s=-\r\n", "s=-\r\n\r\n")).starts_with("line 4: an empty line"));
        assert!(detail(&GOOD.replace("s=-", "s=\0")).starts_with("line 3: a control"));
        assert!(detail(&GOOD.replace("a=mid:0", "mid")).starts_with("line 6: not of the form"));
        assert!(check(b"v=0\r\n\xff").is_err());
    }

    // SDP-02
    #[test]
    fn required_lines_are_missed_by_name_and_their_order_does_not_matter() {
        for (line, what) in [("o=- 1 1 IN IP4 127.0.0.1\r\n", "`o=`"), ("s=-\r\n", "`s=`"), ("t=0 0\r\n", "`t=`")] {
            assert!(detail(&GOOD.replace(line, "")).contains(what));
        }
        assert!(detail(GOOD.split("m=").next().unwrap()).contains("`m=`"));
        assert!(detail(&GOOD.replace("v=0\r\n", "")).starts_with("line 1:"));
        assert!(check(GOOD.replace("s=-\r\nt=0 0", "t=0 0\r\ns=-").as_bytes()).is_ok());
    }

    // SDP-03
    #[test]
    fn lines_that_say_nothing_to_us_are_passed_over() {
        let text = GOOD.replace("t=0 0\r\n", "i=x\r\nu=no url\r\nb=X-ODD:a\r\nk=clear:1\r\nt=0 0\r\n");
        let text = text.replace("m=audio", "m=hologram").replace("UDP/TLS/RTP/SAVPF", "TCP/XYZ");
        let checked = check(text.as_bytes()).unwrap();
        assert_eq!((checked.media[0].media.as_str(), checked.media[0].protocol.as_str()), ("hologram", "TCP/XYZ"));
        assert!(!checked.text.contains("hologram"));
    }

    // SDP-06
    #[test]
    fn sizes_are_bounded() {
        let section = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n";
        assert!(detail(&format!("{GOOD}{}", section.repeat(64))).contains("64 m-lines"));
        assert!(detail(&format!("{GOOD}{}", "a=x\r\n".repeat(256))).contains("256 attributes"));
        let candidate = "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";
        assert!(detail(&format!("{GOOD}{}", candidate.repeat(101))).contains("100 candidates"));
        assert!(detail(&format!("{GOOD}a={}", "x".repeat(8192))).contains("8 KiB"));
    }

    #[test]
    fn an_origin_beyond_64_bits_is_no_reason_to_refuse() {
        let text = GOOD.replace("o=- 1 1", "o=- 99999999999999999999999 1");
        assert!(check(text.as_bytes()).unwrap().text.contains("o=- 18446744073709551615 1"));
    }
}
