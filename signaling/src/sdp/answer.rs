//! Writes an answer (RFC 9429 §5.3.1), or an offer of the server's own, through the types of the `sdp` crate.

use media_core::media::{Format, MediaSection, SendSsrcs};
use media_core::negotiation::candidate_line;
use media_core::{DtlsRole, Fingerprint, IceCredentials, IceMode, LocalCandidate, Protocol};
use sdp::SessionDescription;
use sdp::description::common::{Address, Attribute, ConnectionInformation};
use sdp::description::media::{MediaDescription, MediaName, RangedPort};
use sdp::description::session::{Origin, TimeDescription};

use super::negotiate::{Agreed, Agreement, LiveSection};
use super::simulcast;

/// The server's side of a description.
#[derive(Clone, Debug)]
pub(crate) struct Local<'a> {
    /// Session id of `o=`, 63 bits.
    pub(crate) session_id: u64,
    pub(crate) ice: &'a IceCredentials,
    pub(crate) ice_mode: IceMode,
    /// Candidates may come by PATCH.
    pub(crate) trickle: bool,
    /// `a=rtcp-mux-only` stands beside `a=rtcp-mux`: RFC 9725 §4.4.1 demands it, RFC 8858 §4 forbids it in answers; clients
    /// ignore it (WHIP-28).
    pub(crate) rtcp_mux_only: bool,
    /// Preferred first.
    pub(crate) candidates: &'a [LocalCandidate],
    pub(crate) fingerprint: &'a Fingerprint,
    /// MediaStream id for a viewer's sections.
    pub(crate) stream_id: &'a str,
    pub(crate) cname: &'a str,
}

/// What the answer says of ICE options, and fragments again (RFC 9725 §4.3.3).
fn ice_options(trickle: bool) -> &'static str {
    if trickle { "trickle ice2" } else { "ice2" }
}

/// The answer's text, CRLF lines.
pub(crate) fn write(agreement: &Agreement, local: &Local<'_>) -> String {
    let setup = if agreement.dtls.role == DtlsRole::Server { "passive" } else { "active" };
    let Agreement { sections, bundle, extmap_allow_mixed, .. } = agreement;
    description(sections, (*bundle, *extmap_allow_mixed), setup, local)
}

/// The text of an offer of these sections (RFC 9429 §5.2.1).
pub(crate) fn write_offer(sections: &[Agreed], local: &Local<'_>) -> String {
    description(sections, (true, true), "actpass", local)
}

fn description(
    sections: &[Agreed],
    (bundle, extmap_allow_mixed): (bool, bool),
    setup: &str,
    local: &Local<'_>,
) -> String {
    let mut session = Lines::default();
    if bundle {
        let mids: Vec<&str> = sections.iter().filter_map(Agreed::live).map(|live| live.media.mid.as_str()).collect();
        session.value("group", format!("BUNDLE {}", mids.join(" ")));
    }
    if local.ice_mode == IceMode::Lite {
        session.flag("ice-lite");
    }
    session.value("ice-options", ice_options(local.trickle));
    if extmap_allow_mixed {
        session.flag("extmap-allow-mixed");
    }
    session.value("msid-semantic", " WMS *");
    let media = sections.iter().map(|section| match section {
        Agreed::Live(live) => live_media(live, setup, local),
        Agreed::Rejected { media, protocol, format, mid } => {
            let mut lines = Lines::default();
            if let Some(mid) = mid {
                lines.value("mid", mid);
            }
            lines.flag("inactive");
            media_description(media, 0, protocol, vec![format.clone()], lines)
        }
    });
    let description = SessionDescription {
        version: 0,
        origin: Origin {
            username: "-".to_owned(),
            session_id: local.session_id,
            session_version: 1,
            network_type: "IN".to_owned(),
            address_type: "IP4".to_owned(),
            unicast_address: "127.0.0.1".to_owned(),
        },
        session_name: "-".to_owned(),
        time_descriptions: vec![TimeDescription::default()],
        attributes: session.0,
        media_descriptions: media.collect(),
        ..SessionDescription::default()
    };
    description.marshal()
}

/// The lines with which fragments of a session begin: those of the answer that an ICE restart repeats, and the pseudo m-line of the
/// section whose transport carries all (RFC 8840 §9).
pub(crate) fn fragment_head(agreement: &Agreement, ice_mode: IceMode, trickle: bool) -> String {
    let mut session = Lines::default();
    if ice_mode == IceMode::Lite {
        session.flag("ice-lite");
    }
    session.value("ice-options", ice_options(trickle));
    let mids: Vec<&str> = agreement.bundled().map(|live| live.media.mid.as_str()).collect();
    if agreement.bundle {
        session.value("group", format!("BUNDLE {}", mids.join(" ")));
    }
    let mut head = session.text();
    if let Some(live) = agreement.bundled().next() {
        let format = live.media.formats.first().map_or(0, |format| format.payload_type);
        head.push_str(&format!("m={} 9 {} {format}\r\n", live.media.kind.as_str(), live.protocol));
        if live.has_mid {
            head.push_str(&format!("a=mid:{}\r\n", live.media.mid));
        }
    }
    head
}

/// The fragment that answers an ICE restart (RFC 9725 §4.3.3): the server has all of its candidates at once.
pub(crate) fn fragment(head: &str, ice: &IceCredentials, candidates: &[LocalCandidate]) -> String {
    let mut lines = Lines::default();
    lines.value("ice-ufrag", &ice.ufrag);
    lines.value("ice-pwd", &ice.pwd);
    write_candidates(candidates, &mut lines);
    head.to_owned() + &lines.text()
}

fn live_media(live: &LiveSection, setup: &str, local: &Local<'_>) -> MediaDescription {
    let section = &live.media;
    let mut lines = Lines::default();
    lines.value("ice-ufrag", &local.ice.ufrag);
    lines.value("ice-pwd", &local.ice.pwd);
    lines.value("fingerprint", local.fingerprint.to_sdp());
    lines.value("setup", setup);
    if live.has_mid {
        lines.value("mid", &section.mid);
    }
    let sends = section.send_ssrcs.is_some();
    lines.flag(match sends {
        _ if live.inactive => "inactive",
        true => "sendonly",
        false => "recvonly",
    });
    lines.flag("rtcp-mux");
    if local.rtcp_mux_only {
        lines.flag("rtcp-mux-only");
    }
    if section.reduced_size_rtcp {
        lines.flag("rtcp-rsize");
    }
    if section.formats.iter().any(|format| format.feedback.receiver_round_trip) {
        lines.value("rtcp-xr", "rcvr-rtt=all");
    }
    if live.extmap_allow_mixed {
        lines.flag("extmap-allow-mixed");
    }
    for (extension, id) in section.extensions.iter() {
        let suffix = match live.one_way.contains(&extension) {
            true if sends => "/sendonly",
            true => "/recvonly",
            false => "",
        };
        lines.value("extmap", format!("{id}{suffix} {}", extension.uri()));
    }
    let mut payload_types = Vec::new();
    for format in &section.formats {
        payload_types.push(format.payload_type.to_string());
        write_format(format, &mut lines);
        if let Some(rtx) = format.rtx_payload_type {
            payload_types.push(rtx.to_string());
            lines.value("rtpmap", format!("{rtx} rtx/{}", format.clock_rate));
            lines.value("fmtp", format!("{rtx} apt={}", format.payload_type));
        }
    }
    if section.formats.iter().any(|format| format.feedback.ccfb) {
        // For all formats or none (RFC 8888 §6).
        lines.value("rtcp-fb", "* ack ccfb");
    }
    if let Some((rids, list)) = simulcast::answered(&section.simulcast, &live.paused) {
        for rid in rids {
            lines.value("rid", rid);
        }
        lines.value("simulcast", list);
    }
    if let Some(ssrcs) = section.send_ssrcs {
        write_ssrcs(section, ssrcs, local, &mut lines);
    }
    // All sections share one transport, and RFC 9143 §10 has its candidates in one of them only. But aiortc looks for them in
    // the last one if its policy is max-bundle, others in the first; all take them from every one (SDP-29).
    write_candidates(local.candidates, &mut lines);
    media_description(section.kind.as_str(), 9, &live.protocol, payload_types, lines)
}

/// The SSRCs of a viewer's section, and the MediaStream that they belong to.
fn write_ssrcs(section: &MediaSection, ssrcs: SendSsrcs, local: &Local<'_>, lines: &mut Lines) {
    let msid = format!("{} {}", local.stream_id, section.kind.as_str());
    lines.value("msid", &msid);
    let has_rtx = section.formats.iter().any(|format| format.rtx_payload_type.is_some());
    if has_rtx {
        lines.value("ssrc-group", format!("FID {} {}", ssrcs.media, ssrcs.rtx));
    }
    for ssrc in [Some(ssrcs.media), has_rtx.then_some(ssrcs.rtx)].into_iter().flatten() {
        lines.value("ssrc", format!("{ssrc} cname:{}", local.cname));
        lines.value("ssrc", format!("{ssrc} msid:{msid}"));
    }
}

/// UDP in front, and IPv4: some clients read one line only.
fn write_candidates(candidates: &[LocalCandidate], lines: &mut Lines) {
    let mut candidates = candidates.to_vec();
    candidates.sort_by_key(|candidate| (candidate.protocol != Protocol::Udp, candidate.address.is_ipv6()));
    for candidate in &candidates {
        let line = candidate_line(candidate);
        lines.value("candidate", line.strip_prefix("candidate:").unwrap_or(&line));
    }
    lines.flag("end-of-candidates");
}

fn write_format(format: &Format, lines: &mut Lines) {
    let Format { payload_type, codec, clock_rate, channels, fmtp, feedback, .. } = format;
    // As the client wrote it: one that leaves them out compares formats with them left out (F-21).
    let channels = if *channels > 0 { format!("/{channels}") } else { String::new() };
    lines.value("rtpmap", format!("{payload_type} {codec}/{clock_rate}{channels}"));
    if !fmtp.is_empty() {
        lines.value("fmtp", format!("{payload_type} {fmtp}"));
    }
    let feedback = [
        (feedback.transport_cc, "transport-cc"),
        (feedback.fir, "ccm fir"),
        (feedback.nack, "nack"),
        (feedback.pli, "nack pli"),
        (feedback.remb, "goog-remb"),
    ];
    for (_, name) in feedback.iter().filter(|(agreed, _)| *agreed) {
        lines.value("rtcp-fb", format!("{payload_type} {name}"));
    }
}

fn media_description(media: &str, port: isize, protocol: &str, formats: Vec<String>, lines: Lines) -> MediaDescription {
    MediaDescription {
        media_name: MediaName {
            media: media.to_owned(),
            port: RangedPort { value: port, range: None },
            protos: vec![protocol.to_owned()],
            formats,
        },
        connection_information: Some(ConnectionInformation {
            network_type: "IN".to_owned(),
            address_type: "IP4".to_owned(),
            address: Some(Address { address: "0.0.0.0".to_owned(), ttl: None, range: None }),
        }),
        attributes: lines.0,
        ..MediaDescription::default()
    }
}

/// Attribute lines in order.
#[derive(Default)]
struct Lines(Vec<Attribute>);

impl Lines {
    fn flag(&mut self, name: &str) {
        self.0.push(Attribute::new(name.to_owned(), None));
    }

    fn value(&mut self, name: &str, value: impl Into<String>) {
        self.0.push(Attribute::new(name.to_owned(), Some(value.into())));
    }

    /// As they stand in a description.
    fn text(&self) -> String {
        let line = |Attribute { key, value }: &Attribute| match value {
            Some(value) => format!("a={key}:{value}\r\n"),
            None => format!("a={key}\r\n"),
        };
        self.0.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // ICE-20
    #[test]
    fn candidates_of_udp_stand_in_front_of_those_of_tcp_and_ipv4_in_front_of_ipv6() {
        let candidate = |protocol, address: &str, priority| {
            let address = address.parse().unwrap();
            LocalCandidate { protocol, address, priority, foundation: 1 }
        };
        let candidates = [
            candidate(Protocol::Udp, "[2001:db8::1]:50000", 4),
            candidate(Protocol::Udp, "192.0.2.1:50000", 3),
            candidate(Protocol::Tcp, "[2001:db8::1]:50000", 2),
            candidate(Protocol::Tcp, "192.0.2.1:50000", 1),
        ];
        let mut lines = Lines::default();
        write_candidates(&candidates, &mut lines);
        let values: Vec<&str> = lines.0.iter().filter_map(|line| line.value.as_deref()).collect();
        assert_eq!(
            values,
            [
                "1 1 udp 3 192.0.2.1 50000 typ host",
                "1 1 udp 4 2001:db8::1 50000 typ host",
                "1 1 tcp 1 192.0.2.1 50000 typ host tcptype passive",
                "1 1 tcp 2 2001:db8::1 50000 typ host tcptype passive",
            ]
        );
    }
}
