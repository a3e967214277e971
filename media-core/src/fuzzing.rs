//! Entry points of the fuzz targets: one function a parser, which takes any bytes and panics only over a bug.
//!
//! `fuzz/` calls them from libFuzzer; `tests/fuzz_corpus.rs` runs the corpus and mutations of it through them with every
//! test run. A new parser needs a function here, a line in [`TARGETS`], a file in `fuzz/fuzz_targets/` with its `[[bin]]`,
//! and a directory of samples in `fuzz/corpus/`; a test sees to it that none is forgotten.

mod corpus;
mod layers;
mod session;

use std::time::{Duration, Instant};

use crate::demux::classify;
use crate::ecn::Ecn;
use crate::ice::{
    self, IceLite, IceOutput, OwnChecks, ReflexiveQuery, candidate_ufrag, parse_candidate, parse_passive_candidate,
};
use crate::media::{Codec, Format};
use crate::net::framing::{Deframer, FrameError, MAX_FRAME};
use crate::rtcp::ccfb::{CcfbFields, ReceivedPacket, StreamReport};
use crate::rtcp::transport_feedback::FeedbackFields;
use crate::rtcp::{MAX_RTCP_LEN, NtpTime, RtcpPacket, RtcpPackets, RtcpWriter};
use crate::rtp::codec::parameter_sets::{MAX_UNIT_LEN, MAX_UNITS, ParameterSets};
use crate::rtp::codec::{Start, start, vp8, vp9};
use crate::rtp::nack::{MAX_PENDING, NackGenerator};
use crate::rtp::profile::Profile;
use crate::rtp::receive::ReceiveStats;
use crate::rtp::red::{self, Redundancy};
use crate::rtp::rtt::{MAX_INTERVAL, MIN_INTERVAL, RoundTrip};
use crate::rtp::sequence::SequenceExtender;
use crate::rtp::{ExtensionIter, HeaderFields, RtpHeader, compat, extension, rtx, write_header};
use crate::spec::IceCredentials;

pub use corpus::Corpus;
pub use layers::{dependency_descriptor, layers, video_layers_allocation};
pub use session::session;

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name of the binary in `fuzz/` and of its directory in `fuzz/corpus/`.
    pub name: &'static str,
    /// The entry point.
    pub run: fn(&[u8]),
    /// One run takes milliseconds: the ordinary tests do fewer of them.
    pub is_slow: bool,
}

/// A target of which one run takes less than that.
pub const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run, is_slow: false }
}

/// Every fuzz target.
pub const TARGETS: &[Target] = &[
    target("av1", av1),
    target("candidate", candidate),
    target("ccfb", ccfb),
    target("ccfb_writer", ccfb_writer),
    target("demux", demux),
    target("dependency_descriptor", dependency_descriptor),
    target("extensions", extensions),
    target("fmtp", fmtp),
    target("framing", framing),
    target("h264", h264),
    target("h265", h265),
    target("layers", layers),
    target("receive", receive),
    target("red", red_payload),
    target("reflexive", reflexive),
    target("rtcp", rtcp),
    target("rtp", rtp),
    Target { is_slow: true, ..target("session", session) },
    target("stun", stun),
    target("transport_feedback", transport_feedback),
    target("transport_feedback_writer", transport_feedback_writer),
    target("video_layers_allocation", video_layers_allocation),
    target("vp8", vp8_packet),
    target("vp9", vp9_packet),
];

/// A candidate line of a client.
pub fn candidate(data: &[u8]) {
    let Ok(line) = std::str::from_utf8(data) else { return };
    let _ = (candidate_ufrag(line), parse_passive_candidate(line));
    if let Some(candidate) = parse_candidate(line) {
        let ip = candidate.address.ip();
        assert!(candidate.address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast());
    }
}

/// What comes by a TCP connection, whole and in pieces of as many bytes as the first one says: the packets are the same.
pub fn framing(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else { return };
    let mut packet = [0; MAX_FRAME];
    let mut deframe = |pieces: &mut dyn Iterator<Item = &[u8]>| -> (Vec<Vec<u8>>, Option<FrameError>) {
        let (mut deframer, mut packets) = (Deframer::default(), Vec::new());
        for mut piece in pieces {
            loop {
                match deframer.next(&mut piece, &mut packet) {
                    Ok(Some(length)) => packets.push(packet[..length].to_vec()),
                    Ok(None) => break,
                    Err(error) => return (packets, Some(error)),
                }
            }
            assert!(piece.is_empty());
        }
        (packets, None)
    };
    let whole = deframe(&mut std::iter::once(bytes));
    assert_eq!(whole, deframe(&mut bytes.chunks(usize::from(size).max(1))));
    assert!(whole.0.iter().all(|packet| !packet.is_empty()));
}

/// A STUN datagram, at a lite side that has the credentials of RFC 5769 §2, from two addresses.
pub fn stun(data: &[u8]) {
    let local = IceCredentials { ufrag: "evtj".into(), pwd: "VOkJxbRl1RmTxUk/WvJxBt".into() };
    let remote = IceCredentials { ufrag: "h6vY".into(), pwd: String::new() };
    let mut lite = IceLite::new(local, remote, OwnChecks::Beside);
    let mut out = Vec::new();
    let now = Instant::now();
    for port in [5000, 5001] {
        out.clear();
        lite.handle(now, ([192, 0, 2, 1], port).into(), data, &mut out);
        assert!(out.len() <= 3);
        let answered = out.iter().any(|output| matches!(output, IceOutput::Transmit { .. }));
        assert!(!answered || ice::peek_ufrag(data) == Some("evtj"));
    }
    let _ = (ice::is_request(data), ice::is_response(data), ice::transaction_id(data));
}

/// A STUN server's answer to the query whose transaction id is the one of RFC 5769 §2.
pub fn reflexive(data: &[u8]) {
    const ID: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];
    let answer = ReflexiveQuery::new(Instant::now(), ID).answer(data);
    assert!(answer.is_none() || ice::transaction_id(data) == Some(ID));
}

/// A datagram of the media socket.
pub fn demux(data: &[u8]) {
    if classify(data).is_ok() {
        assert!((2..=1500).contains(&data.len()));
    }
}

/// An RTP packet: its header, extensions and payload, its header written again, and its restoration as RTX.
pub fn rtp(data: &[u8]) {
    let Ok(header) = RtpHeader::parse(data) else { return };
    let payload = header.payload(data);
    assert_eq!(header.header_len + payload.len() + header.padding_len, data.len());

    let fields = HeaderFields {
        marker: header.marker,
        padding: false,
        payload_type: header.payload_type,
        sequence_number: header.sequence_number,
        timestamp: header.timestamp,
        ssrc: header.ssrc,
    };
    // An element of two-byte form may cost a byte more than it did; a word of room for every element is enough.
    let mut out = vec![0xff; 2 * data.len() + 16];
    let written =
        write_header(&mut out, &fields, header.extensions(data)).expect("elements that were read can be written");
    let again = RtpHeader::parse(&out[..written]).expect("what was written can be read");
    assert_eq!(again.header_len, written);
    assert_eq!((again.marker, again.payload_type, again.ssrc), (header.marker, header.payload_type, header.ssrc));
    assert!(again.extensions(&out).eq(header.extensions(data)));

    let mut copy = data.to_vec();
    if let Some(restored) = rtx::restore(&mut copy, &header, 96, 7) {
        let (original, rest) = rtx::split_payload(payload).expect("it was split before");
        let lost = RtpHeader::parse(restored).expect("a restored packet can be read");
        assert_eq!((lost.sequence_number, lost.payload_type, lost.ssrc), (original, 96, 7));
        assert_eq!(lost.payload(restored), rest);
    }
}

/// The body of a header extension, in both forms, and the data of every known element.
pub fn extensions(data: &[u8]) {
    for profile in [extension::ONE_BYTE_PROFILE, extension::TWO_BYTE_PROFILE] {
        let mut total = 0;
        for (id, element) in ExtensionIter::new(profile, data) {
            assert_ne!(id, 0);
            total += 1 + element.len();
            let _ = extension::transport_cc(element);
            assert!(extension::abs_send_time(element).is_none_or(|time| time < 1 << 24));
        }
        assert!(total <= data.len());
    }
}

/// A VP8 payload.
pub fn vp8_packet(data: &[u8]) {
    let descriptor = vp8::Vp8Descriptor::parse(data);
    assert!(descriptor.is_none_or(|descriptor| (1..=6).contains(&descriptor.len) && descriptor.len <= data.len()));
    if start(Codec::Vp8, data) == Start::Keyframe {
        assert!(descriptor.is_some_and(|descriptor| descriptor.partition_start && descriptor.partition == 0));
    }
}

/// A VP9 payload.
pub fn vp9_packet(data: &[u8]) {
    let descriptor = vp9::Vp9Descriptor::parse(data);
    assert!(descriptor.is_none_or(|descriptor| (1..=data.len()).contains(&descriptor.len)));
    let profile = Profile::of_payload(Codec::Vp9, data);
    if start(Codec::Vp9, data) == Start::Keyframe {
        assert!(descriptor.is_some_and(|descriptor| descriptor.frame_start && !descriptor.inter_picture));
    } else {
        assert_eq!(profile, None);
    }
}

/// An H.264 payload.
pub fn h264(data: &[u8]) {
    if let Some(unit) = crate::rtp::codec::h264::parameter_set(data) {
        assert!(crate::rtp::codec::h264_size::picture_size(unit).is_none_or(|(width, height)| width > 0 && height > 0));
    }
    start(Codec::H264, data);
    profile(Codec::H264, data);
    learn(Codec::H264, data);
}

/// An H.265 payload.
pub fn h265(data: &[u8]) {
    start(Codec::H265, data);
    profile(Codec::H265, data);
    learn(Codec::H265, data);
}

/// The parameter sets of a payload, twice, which changes nothing.
fn learn(codec: Codec, data: &[u8]) {
    let mut sets = ParameterSets::of(&format(codec, "")).expect("a codec with parameter sets");
    let found = sets.learn(data);
    let complete: Vec<Vec<u8>> = sets.complete().map(<[u8]>::to_vec).collect();
    assert!(complete.len() <= MAX_UNITS && complete.iter().all(|unit| unit.len() <= MAX_UNIT_LEN));
    assert!(sets.learn(data) == found && sets.complete().eq(complete));
}

fn format(codec: Codec, fmtp: &str) -> Format {
    Format { fmtp: fmtp.to_owned(), ..Format::new(96, codec) }
}

/// An AV1 payload.
pub fn av1(data: &[u8]) {
    start(Codec::Av1, data);
    profile(Codec::Av1, data);
    learn(Codec::Av1, data);
}

/// What the payload says of its stream's profile: it takes itself, and has a name that is no longer than a line.
fn profile(codec: Codec, data: &[u8]) {
    if let Some(profile) = Profile::of_payload(codec, data) {
        assert!(profile.decodes(profile) && profile.to_string().len() < 80);
    }
}

/// A RED payload, and what viewers get of it.
pub fn red_payload(data: &[u8]) {
    let mut out = vec![0; data.len()];
    let Ok(blocks) = red::blocks(data) else {
        assert!(red::check(data, 111).is_err());
        assert_eq!(red::write_payload(&mut out, data, Redundancy::Dropped), None);
        return;
    };
    let headers = 4 * blocks.clone().count() - 3;
    assert_eq!(headers + blocks.clone().map(|block| block.data.len()).sum::<usize>(), data.len());
    let last = blocks.clone().last().expect("there is always a primary block");
    assert_eq!(red::primary(data), Ok((last.payload_type, last.data)));
    assert_eq!(red::write_payload(&mut out, data, Redundancy::Dropped), Some(last.data.len()));
    assert_eq!(red::write_payload(&mut out, data, Redundancy::Kept(96)), Some(data.len()));
    let again = red::blocks(&out).expect("only payload types have changed");
    assert!(again.eq(blocks.map(|block| red::Block { payload_type: 96, ..block })));
}

/// Two `a=fmtp` lines, one under the other, compared for every codec.
pub fn fmtp(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (publisher, viewer) = text.split_once('\n').unwrap_or((text, text));
    for codec in [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::H265, Codec::Av1] {
        let (publisher, viewer) = (format(codec, publisher), format(codec, viewer));
        // What a description names is hostile, too.
        let _ = ParameterSets::of(&publisher).map(|sets| sets.complete().count());
        let sent = compat::Sent { format: &publisher, profile: None };
        let compatible = compat::compatible(sent, &viewer);
        assert_eq!(compat::carrier(sent, std::slice::from_ref(&viewer)).is_some(), compatible);
        // Whoever is compatible with it takes what it says itself.
        let described = |format| Profile::described(format).ok();
        assert!(!compatible || (described(&publisher).is_some() && described(&viewer).is_some()));
        assert!(!compatible || compat::compatible(sent, &publisher));
    }
}

/// An RTCP datagram, compound or not.
pub fn rtcp(data: &[u8]) {
    // Every packet has at least four bytes, so there is an end.
    let mut left = data.len() / 4 + 1;
    for packet in RtcpPackets::new(data) {
        left = left.checked_sub(1).expect("no more packets than bytes allow");
        let Ok(packet) = packet else { continue };
        match packet {
            RtcpPacket::SenderReport(report) => assert!(report.blocks().count() <= 31),
            RtcpPacket::ReceiverReport(report) => assert!(report.blocks().count() <= 31),
            RtcpPacket::Sdes(sdes) => assert!(sdes.items().count() <= data.len() / 2),
            RtcpPacket::Bye(bye) => assert!(bye.ssrcs().count() <= 31),
            RtcpPacket::Nack(nack) => assert!(nack.sequence_numbers().count() <= data.len() / 4 * 17),
            RtcpPacket::TransportFeedback(feedback) => {
                assert_eq!(feedback.packets().count(), usize::from(feedback.status_count));
            }
            RtcpPacket::CongestionControlFeedback(feedback) => {
                let reports: usize = feedback.streams().map(|stream| stream.packets().count()).sum();
                assert!(reports <= data.len() / 2);
            }
            RtcpPacket::Pli(_) => {}
            RtcpPacket::Fir(fir) => assert!(fir.entries().count() <= data.len() / 8),
            RtcpPacket::Remb(remb) => assert!(remb.ssrcs().count() <= 255),
            RtcpPacket::ExtendedReport(report) => {
                let _ = report.reference_time();
                assert!(report.delays().count() <= data.len() / 12);
            }
        }
    }
}

/// The body of a transport-wide feedback message, with a correct RTCP header.
pub fn transport_feedback(data: &[u8]) {
    let mut datagram = vec![0x8f, 205, 0, 0];
    datagram.extend_from_slice(&data[..data.len().min(1400)]);
    datagram.resize(datagram.len().next_multiple_of(4), 0);
    let words = (datagram.len() / 4 - 1) as u16;
    datagram[2..4].copy_from_slice(&words.to_be_bytes());
    rtcp(&datagram);
}

/// The body of congestion control feedback (RFC 8888).
pub fn ccfb(data: &[u8]) {
    let mut datagram = vec![0x8b, 205, 0, 0];
    datagram.extend_from_slice(&data[..data.len().min(1400)]);
    datagram.resize(datagram.len().next_multiple_of(4), 0);
    let words = (datagram.len() / 4 - 1) as u16;
    datagram[2..4].copy_from_slice(&words.to_be_bytes());
    rtcp(&datagram);
}

/// Packets as they were received, three bytes each: stream and mark, and when. What is written must come back.
pub fn ccfb_writer(data: &[u8]) {
    let now = 1 << 40;
    let mut packets: [Vec<Option<ReceivedPacket>>; 4] = Default::default();
    for &[kind, high, low] in data.as_chunks::<3>().0.iter().take(5_000) {
        let at = now - u64::from(u16::from_be_bytes([high, low])) * 200;
        let packet = ReceivedPacket { at, ecn: Ecn::from_bits(kind >> 2) };
        packets[usize::from(kind & 3)].push((kind & 0x30 != 0).then_some(packet));
    }
    let stream = |(index, packets): (usize, &Vec<_>)| (index as u32, packets.clone());
    let all: Vec<_> = packets.iter().enumerate().map(stream).collect();
    let report = |(ssrc, packets): &(u32, Vec<_>)| (*ssrc, packets.len());
    let expected: Vec<_> = all.iter().map(report).collect();
    let mut streams: Vec<_> =
        all.iter().map(|(ssrc, packets)| StreamReport { ssrc: *ssrc, begin_sequence: 0xff00, packets }).collect();
    let fields = CcfbFields { sender_ssrc: 1, report_timestamp: 2, now };
    let mut found = vec![0usize; 4];
    while streams.iter().any(|stream| !stream.packets.is_empty()) {
        let mut buffer = [0; MAX_RTCP_LEN];
        let mut writer = RtcpWriter::new(&mut buffer);
        writer.congestion_control_feedback(&fields, &mut streams).expect("an empty datagram has room");
        for packet in RtcpPackets::new(writer.as_bytes()) {
            let Ok(RtcpPacket::CongestionControlFeedback(feedback)) = packet else { panic!("it was feedback") };
            for (stream, (number, report)) in
                feedback.streams().flat_map(|stream| stream.packets().map(move |packet| (stream, packet)))
            {
                let index = usize::from(number.wrapping_sub(0xff00));
                let sent = all[stream.ssrc as usize].1[index];
                assert_eq!(sent.map(|packet| packet.ecn), report.map(|report| report.ecn));
                let offset = |packet: ReceivedPacket| ((now - packet.at) * 1024 / 1_000_000) as u16;
                let offset = sent.map(offset).filter(|&offset| offset < 0x1ffe);
                assert_eq!(offset, report.and_then(|report| report.offset));
                found[stream.ssrc as usize] += 1;
            }
        }
    }
    assert!(expected.iter().all(|&(ssrc, count)| found[ssrc as usize] == count), "{expected:?} {found:?}");
}

/// Arrivals, three bytes each: how many numbers and how many ticks since the one before. What is written must come back.
pub fn transport_feedback_writer(data: &[u8]) {
    let (mut sequence, mut at) = (0xff00u16, 77_000_000u64);
    let packets: Vec<_> = data
        .as_chunks::<3>()
        .0
        .iter()
        .take(5_000)
        .map(|&[skip, high, low]| {
            sequence = sequence.wrapping_add(1 + u16::from(skip & 0x0f) * u16::from(skip >> 7));
            let ticks = i64::from(i16::from_be_bytes([high, low]) >> (skip & 0x07));
            at = at.saturating_add_signed(ticks * 250).max(250);
            (sequence, (skip & 0x18 != 0).then_some(at))
        })
        .collect();
    let fields = FeedbackFields { sender_ssrc: 1, media_ssrc: 2, feedback_count: 3 };
    let mut rest = &packets[..];
    while !rest.is_empty() {
        let mut buffer = [0; MAX_RTCP_LEN];
        let mut writer = RtcpWriter::new(&mut buffer);
        let taken = writer.transport_feedback(&fields, rest).expect("an empty datagram has room");
        assert!(taken > 0, "every message gets further");
        let (front, after) = rest.split_at(taken);
        rest = after;
        let mut found: Vec<_> = Vec::new();
        for packet in RtcpPackets::new(writer.as_bytes()) {
            let Ok(RtcpPacket::TransportFeedback(feedback)) = packet else { panic!("it was feedback") };
            found.extend(feedback.packets().filter_map(|(sequence, at)| Some((sequence, at?))));
        }
        // Times on the wire wrap after 2^24 units of 64 ms; only their lower parts are compared.
        let expected = front.iter().filter_map(|&(sequence, at)| Some((sequence, at? / 250 * 250 % 64_000)));
        assert!(found.iter().map(|&(sequence, at)| (sequence, at.rem_euclid(64_000) as u64)).eq(expected));
    }
}

/// A source's packets, four bytes each: sequence number, timestamp step, time step; through all that counts them.
pub fn receive(data: &[u8]) {
    let mut now = Instant::now();
    let mut timestamp = 0u32;
    let mut sequences = SequenceExtender::new();
    let (mut stats, mut nack, mut round_trip) = (ReceiveStats::new(1), NackGenerator::new(), RoundTrip::new());
    for &[high, low, ticks, millis] in data.as_chunks::<4>().0 {
        now += Duration::from_millis(u64::from(millis));
        let sequence_number = u16::from_be_bytes([high, low]);
        timestamp = timestamp.wrapping_add(u32::from(ticks) << (ticks & 31));
        let sequence = sequences.extend(sequence_number);
        assert_eq!(sequence as u16, sequence_number);
        stats.on_rtp(now, sequence_number, timestamp, 90_000);
        if let Some(sample) = nack.on_packet(now, sequence).and_then(|answer| answer.round_trip) {
            round_trip.on_sample(now, sample);
        }
        assert!(nack.poll(now, &mut round_trip).len() <= MAX_PENDING);
        assert!((MIN_INTERVAL..=MAX_INTERVAL).contains(&round_trip.interval()));
        if ticks == 1 {
            stats.on_sender_report(now, NtpTime(u64::from(timestamp) << 20));
        }
        let block = stats.report(now).expect("a packet was received");
        assert!((-0x80_0000..=0x7f_ffff).contains(&block.cumulative_lost));
    }
}
