//! A reader of SDP that knows no more than a client's eye needs, and the rules that every answer keeps.

use std::collections::HashSet;

/// An SDP cut at its m-lines; no more than a client's eye needs.
#[derive(Clone, Debug)]
pub(crate) struct Sdp {
    pub(crate) session: Vec<String>,
    pub(crate) sections: Vec<Vec<String>>,
}

impl Sdp {
    pub(crate) fn read(text: &str) -> Sdp {
        let mut sdp = Sdp { session: Vec::new(), sections: Vec::new() };
        for line in text.lines() {
            if line.starts_with("m=") {
                sdp.sections.push(Vec::new());
            }
            sdp.sections.last_mut().unwrap_or(&mut sdp.session).push(line.to_owned());
        }
        sdp
    }

    /// Values of a session attribute.
    pub(crate) fn of_session(&self, name: &str) -> Vec<&str> {
        values(&self.session, name)
    }
}

/// Values of an attribute; flags have the empty value.
pub(crate) fn values<'a>(lines: &'a [String], name: &str) -> Vec<&'a str> {
    let attributes = lines.iter().filter_map(|line| line.strip_prefix("a="));
    attributes
        .filter_map(|attribute| {
            let (key, value) = attribute.split_once(':').unwrap_or((attribute, ""));
            (key == name).then_some(value)
        })
        .collect()
}

pub(crate) fn has(lines: &[String], name: &str) -> bool {
    !values(lines, name).is_empty()
}

/// Media, port, protocol and formats of the m-line.
pub(crate) fn media_line(lines: &[String]) -> (String, u16, String, Vec<String>) {
    let mut words = lines[0].strip_prefix("m=").unwrap().split(' ').map(str::to_owned);
    let (media, port, protocol) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    (media, port.parse().unwrap(), protocol, words.collect())
}

/// Checks an answer against its offer, line by line (SDP-10 to SDP-32).
pub(crate) fn lint(offer: &str, answer: &str, direction: &str, lite: bool) {
    assert!(answer.starts_with("v=0\r\no=- "), "SDP-30: {answer}");
    assert!(answer.len() < 8192, "SDP-30: {} bytes", answer.len());
    assert!(answer.ends_with("\r\n") && !answer.replace("\r\n", "").contains(['\r', '\n']), "SDP-01: CRLF only");
    let (offer, answer) = (Sdp::read(offer), Sdp::read(answer));
    assert_eq!(offer.sections.len(), answer.sections.len(), "SDP-10");
    assert_eq!(has(&answer.session, "ice-lite"), lite, "SDP-28");
    assert_eq!(answer.of_session("ice-options"), ["trickle ice2"], "SDP-15");
    assert_eq!(has(&answer.session, "extmap-allow-mixed"), has(&offer.session, "extmap-allow-mixed"), "SDP-27");

    let mut live = Vec::new();
    let (mut msids, mut credentials) = (HashSet::new(), HashSet::new());
    for (theirs, ours) in offer.sections.iter().zip(&answer.sections) {
        if !lint_media_line(theirs, ours) {
            continue;
        }
        live.extend(values(ours, "mid").into_iter().map(str::to_owned));
        credentials.insert(lint_transport(&offer, theirs, ours));
        lint_candidates(ours);
        // It carries the transport of the others, and nothing else.
        if has(ours, "inactive") {
            let group = offer.of_session("group").into_iter().find(|group| group.starts_with("BUNDLE"));
            assert_eq!(group.and_then(|group| group.split(' ').nth(1)), values(theirs, "mid").first().copied());
            assert!(!has(ours, "ssrc") && !has(ours, "msid"));
            continue;
        }
        assert!(has(ours, direction), "WHIP-08, WHEP-02");
        lint_feedback_and_extensions(theirs, ours);
        lint_formats(theirs, ours);
        msids.extend(values(ours, "msid").into_iter().map(|msid| msid.split(' ').next().unwrap().to_owned()));
        lint_ssrcs(ours, direction);
        lint_simulcast(theirs, ours, direction);
    }
    assert!(!live.is_empty());
    assert_eq!(credentials.len(), 1, "SDP-11: one transport");
    assert!(msids.len() <= 1, "WHEP-03: one MediaStream");
    let group = offer.of_session("group").into_iter().any(|group| group.starts_with("BUNDLE"));
    let expected = if group { vec![format!("BUNDLE {}", live.join(" "))] } else { Vec::new() };
    assert_eq!(answer.of_session("group"), expected, "SDP-11");
}

/// The m-line, the mid, and what no answer has; returns whether the section is live.
fn lint_media_line(theirs: &[String], ours: &[String]) -> bool {
    assert_eq!(values(theirs, "mid"), values(ours, "mid"), "SDP-10");
    let (their_media, their_port, their_protocol, their_formats) = media_line(theirs);
    let (media, port, protocol, formats) = media_line(ours);
    assert_eq!((&media, &protocol), (&their_media, &their_protocol), "SDP-07");
    assert!(formats.iter().all(|format| their_formats.contains(format)), "SDP-20: {formats:?}");
    assert!(!formats.is_empty());
    assert!(!has(ours, "bundle-only") && !has(ours, "crypto"), "SDP-14, SDP-08");
    if port == 0 {
        assert!(has(ours, "inactive"));
        return false;
    }
    assert!(their_port != 0 || has(theirs, "bundle-only"), "SDP-13");
    assert_eq!((port, ours[1].as_str()), (9, "c=IN IP4 0.0.0.0"), "SDP-14");
    true
}

/// RTCP, DTLS and ICE; returns the ICE credentials.
fn lint_transport(offer: &Sdp, theirs: &[String], ours: &[String]) -> (String, String) {
    assert!(has(ours, "rtcp-mux") && has(ours, "rtcp-mux-only"), "SDP-16, WHIP-28");
    assert!(!has(ours, "rtcp-rsize") || offer.sections.iter().any(|section| has(section, "rtcp-rsize")), "SDP-15");
    let asks = |section| values(section, "rtcp-xr").contains(&"rcvr-rtt=all");
    assert_eq!(asks(theirs), asks(ours), "RTCP-19");
    assert_eq!(values(ours, "fingerprint").len(), 1, "SDP-17, Q-24");
    assert!(values(ours, "fingerprint")[0].starts_with("sha-256 00:01:02:"));
    let setup = values(theirs, "setup").first().or(offer.of_session("setup").first()).copied().unwrap_or("actpass");
    let expected = if setup == "passive" { "active" } else { "passive" };
    assert_eq!(values(ours, "setup"), [expected], "WHIP-27");
    let (ufrag, pwd) = (values(ours, "ice-ufrag")[0].to_owned(), values(ours, "ice-pwd")[0].to_owned());
    assert!(ufrag.len() >= 8 && pwd.len() >= 22, "SDP-19");
    (ufrag, pwd)
}

/// Every live section has them: clients differ in which one they look at (F-24).
fn lint_candidates(ours: &[String]) {
    let candidates = values(ours, "candidate");
    let addresses: Vec<&str> = candidates.iter().map(|line| line.split(' ').nth(4).unwrap()).collect();
    assert_eq!(addresses, ["198.51.100.1", "2001:db8::1"], "SDP-29");
    assert!(candidates.iter().all(|line| line.ends_with(" typ host") && line.contains(" 1 udp ")), "Q-15");
    assert!(has(ours, "end-of-candidates"), "WHIP-07");
}

/// Ids and feedback are those of the offer.
fn lint_feedback_and_extensions(theirs: &[String], ours: &[String]) {
    let formats = media_line(ours).3;
    let wildcard: Vec<&str> =
        values(theirs, "rtcp-fb").into_iter().filter_map(|line| line.strip_prefix("* ")).collect();
    for feedback in values(ours, "rtcp-fb") {
        let (number, what) = feedback.split_once(' ').unwrap();
        if number == "*" {
            // It is one for all formats, and may have been offered for each.
            let offered = |format: &String| {
                values(theirs, "rtcp-fb").iter().any(|line| line.split_once(' ') == Some((format.as_str(), what)))
            };
            assert!(wildcard.contains(&what) || formats.iter().all(offered), "SDP-21: {feedback}");
            assert_eq!(what, "ack ccfb", "RTCP-15: nothing else is for all of them");
            continue;
        }
        assert!(formats.iter().any(|format| format == number), "SDP-20");
        assert!(values(theirs, "rtcp-fb").contains(&feedback) || wildcard.contains(&what), "SDP-21: {feedback}");
        let other = match what {
            "goog-remb" => "transport-cc",
            "transport-cc" => "goog-remb",
            _ => continue,
        };
        assert!(!values(ours, "rtcp-fb").iter().any(|line| line.ends_with(other)), "RTCP-13, RTCP-14: one of them");
    }
    for extmap in values(ours, "extmap") {
        let plain = |line: &str| line.replace("/sendonly", "").replace("/recvonly", "");
        assert!(values(theirs, "extmap").iter().any(|line| plain(line) == plain(extmap)), "SDP-20: {extmap}");
    }
}

/// Payload types, names and parameters are those of the offer.
fn lint_formats(theirs: &[String], ours: &[String]) {
    let formats = media_line(ours).3;
    let mut mapped = HashSet::new();
    for rtpmap in values(ours, "rtpmap") {
        let (number, name) = rtpmap.split_once(' ').unwrap();
        assert!(formats.iter().any(|format| format == number) && mapped.insert(number.to_owned()));
        let theirs = values(theirs, "rtpmap").into_iter().find_map(|line| line.strip_prefix(&format!("{number} ")));
        let theirs = theirs.unwrap_or(name).to_ascii_lowercase();
        assert_eq!(theirs, name.to_ascii_lowercase(), "SDP-26, F-21");
        assert!(!["ulpfec", "flexfec"].iter().any(|fec| name.starts_with(fec)), "COD-18");
        assert!(!name.starts_with("red") || name == "red/48000/2", "COD-04, COD-18");
    }
    assert_eq!(mapped.len(), formats.len(), "every format has its rtpmap");
    for fmtp in values(ours, "fmtp") {
        let (number, parameters) = fmtp.split_once(' ').unwrap();
        match parameters.strip_prefix("apt=") {
            Some(apt) => assert!(formats.iter().any(|format| format == apt), "SDP-23: orphan RTX {number}"),
            None => assert!(values(theirs, "fmtp").contains(&fmtp), "SDP-20: {fmtp}"),
        }
    }
}

fn lint_ssrcs(ours: &[String], direction: &str) {
    if direction != "sendonly" {
        assert!(!has(ours, "ssrc") && !has(ours, "msid"));
        return;
    }
    assert_eq!(values(ours, "msid").len(), 1, "WHEP-03");
    let ssrcs: HashSet<&str> = values(ours, "ssrc").into_iter().map(|line| line.split(' ').next().unwrap()).collect();
    let has_rtx = values(ours, "rtpmap").iter().any(|line| line.contains(" rtx/"));
    assert_eq!(ssrcs.len(), if has_rtx { 2 } else { 1 }, "WHEP-17");
    assert_eq!(has(ours, "ssrc-group"), has_rtx, "WHEP-17");
}

/// The encodings that are received are offered ones in their order, each named once, with restrictions of the offer.
fn lint_simulcast(theirs: &[String], ours: &[String], direction: &str) {
    let listed = |lines: &[String], direction: &str| -> Vec<String> {
        let words =
            values(lines, "simulcast").first().map(|value| value.split(' ').collect::<Vec<_>>()).unwrap_or_default();
        let list = words.iter().skip_while(|word| **word != direction).nth(1).copied().unwrap_or_default();
        list.split([';', ',']).filter(|rid| !rid.is_empty()).map(str::to_owned).collect()
    };
    let (offered, received) = (listed(theirs, "send"), listed(ours, "recv"));
    let names: Vec<&str> = received.iter().map(|rid| rid.trim_start_matches('~')).collect();
    let lines = values(ours, "rid");
    assert_eq!(lines.iter().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>(), names, "SDP-40");
    let extensions = values(ours, "extmap").join(" ");
    if received.is_empty() {
        assert!(!has(ours, "simulcast") && !extensions.contains("rtp-stream-id"), "SDP-42");
        return;
    }
    assert_eq!(direction, "recvonly", "WHEP has none");
    assert!(extensions.contains("sdes:rtp-stream-id") && extensions.contains("sdes:mid"), "SDP-42");
    let mut kept: Vec<&String> = offered.iter().filter(|rid| received.contains(rid)).collect();
    kept.dedup();
    assert_eq!(kept, received.iter().collect::<Vec<_>>(), "SDP-40: {received:?} of {offered:?}");
    for line in lines {
        let mut words = line.splitn(3, ' ');
        let (rid, direction, restrictions) = (words.next().unwrap(), words.next(), words.next().unwrap_or_default());
        assert_eq!(direction, Some("recv"), "SDP-40");
        let theirs = values(theirs, "rid").into_iter().find(|line| line.starts_with(&format!("{rid} send"))).unwrap();
        for restriction in restrictions.split(';').filter(|restriction| !restriction.starts_with("pt=")) {
            assert!(theirs.contains(restriction), "SDP-44: {restriction} of {theirs}");
        }
    }
}
