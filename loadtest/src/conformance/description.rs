//! An SDP text as it stands, line by line: what a lenient parser would forgive has to be seen here.

use std::collections::BTreeSet;

/// One m-section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    /// Its `m=` line's words: medium, port, protocol and formats.
    pub(super) words: Vec<String>,
    /// The lines after it, without their ends.
    pub(super) lines: Vec<String>,
}

/// A description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) session: Vec<String>,
    pub(super) sections: Vec<Section>,
}

/// The directions of a section (RFC 8866 §6.7).
const DIRECTIONS: [&str; 4] = ["sendrecv", "sendonly", "recvonly", "inactive"];

impl Description {
    pub(super) fn read(text: &str) -> Description {
        let mut read = Description::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            match (line.strip_prefix("m="), read.sections.last_mut()) {
                (Some(words), _) => {
                    let words = words.split_whitespace().map(str::to_owned).collect();
                    read.sections.push(Section { words, lines: Vec::new() });
                }
                (None, Some(section)) => section.lines.push(line.to_owned()),
                (None, None) => read.session.push(line.to_owned()),
            }
        }
        read
    }

    /// The sections that carry media.
    pub(super) fn live(&self) -> impl Iterator<Item = &Section> {
        self.sections.iter().filter(|section| section.port() != "0")
    }

    /// The live section of a medium.
    pub(super) fn medium(&self, medium: &str) -> Option<&Section> {
        self.live().find(|section| section.medium() == medium)
    }

    /// The mids of `a=group:BUNDLE`, in their order.
    pub(super) fn bundle(&self) -> Vec<&str> {
        let group = self.session.iter().find_map(|line| line.strip_prefix("a=group:BUNDLE"));
        group.unwrap_or_default().split_whitespace().collect()
    }

    /// The first value of an attribute, of the session or of the first live section that has it.
    pub(super) fn first(&self, name: &str) -> Option<&str> {
        values(&self.session, name).next().or_else(|| self.live().find_map(|section| section.value(name)))
    }

    /// All values of an attribute, wherever it stands.
    pub(super) fn everywhere<'a>(&'a self, name: &str) -> Vec<&'a str> {
        let sections = self.sections.iter().flat_map(|section| section.values(name));
        values(&self.session, name).chain(sections).collect()
    }

    /// True if the session has this attribute without a value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.session.iter().any(|line| line.strip_prefix("a=") == Some(name))
    }

    /// The value that counts for a section: its own, else the session's.
    pub(super) fn of<'a>(&'a self, section: &'a Section, name: &str) -> Option<&'a str> {
        section.value(name).or_else(|| values(&self.session, name).next())
    }
}

impl Section {
    pub(super) fn medium(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    pub(super) fn port(&self) -> &str {
        self.words.get(1).map_or("", String::as_str)
    }

    pub(super) fn protocol(&self) -> &str {
        self.words.get(2).map_or("", String::as_str)
    }

    pub(super) fn formats(&self) -> &[String] {
        self.words.get(3..).unwrap_or_default()
    }

    pub(super) fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        values(&self.lines, name)
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        values(&self.lines, name).next()
    }

    /// True if it has this attribute without a value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.lines.iter().any(|line| line.strip_prefix("a=") == Some(name))
    }

    pub(super) fn mid(&self) -> &str {
        self.value("mid").unwrap_or_default()
    }

    pub(super) fn direction(&self) -> &str {
        DIRECTIONS.into_iter().find(|direction| self.has(direction)).unwrap_or("sendrecv")
    }

    /// Encoding and clock of a format, such as `VP8/90000`.
    pub(super) fn encoding(&self, format: &str) -> Option<&str> {
        self.values("rtpmap").find_map(|value| value.strip_prefix(format)?.strip_prefix(' '))
    }

    /// The format of an encoding's name, without case.
    pub(super) fn format_of(&self, name: &str) -> Option<&str> {
        let is = |format: &&String| {
            let encoding = self.encoding(format).and_then(|encoding| encoding.split('/').next());
            encoding.is_some_and(|encoding| encoding.eq_ignore_ascii_case(name))
        };
        self.formats().iter().find(is).map(String::as_str)
    }

    /// `a=rtcp-fb` as (format, feedback); `*` stands for each format.
    pub(super) fn feedback(&self) -> BTreeSet<(String, String)> {
        let mut all = BTreeSet::new();
        for (format, feedback) in self.values("rtcp-fb").filter_map(|value| value.split_once(' ')) {
            if format == "*" {
                all.extend(self.formats().iter().map(|format| (format.clone(), feedback.trim().to_owned())));
            } else {
                all.insert((format.to_owned(), feedback.trim().to_owned()));
            }
        }
        all
    }

    /// `a=extmap` as (id, URI), without directions.
    pub(super) fn extensions(&self) -> BTreeSet<(String, String)> {
        let pairs = self.values("extmap").filter_map(|value| {
            let (id, rest) = value.split_once(' ')?;
            Some((id.split('/').next()?.to_owned(), rest.split(' ').next()?.to_owned()))
        });
        pairs.collect()
    }

    /// The id under which an extension was agreed on.
    pub(super) fn extension(&self, uri: &str) -> Option<u8> {
        self.extensions().into_iter().find(|(_, known)| known == uri)?.0.parse().ok()
    }
}

fn values<'a>(lines: &'a [String], name: &str) -> impl Iterator<Item = &'a str> {
    lines.iter().filter_map(move |line| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read_line_by_line() {
        let text = "v=0\r\na=group:BUNDLE 0 1\r\na=ice-ufrag:abcd\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
                    a=recvonly\r\na=rtpmap:111 OPUS/48000/2\r\na=extmap:4/sendonly urn:x\r\n\
                    m=video 0 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\na=rtcp-fb:* nack\r\n";
        let read = Description::read(text);
        assert_eq!(read.bundle(), ["0", "1"]);
        assert_eq!((read.live().count(), read.sections.len()), (1, 2));
        let audio = read.medium("audio").unwrap();
        assert_eq!((audio.mid(), audio.direction(), audio.format_of("opus")), ("0", "recvonly", Some("111")));
        assert_eq!(read.of(audio, "ice-ufrag"), Some("abcd"));
        assert_eq!(audio.extension("urn:x"), Some(4));
        assert_eq!(read.sections[1].feedback().len(), 2);
        assert_eq!(read.sections[1].direction(), "sendrecv");
    }
}
