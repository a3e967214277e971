//! Trickle fragments: `application/trickle-ice-sdpfrag` (RFC 8840 §9), as WHIP and WHEP clients really send them.

use media_core::negotiation::parse_candidate;

use crate::sdp::lines::{self, LineFault};

/// What a fragment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// Of the session part, or else of the first media part that has it.
    pub(crate) ufrag: Option<String>,
    /// Likewise.
    pub(crate) pwd: Option<String>,
    /// Candidates that Sluice can use, with the part that they stand in: as many as the body holds (F-08).
    pub(crate) candidates: Vec<(Part, String)>,
    /// The others: TCP, names, further components.
    pub(crate) unusable: usize,
    /// Some part says that no more will come.
    pub(crate) end_of_candidates: bool,
}

/// Where a candidate stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Before any m-line, or in a part without mid.
    Any,
    /// In the part of this mid, which may also be an m-line index.
    Mid(String),
}

/// Why a fragment does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FragmentError {
    #[error("line {0}: not UTF-8, or a control character")]
    NotText(usize),
    #[error("line {0}: not of the form `x=…`")]
    NotALine(usize),
    #[error("neither ICE credentials nor candidates nor an end marker")]
    Empty,
}

impl Fragment {
    /// Reads a fragment. The m-line only separates parts; unknown attributes and other line types are passed over.
    pub(crate) fn parse(body: &[u8]) -> Result<Fragment, FragmentError> {
        let mut fragment = Fragment::default();
        // Candidates that stand before the mid line of their part get it when the part ends.
        let (mut mid, mut part_start) = (None, 0);
        for (number, line) in lines::lines(body) {
            let (key, value) = lines::split_line(line).map_err(|fault| match fault {
                LineFault::NotText | LineFault::Control => FragmentError::NotText(number),
                LineFault::NotALine => FragmentError::NotALine(number),
            })?;
            if key == b'm' {
                fragment.close_part(part_start, mid.take());
                part_start = fragment.candidates.len();
            }
            if key != b'a' {
                continue;
            }
            let (name, value) = value.split_once(':').unwrap_or((&value, ""));
            match (name.trim(), value.trim()) {
                ("mid", value) => mid = Some(value.to_owned()),
                (name, value) => fragment.take_attribute(name, value),
            }
        }
        fragment.close_part(part_start, mid);
        let says_nothing = fragment.ufrag.is_none()
            && fragment.pwd.is_none()
            && fragment.candidates.is_empty()
            && fragment.unusable == 0
            && !fragment.end_of_candidates;
        if says_nothing { Err(FragmentError::Empty) } else { Ok(fragment) }
    }

    fn take_attribute(&mut self, name: &str, value: &str) {
        match (name, value) {
            ("ice-ufrag", value) => _ = self.ufrag.get_or_insert_with(|| value.to_owned()),
            ("ice-pwd", value) => _ = self.pwd.get_or_insert_with(|| value.to_owned()),
            // An empty candidate is the browser API's end marker; the misspelling is that of an old library (Q-26).
            ("end-of-candidates" | "end-of-candiadates", _) | ("candidate", "") => self.end_of_candidates = true,
            ("candidate", value) if parse_candidate(value).is_some() => {
                self.candidates.push((Part::Any, value.to_owned()));
            }
            ("candidate", _) => self.unusable += 1,
            _ => {}
        }
    }

    fn close_part(&mut self, start: usize, mid: Option<String>) {
        let Some(mid) = mid else { return };
        for (part, _) in self.candidates.iter_mut().skip(start) {
            *part = Part::Mid(mid.clone());
        }
    }
}

impl Part {
    /// True if the part is one of the session's: by mid, by m-line index, or unnamed (TRK-02).
    pub(crate) fn belongs_to(&self, mids: &[String]) -> bool {
        match self {
            Part::Any => true,
            Part::Mid(mid) => mids.contains(mid) || mid.parse::<usize>().is_ok_and(|index| index < mids.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROWSER: &str = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
        a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1\r\n\
        a=end-of-candidates\r\n";

    // TRK-01
    #[test]
    fn a_browsers_fragment_is_read() {
        let fragment = Fragment::parse(BROWSER.as_bytes()).unwrap();
        assert_eq!(fragment.ufrag.as_deref(), Some("EsAw"));
        assert_eq!(fragment.pwd.as_deref(), Some("P2uYro0UCOQ4zxjKXaWCBui1"));
        assert_eq!(fragment.candidates.len(), 1);
        assert_eq!(fragment.candidates[0].0, Part::Mid("0".to_owned()));
        assert!(fragment.end_of_candidates);
        assert_eq!(Fragment::parse(BROWSER.replace("\r\n", "\n").as_bytes()), Ok(fragment));
    }

    // TRK-01, Q-26
    #[test]
    fn old_librarys_variants_are_read() {
        let fragment = Fragment::parse(
            b"m=audio RTP/AVP 0\na=mid:video0\na=ice-ufrag:abcd\na=ice-pwd:0123456789012345678901\na=candidate:\na=end-of-candiadates",
        )
        .unwrap();
        assert!(fragment.end_of_candidates && fragment.candidates.is_empty());
        assert_eq!(fragment.ufrag.as_deref(), Some("abcd"));
    }

    // TRK-05
    #[test]
    fn an_end_marker_alone_is_enough() {
        assert!(Fragment::parse(b"a=end-of-candidates\r\n").unwrap().end_of_candidates);
        assert!(Fragment::parse(b"a=candidate:1 1 udp 1 192.0.2.1 9 typ host").is_ok());
    }

    // TRK-01
    #[test]
    fn a_fragment_that_says_nothing_or_is_no_text_is_refused() {
        assert_eq!(Fragment::parse(b"m=audio 9 x 0\r\na=mid:0\r\n"), Err(FragmentError::Empty));
        assert_eq!(Fragment::parse(b"\x80\xff"), Err(FragmentError::NotText(1)));
        assert_eq!(Fragment::parse(b"a=x\r\n{\"json\"}"), Err(FragmentError::NotALine(2)));
    }

    // F-08
    #[test]
    fn candidates_are_as_many_as_the_body_holds_and_unusable_ones_are_counted() {
        let many: String = (0..300)
            .map(|port| {
                format!(
                    "m=audio 9 x 0\na=candidate:1 1 udp 1 192.0.2.1 {} typ host\n\
                     a=candidate:1 1 tcp 1 192.0.2.1 9 typ host tcptype active\n",
                    port + 1024
                )
            })
            .collect();
        let fragment = Fragment::parse(many.as_bytes()).unwrap();
        assert_eq!((fragment.candidates.len(), fragment.unusable), (300, 300));
        assert!(Fragment::parse(b"a=candidate:1 1 udp 1 0a0b.local 9 typ host").is_ok());
    }

    // F-20
    #[test]
    fn white_space_around_lines_says_nothing() {
        let expected = Fragment::parse(BROWSER.as_bytes());
        for text in
            [format!("\u{feff}\r\n{BROWSER}\0"), BROWSER.replace("\r\n", " \r\n\r\n  "), BROWSER.replace("\r\n", "\r")]
        {
            assert_eq!(Fragment::parse(text.as_bytes()), expected, "{text:?}");
        }
    }

    // TRK-02
    #[test]
    fn parts_are_matched_by_mid_or_by_index() {
        let mids = ["audio0".to_owned(), "video1".to_owned()];
        for (mid, known) in [("audio0", true), ("1", true), ("7", false), ("video", false)] {
            assert_eq!(Part::Mid(mid.to_owned()).belongs_to(&mids), known, "{mid}");
        }
        assert!(Part::Any.belongs_to(&mids));
    }

    #[test]
    fn a_mid_after_its_candidates_still_names_them() {
        let fragment = Fragment::parse(
            b"a=candidate:1 1 udp 1 192.0.2.1 9 typ host\nm=x\na=candidate:2 1 udp 1 192.0.2.1 9 typ host\na=mid:7",
        )
        .unwrap();
        assert_eq!(fragment.candidates[0].0, Part::Any);
        assert_eq!(fragment.candidates[1].0, Part::Mid("7".to_owned()));
    }
}
