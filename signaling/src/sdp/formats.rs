//! Payload formats of one section: `a=rtpmap`, `a=fmtp`, `a=rtcp-fb` and RTX (RFC 8866 §6, RFC 4585 §4.2, RFC 4588 §8).

use std::collections::HashMap;

use media_core::media::{Codec, Feedback, Format, MediaKind};
use media_core::negotiation::Fmtp;

/// The formats of an m-line that Sluice forwards, in the order of the m-line. Whatever else it names is passed over.
///
/// `values` yields the values of all attributes of a name.
pub(crate) fn read<'a, I: Iterator<Item = &'a str>>(
    kind: MediaKind,
    payload_types: &[String],
    values: impl Fn(&'static str) -> I,
) -> Vec<Format> {
    let rtpmaps = by_payload_type(values("rtpmap"));
    let fmtps = by_payload_type(values("fmtp"));
    let mut formats: Vec<Format> = Vec::new();
    let mut rtx: Vec<(u8, u8)> = Vec::new();
    let mut seen = [false; 128];
    for payload_type in payload_types.iter().filter_map(|text| usable(text)) {
        if std::mem::replace(&mut seen[usize::from(payload_type)], true) {
            continue;
        }
        let fmtp = fmtps.get(&payload_type).copied().unwrap_or_default();
        let rtpmap = rtpmaps.get(&payload_type).copied().or_else(|| static_rtpmap(payload_type));
        let Some((name, clock_rate, channels)) = rtpmap.and_then(split_rtpmap) else { continue };
        if name.eq_ignore_ascii_case("rtx") {
            if let Some(apt) = Fmtp(fmtp).get("apt").and_then(|apt| apt.parse().ok()) {
                rtx.push((apt, payload_type));
            }
            continue;
        }
        let Some(codec) = codec(name, clock_rate, channels).filter(|codec| codec.kind() == kind) else { continue };
        if !forwardable(codec, Fmtp(fmtp)) {
            continue;
        }
        let channels = if kind == MediaKind::Audio { channels.unwrap_or(0) } else { 0 };
        formats.push(Format { clock_rate, channels, fmtp: fmtp.to_owned(), ..Format::new(payload_type, codec) });
    }
    // RED names the Opus that is in it; one such format is enough.
    let opus = |format: &&Format| format.codec == Codec::Opus;
    let opus: Vec<u8> = formats.iter().filter(opus).map(|format| format.payload_type).collect();
    let mut red_seen = false;
    formats.retain(|format| {
        let whole = || format.redundant_payload_type().is_some_and(|inner| opus.contains(&inner));
        format.codec != Codec::Red || (whole() && !std::mem::replace(&mut red_seen, true))
    });
    let receiver_round_trip = values("rtcp-xr").any(|blocks| {
        let mut blocks = blocks.split_ascii_whitespace();
        // `all` or `sender`, both of which a receiver that sends nothing is served by.
        blocks.any(|block| matches!(block.split(':').next(), Some("rcvr-rtt=all" | "rcvr-rtt=sender")))
    });
    for format in &mut formats {
        format.feedback.receiver_round_trip = receiver_round_trip;
        // The first RTX format of a codec counts; those of unknown ones fall away (SDP-23).
        format.rtx_payload_type = rtx.iter().find(|(apt, _)| *apt == format.payload_type).map(|(_, pt)| *pt);
        for line in values("rtcp-fb") {
            let Some((target, what)) = line.split_once(' ') else { continue };
            if target == "*" || target.parse() == Ok(format.payload_type) {
                add_feedback(&mut format.feedback, what);
            }
        }
    }
    formats
}

/// 64 to 95 cannot be told from RTCP on one port (RFC 5761 §4).
fn usable(text: &str) -> Option<u8> {
    text.parse().ok().filter(|payload_type| matches!(payload_type, 0..=63 | 96..=127))
}

fn by_payload_type<'a>(values: impl Iterator<Item = &'a str>) -> HashMap<u8, &'a str> {
    let mut map = HashMap::new();
    for value in values {
        if let Some((payload_type, rest)) = value.split_once(' ')
            && let Ok(payload_type) = payload_type.parse()
        {
            map.entry(payload_type).or_insert(rest.trim());
        }
    }
    map
}

/// Payload types of RFC 3551 §6 that may stand without `a=rtpmap`.
fn static_rtpmap(payload_type: u8) -> Option<&'static str> {
    match payload_type {
        0 => Some("PCMU/8000"),
        8 => Some("PCMA/8000"),
        9 => Some("G722/8000"),
        _ => None,
    }
}

fn split_rtpmap(rtpmap: &str) -> Option<(&str, u32, Option<u8>)> {
    let mut parts = rtpmap.split('/');
    let (name, clock_rate) = (parts.next()?.trim(), parts.next()?.trim().parse().ok()?);
    let channels = match parts.next() {
        Some(channels) => Some(channels.trim().parse().ok()?),
        None => None,
    };
    Some((name, clock_rate, channels))
}

/// The codec of this name, if clock and channels are those that its payload format demands (SDP-26).
fn codec(name: &str, clock_rate: u32, channels: Option<u8>) -> Option<Codec> {
    let codec: Codec = name.parse().ok()?;
    let fits = match codec {
        // RED around video is not forwarded: it comes with FEC, which is refused.
        // RFC 7587 §7 demands 2 channels whatever is sent; clients that say 1, or nothing, send the same packets (F-21).
        Codec::Opus | Codec::Red => clock_rate == 48_000 && matches!(channels, None | Some(1 | 2)),
        Codec::Pcmu | Codec::Pcma | Codec::G722 => clock_rate == 8000 && channels.unwrap_or(1) == 1,
        _ => clock_rate == 90_000,
    };
    fits.then_some(codec)
}

/// Modes that would need more than forwarding packets as they are: H.264 interleaving (RFC 6184 §6.4), and H.265 over
/// several streams or with decoding order numbers (RFC 7798 §7.1).
fn forwardable(codec: Codec, fmtp: Fmtp<'_>) -> bool {
    match codec {
        Codec::H264 => fmtp.get("packetization-mode") != Some("2"),
        Codec::H265 => {
            fmtp.get("tx-mode").is_none_or(|mode| mode.eq_ignore_ascii_case("SRST"))
                && matches!(fmtp.get("sprop-max-don-diff"), None | Some("0"))
        }
        _ => true,
    }
}

fn add_feedback(feedback: &mut Feedback, what: &str) {
    let mut words = what.split_ascii_whitespace();
    match (words.next(), words.next()) {
        (Some("nack"), None) => feedback.nack = true,
        (Some("nack"), Some("pli")) => feedback.pli = true,
        (Some("ccm"), Some("fir")) => feedback.fir = true,
        (Some("goog-remb"), None) => feedback.remb = true,
        (Some("transport-cc"), None) => feedback.transport_cc = true,
        (Some("ack"), Some("ccfb")) => feedback.ccfb = true,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formats(kind: MediaKind, payload_types: &str, attributes: &[(&'static str, &'static str)]) -> Vec<Format> {
        let payload_types: Vec<String> = payload_types.split(' ').map(str::to_owned).collect();
        read(kind, &payload_types, |name| {
            attributes.iter().filter(move |(key, _)| *key == name).map(|(_, value)| *value)
        })
    }

    // SDP-22, SDP-23
    #[test]
    fn rtx_goes_with_its_codec_and_a_wildcard_with_every_codec() {
        let formats = formats(
            MediaKind::Video,
            "96 97 98 99",
            &[
                ("rtpmap", "96 vp8/90000"),
                ("rtpmap", "97 rtx/90000"),
                ("fmtp", "97 apt=96;rtx-time=3000"),
                ("rtpmap", "98 VP9/90000"),
                ("fmtp", "98 profile-id=0"),
                ("rtpmap", "99 rtx/90000"),
                ("fmtp", "99 apt=35"),
                ("rtcp-fb", "* nack"),
                ("rtcp-fb", "98 nack pli"),
                ("rtcp-fb", "98 ccm tmmbr"),
            ],
        );
        assert_eq!(formats.iter().map(|format| format.codec).collect::<Vec<_>>(), [Codec::Vp8, Codec::Vp9]);
        assert_eq!((formats[0].rtx_payload_type, formats[1].rtx_payload_type), (Some(97), None));
        assert!(formats[0].feedback.nack && !formats[0].feedback.pli);
        assert!(formats[1].feedback.nack && formats[1].feedback.pli && !formats[1].feedback.fir);
    }

    // RTCP-19
    #[test]
    fn the_round_trip_of_receivers_is_for_the_whole_section() {
        for (offered, agreed) in [
            ("rcvr-rtt=all", true),
            ("stat-summary=loss,dup rcvr-rtt=sender:10000", true),
            ("rcvr-rtt=none", false),
            ("pkt-loss-rle", false),
        ] {
            let attributes = [("rtpmap", "96 VP8/90000"), ("rtpmap", "97 VP9/90000"), ("rtcp-xr", offered)];
            let formats = formats(MediaKind::Video, "96 97", &attributes);
            assert!(formats.iter().all(|format| format.feedback.receiver_round_trip == agreed), "{offered}");
        }
    }

    // SDP-25, SDP-26
    #[test]
    fn clock_channels_and_payload_type_must_fit() {
        let formats = formats(
            MediaKind::Audio,
            "0 9 35 64 95 96 97 111 111 128 x",
            &[
                ("rtpmap", "35 OPUS/48000/2"),
                ("rtpmap", "64 opus/48000/2"),
                ("rtpmap", "95 opus/48000/2"),
                ("rtpmap", "96 opus/48000"),
                ("rtpmap", "97 VP8/90000"),
                ("rtpmap", "111 opus/48000/2"),
                ("rtpmap", "9 G722/8000/1"),
            ],
        );
        let numbers: Vec<u8> = formats.iter().map(|format| format.payload_type).collect();
        assert_eq!(numbers, [0, 9, 35, 96, 111]);
        assert_eq!(formats[0].codec, Codec::Pcmu);
    }

    // F-21
    #[test]
    fn opus_is_opus_with_two_channels_one_or_none_named() {
        let attributes = [
            ("rtpmap", "96 OPUS/48000"),
            ("rtpmap", "97 opus/48000/1"),
            ("rtpmap", "98 opus/48000/2"),
            ("rtpmap", "99 opus/48000/6"),
            ("rtpmap", "100 opus/16000"),
            ("rtpmap", "101 opus/48000/stereo"),
        ];
        let formats = formats(MediaKind::Audio, "96 97 98 99 100 101", &attributes);
        let read: Vec<_> = formats.iter().map(|format| (format.payload_type, format.codec, format.channels)).collect();
        assert_eq!(read, [(96, Codec::Opus, 0), (97, Codec::Opus, 1), (98, Codec::Opus, 2)]);
    }

    // COD-04, COD-18
    #[test]
    fn red_is_for_opus_and_fec_for_nobody() {
        let audio = formats(
            MediaKind::Audio,
            "63 64 62 111 96 97 98",
            &[
                ("rtpmap", "63 RED/48000/2"),
                ("fmtp", "63 111/111"),
                ("rtpmap", "62 red/48000/2"),
                ("fmtp", "62 111/111/111"),
                ("rtpmap", "111 opus/48000/2"),
                ("rtpmap", "96 red/48000/2"),
                ("fmtp", "96 0/0"),
                ("rtpmap", "97 red/8000"),
                ("fmtp", "97 111/111"),
                ("rtpmap", "98 flexfec-03/48000/2"),
            ],
        );
        let numbers: Vec<u8> = audio.iter().map(|format| format.payload_type).collect();
        assert_eq!(numbers, [63, 111], "the client's order, one RED, and none of anything else");
        let rtpmaps = ["96 VP8/90000", "97 red/90000", "98 ulpfec/90000", "99 flexfec-03/90000", "100 flexfec/90000"];
        let attributes: Vec<_> = rtpmaps.iter().map(|rtpmap| ("rtpmap", *rtpmap)).collect();
        let video = formats(MediaKind::Video, "96 97 98 99 100", &attributes);
        assert_eq!(video.iter().map(|format| format.payload_type).collect::<Vec<_>>(), [96]);
    }

    // COD-14
    #[test]
    fn modes_that_cannot_be_forwarded_are_passed_over() {
        let formats = formats(
            MediaKind::Video,
            "96 97 98",
            &[
                ("rtpmap", "96 H265/90000"),
                ("fmtp", "96 tx-mode=MRST"),
                ("rtpmap", "97 H264/90000"),
                ("fmtp", "97 packetization-mode=2"),
                ("rtpmap", "98 H265/90000"),
                ("fmtp", "98 level-id=93;tx-mode=SRST"),
            ],
        );
        assert_eq!(formats.iter().map(|format| format.payload_type).collect::<Vec<_>>(), [98]);
    }
}
