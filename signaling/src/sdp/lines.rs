//! The first look at an offer: lines, sizes, sections (RFC 8866 §5).
//!
//! The `sdp` crate refuses whole descriptions for things that do not matter here (a new media type, an odd `b=` line, an
//! origin without address, the order of `s=` and `t=`), without naming the line. So the lines are looked at first, and what
//! the crate is handed holds only what counts: the m-lines and the attributes.

use std::borrow::Cow;

use super::SdpError;

/// SDP-06
const MAX_SECTIONS: usize = 64;
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

/// Why a line cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineFault {
    /// Not of the form `x=…`, and not even UTF-8.
    NotText,
    /// A control character.
    Control,
    /// Not of the form `x=…`.
    NotALine,
}

/// The lines of a description or a trickle fragment that say anything, with their numbers from 1: without blank lines, a
/// byte order mark, and the NUL at the end of a C string; each without the white space around it. Lines end with LF, CRLF,
/// or all with CR.
pub(crate) fn lines(body: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let end = body.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let body = &body[..end];
    let separator = if body.contains(&b'\n') { b'\n' } else { b'\r' };
    let numbered = (1..).zip(body.split(move |&byte| byte == separator));
    numbered.map(|(number, line)| (number, line.trim_ascii())).filter(|(_, line)| !line.is_empty())
}

/// Splits a line at its `=`. Characters that are not UTF-8 are replaced: in what decides anything they fit nowhere, and
/// the rest, such as a session's name, may have any.
pub(crate) fn split_line(line: &[u8]) -> Result<(u8, Cow<'_, str>), LineFault> {
    let [key, b'=', value @ ..] = line else {
        return Err(if std::str::from_utf8(line).is_ok() { LineFault::NotALine } else { LineFault::NotText });
    };
    let value = String::from_utf8_lossy(value.trim_ascii());
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(LineFault::Control);
    }
    Ok((*key, value))
}

/// Checks the lines of an offer.
pub(crate) fn check(body: &[u8]) -> Result<Checked, SdpError> {
    let mut description = Description::default();
    let mut last = 1;
    for (number, line) in lines(body) {
        last = number;
        if !description.version_seen {
            check_version(number, line)?;
            description.version_seen = true;
        } else if line.len() > MAX_LINE {
            return Err(SdpError::syntax(number, "longer than 8 KiB"));
        } else {
            let (key, value) = split_line(line).map_err(|fault| SdpError::syntax(number, fault.as_str()))?;
            description.take(number, key, &value)?;
        }
    }
    description.finish(last)
}

impl LineFault {
    fn as_str(self) -> &'static str {
        match self {
            LineFault::NotText => "not UTF-8",
            LineFault::Control => "a control character",
            LineFault::NotALine => "not of the form `x=…`",
        }
    }
}

/// The first line tells SDP from other things that clients have sent.
fn check_version(number: usize, line: &[u8]) -> Result<(), SdpError> {
    let what = match line {
        [b'v', b'=', version @ ..] if version.trim_ascii() == b"0" => return Ok(()),
        [b'{' | b'"', ..] => "this is JSON; the body must be the SDP itself",
        [b'v', b'=', b'0', rest @ ..] if rest.windows(2).any(|two| two == b"m=") => {
            "the line ends are missing (curl keeps them with --data-binary)"
        }
        _ => "the first line must be `v=0`",
    };
    Err(SdpError::syntax(number, what))
}

/// What the lines so far have said.
#[derive(Default)]
struct Description {
    version_seen: bool,
    /// Attribute lines of the session.
    session: String,
    /// All lines from the first m-line on.
    sections: String,
    media: Vec<MediaLine>,
}

impl Description {
    fn take(&mut self, number: usize, key: u8, value: &str) -> Result<(), SdpError> {
        match key {
            b'm' => self.take_media(number, value)?,
            b'a' => self.take_attribute(value),
            // o=, s=, t=, c=, b=, i=, k=, u=, e=, p=, r=, z= say nothing to a WebRTC server, wherever they stand (SDP-03).
            _ => {}
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
        Ok(())
    }

    fn take_attribute(&mut self, value: &str) {
        let text = if self.media.is_empty() { &mut self.session } else { &mut self.sections };
        text.push_str("a=");
        text.push_str(value);
        text.push_str("\r\n");
    }

    /// The end, after `last` lines.
    fn finish(self, last: usize) -> Result<Checked, SdpError> {
        if !self.version_seen {
            return Err(SdpError::syntax(last, "nothing but white space"));
        }
        if self.media.is_empty() {
            return Err(SdpError::syntax(last, "the description ends without `m=`"));
        }
        let (session, sections) = (self.session, self.sections);
        Ok(Checked {
            text: format!("v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n{session}{sections}"),
            media: self.media,
        })
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
        assert!(detail(&GOOD.replace("s=-", "s=\0")).starts_with("line 3: a control"));
        assert!(detail(&GOOD.replace("a=mid:0", "mid")).starts_with("line 6: not of the form"));
        assert!(check(b"v=0\r\n\xff").is_err());
    }

    // F-20
    #[test]
    fn white_space_around_lines_says_nothing() {
        let good = check(GOOD.as_bytes()).unwrap();
        let numbered = |text: &str| text.replace("m=audio", "\r\n\r\nm=audio");
        for text in [
            numbered(GOOD),
            format!("\u{feff}{}", numbered(GOOD)),
            format!("\u{feff}{GOOD}\0").replace("m=audio", "\r\n \r\nm=audio"),
            GOOD.replace("\r\n", " \t\r\n").replace("m=audio", "\n\nm=audio"),
            GOOD.replace("\r\n", "\n    ").replace("m=audio", "\n\nm=audio"),
            numbered(GOOD).replace("\r\n", "\r"),
            GOOD.replace("a=mid:0", "a= mid:0").replace("v=0", "v= 0").replace("m=audio", "\n\n m= audio"),
        ] {
            let checked = check(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error:?}"));
            assert_eq!(checked.text, good.text, "{text:?}");
            assert_eq!(checked.media[0], MediaLine { line: 7, ..good.media[0].clone() }, "{text:?}");
        }
        let text = format!("\r\n\r\n{GOOD}");
        assert_eq!(check(text.as_bytes()).unwrap().media[0].line, 7);
    }

    // F-20, SDP-02
    #[test]
    fn origin_name_time_and_connection_may_be_odd_misplaced_or_missing() {
        let good = check(GOOD.as_bytes()).unwrap();
        let origin = "o=- 1 1 IN IP4 127.0.0.1";
        for (from, to) in [
            (origin, "o=- 1 1 IN "),
            (origin, "o="),
            (origin, "o=a user with spaces 1 1 IN IP4"),
            (origin, "o=- 99999999999999999999999 -1 ATM NSAP x"),
            ("o=- 1 1 IN IP4 127.0.0.1\r\n", ""),
            ("s=-\r\n", ""),
            ("t=0 0\r\n", ""),
            ("t=0 0", "t=now later"),
            ("s=-\r\nt=0 0", "t=0 0\r\ns=Gr\u{fc}\u{df}e"),
            ("t=0 0", "t=0 0\r\nr=7d 1h 0 25h\r\nz=0 0\r\nk=prompt\r\ne=a@b\r\np=+1\r\nX=y"),
            ("a=mid:0\r\n", "a=mid:0\r\nc=IN\r\ns=-\r\nt=0 0\r\no=x\r\nv=0\r\n"),
        ] {
            let checked = check(GOOD.replace(from, to).as_bytes()).unwrap_or_else(|error| panic!("{to:?}: {error:?}"));
            assert_eq!(checked.text, good.text, "{to:?}");
        }
        let latin1 = [&b"v=0\r\ns=Gr\xfc\xdfe\r\n"[..], &GOOD.as_bytes()[5..]].concat();
        assert_eq!(check(&latin1).unwrap().text, good.text);
    }

    // F-20: what is no SDP at all is said to be that.
    #[test]
    fn the_first_line_and_a_section_are_needed() {
        assert!(detail(GOOD.split("m=").next().unwrap()).contains("`m=`"));
        assert_eq!(detail(&GOOD.replace("v=0\r\n", "")), "line 1: the first line must be `v=0`");
        assert_eq!(detail("\r\nv=1\r\n"), "line 2: the first line must be `v=0`");
        assert_eq!(detail(" \r\n"), "line 1: nothing but white space");
        assert!(detail("{\"sdp\": \"v=0\"}").contains("JSON"));
        assert!(detail(&GOOD.replace("\r\n", "")).contains("--data-binary"));
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
        assert!(detail(&format!("{GOOD}a={}", "x".repeat(8192))).contains("8 KiB"));
    }

    // F-08
    #[test]
    fn attributes_are_as_many_as_the_body_holds() {
        let candidate = "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";
        for line in ["a=x\r\n", candidate] {
            let checked = check(format!("{GOOD}{}", line.repeat(1000)).as_bytes()).unwrap();
            assert_eq!(checked.text.matches(line).count(), 1000);
        }
    }
}
