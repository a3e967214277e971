//! Entry points of the fuzz targets: one function a parser, which takes any bytes and panics only over a bug.
//!
//! `fuzz/` calls them from libFuzzer; `tests/fuzz_corpus/` runs the corpus and mutations of it through them with every test
//! run. A new parser needs a function here, a line in [`TARGETS`], a file in `fuzz/fuzz_targets/` with its `[[bin]]`, and a
//! directory of samples in `fuzz/corpus/`; a test sees to it that none is forgotten.

use std::net::IpAddr;

use http::header::{FORWARDED, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use media_core::fuzzing::{Target, target};
use media_core::layers::{Layer, LayerReport, MAX_ENCODINGS, OperatingPoint};
use media_core::media::{Codec, Format, TrackId};
use media_core::negotiation::MAX_REMOTE_CANDIDATES;
use media_core::{Fingerprint, FingerprintHash, IceCredentials, IceMode, LocalCandidate, Protocol};

use crate::auth::{self, AccessToken, KeySet, hashed_line};
use crate::client_address::ClientAddress;
use crate::registry::{KnownLayers, Published, TrackRecord};
use crate::request::IfMatch;
use crate::sdp::answer::{self, Local};
use crate::sdp::counter_offer;
use crate::sdp::negotiate::{self, Agreed, Agreement, own_candidate};
use crate::sdp::offer::Offer;
use crate::sdpfrag::Fragment;
use crate::site::Site;
use crate::{events, layer_selection};

/// Every fuzz target.
pub const TARGETS: &[Target] = &[
    target("access_token", access_token),
    target("authorization", authorization),
    target("forwarded", forwarded),
    target("if_match", if_match),
    target("jwt_keys", jwt_keys),
    target("offer", offer),
    target("sdpfrag", sdpfrag),
    target("site", site),
    target("webhook_answer", webhook_answer),
    target("whep_extensions", whep_extensions),
];

/// Lines of a token file.
pub fn access_token(data: &[u8]) {
    for line in String::from_utf8_lossy(data).lines() {
        let Ok(token) = line.parse::<AccessToken>() else { continue };
        let shown = token.to_string();
        assert_eq!(shown, format!("{token:?}"));
        let right = shown.strip_suffix("=<redacted>").expect("no token in the text form");
        // What is shown can be written again, with another token.
        let again: AccessToken = format!("{right}=other").parse().expect("the same right");
        assert_eq!(again.to_string(), shown);
        assert!(hashed_line(right, "other").is_ok_and(|line| line.parse() == Ok(again)));
    }
}

/// An Authorization header, judged as a static token and as a JWT of known keys.
pub fn authorization(data: &[u8]) {
    auth::fuzz_authorization(data);
}

/// A file of keys, and what a JWKS URL answers.
pub fn jwt_keys(data: &[u8]) {
    if let Ok(keys) = KeySet::from_url(data) {
        assert!(!keys.is_empty());
        assert!(KeySet::from_file(data).is_ok(), "a file may hold what a URL may");
    }
    assert!(!KeySet::from_file(data).is_ok_and(|keys| keys.is_empty()));
}

/// What the webhook answers.
pub fn webhook_answer(data: &[u8]) {
    auth::fuzz_webhook_answer(data);
}

/// `X-Forwarded-For` on the first line, `Forwarded` on the others: only what a trusted proxy passes on counts.
pub fn forwarded(data: &[u8]) {
    let names = std::iter::once(HeaderName::from_static("x-forwarded-for")).chain(std::iter::repeat(FORWARDED));
    let lines = data.split(|byte| *byte == b'\n').zip(names);
    let headers: HeaderMap =
        lines.filter_map(|(line, name)| Some((name, HeaderValue::from_bytes(line).ok()?))).collect();
    let [proxy, other]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [192, 0, 2, 1].into()];
    let trusted = ["10.0.0.0/8".parse().expect("a fixed prefix")];
    assert_eq!(ClientAddress::behind(other, &headers, &trusted).0, other);
    let client = ClientAddress::behind(proxy, &headers, &trusted).0;
    assert!(client.to_canonical() == client);
}

/// If-Match fields, one a line, judged against an ETag.
pub fn if_match(data: &[u8]) {
    let fields: Vec<HeaderValue> =
        data.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    let verdict = IfMatch::judge(fields.iter(), "\"abc\"");
    assert_eq!(verdict == IfMatch::Missing, fields.is_empty());
    if verdict == IfMatch::Matches {
        assert!(fields.iter().any(|field| field.as_bytes().windows(3).any(|window| window == b"abc")));
    }
}

/// An offer, as a publisher's and as a viewer's, and the answers to it.
pub fn offer(data: &[u8]) {
    let Ok(offer) = Offer::parse(data) else { return };
    if let Ok(agreement) = negotiate::publisher(&offer, MAX_ENCODINGS) {
        for encoding in agreement.live().flat_map(|live| &live.media.simulcast) {
            assert!(encoding.rid.is_some() != encoding.ssrc.is_some(), "{encoding:?}");
        }
        assert!(agreement.live().all(|live| live.media.simulcast.len() <= MAX_ENCODINGS));
        check_answer(&offer, &agreement);
    }
    let published = Published { live: true, tracks: every_codec() };
    if let Ok(agreement) = negotiate::viewer(&offer, &published, [1, 2, 3, 4]) {
        assert!(agreement.live().all(|live| live.media.send_ssrcs.is_some() && live.media.simulcast.is_empty()));
        check_answer(&offer, &agreement);
    }
    // As the answer to an offer of the server's own.
    let sections = counter_offer::sections(&published, [1, 2, 3, 4]);
    if let Ok(agreement) = counter_offer::agree(&sections, &offer, &published, [1, 2, 3, 4]) {
        let offered: Vec<_> = sections.iter().filter_map(Agreed::live).flat_map(|live| &live.media.formats).collect();
        let agreed = agreement.live().flat_map(|live| &live.media.formats);
        for format in agreed {
            let is_it = |known: &&Format| known.payload_type == format.payload_type && known.codec == format.codec;
            assert!(offered.iter().any(is_it), "{format:?} was not offered");
        }
        check_answer(&offer, &agreement);
    }
}

/// Nothing that an offer says breaks a line of its answer or opens a section.
fn check_answer(offer: &Offer, agreement: &Agreement) {
    assert_eq!(agreement.sections.len(), offer.sections.len());
    assert!(agreement.live().count() >= 1 && agreement.remote_candidates.len() <= MAX_REMOTE_CANDIDATES);
    let candidate = |address: &str| LocalCandidate {
        protocol: Protocol::Udp,
        address: address.parse().expect("a fixed address"),
        priority: 2_130_706_431,
        foundation: 1,
    };
    let text = answer::write(
        agreement,
        &Local {
            session_id: 1,
            ice: &IceCredentials { ufrag: "ufrag".to_owned(), pwd: "password-of-24-characters".to_owned() },
            ice_mode: IceMode::Lite,
            trickle: true,
            rtcp_mux_only: true,
            candidates: &[candidate("[2001:db8::1]:50000"), candidate("192.0.2.1:50000")],
            fingerprint: &Fingerprint { hash: FingerprintHash::Sha256, digest: (0..32).collect() },
            stream_id: "stream",
            cname: "cname",
        },
    );
    let lines: Vec<&str> = text.strip_suffix("\r\n").expect("a last line with its end").split("\r\n").collect();
    assert_eq!(lines[0], "v=0");
    for line in &lines {
        assert!(line.len() > 2 && line.as_bytes()[1] == b'=', "{line:?}");
        assert!(!line.chars().any(|c| c.is_control() && c != '\t'), "{line:?}");
    }
    assert_eq!(lines.iter().filter(|line| line.starts_with("m=")).count(), offer.sections.len());
}

/// Tracks of a publisher that may send everything.
fn every_codec() -> Vec<TrackRecord> {
    let track = |id, codecs: &[Codec]| {
        let formats = (96..).zip(codecs).map(|(payload_type, codec)| Format::new(payload_type, *codec));
        TrackRecord::new(id, formats.collect())
    };
    vec![
        track(TrackId::AUDIO, &[Codec::Opus, Codec::Red, Codec::G722, Codec::Pcmu, Codec::Pcma]),
        track(TrackId::VIDEO, &[Codec::Vp8, Codec::Vp9, Codec::H264, Codec::H265, Codec::Av1]),
    ]
}

/// What a viewer asks for by the extensions of WHEP: events by their names, or a layer.
pub fn whep_extensions(data: &[u8]) {
    if let Ok(kinds) = events::read_kinds(data) {
        assert!(kinds == events::EventKinds::all() || serde_json::from_slice::<Vec<String>>(data).is_ok());
    }
    let report = |rid: Option<&str>, encoding, spatial| LayerReport {
        rid: rid.map(str::to_owned),
        layer: Layer {
            point: OperatingPoint { encoding, spatial, temporal: 0 },
            bitrate: 1,
            width: 0,
            height: 0,
            frame_rate: 0.0,
            keyframe_bytes: 0,
        },
    };
    let reports = vec![report(Some("q"), 0, 0), report(None, 1, 1)];
    let known = KnownLayers { lines: 2, video_line: Some(1), reports, rids: vec!["h".to_owned()] };
    if let Ok(Some(selection)) = layer_selection::selection(data, &known) {
        assert!(selection.rid.as_ref().is_none_or(|rid| known.has_rid(rid)));
        assert!(selection.max_width != Some(0) && selection.max_height != Some(0));
        assert!(known.has_layer(None, selection.spatial.map(u32::from), selection.temporal.map(u32::from)));
    }
}

/// A trickle fragment, and its candidates.
pub fn sdpfrag(data: &[u8]) {
    let Ok(fragment) = Fragment::parse(data) else { return };
    // Each has a line of its own: the body bounds them.
    assert!(fragment.candidates.len() + fragment.unusable <= data.len());
    let mids = ["0".to_owned(), "video1".to_owned()];
    for (part, line) in &fragment.candidates {
        let _ = part.belongs_to(&mids);
        if let Some(candidate) = own_candidate(line, "EsAw") {
            assert_ne!(candidate.address.port(), 0);
        }
    }
}

/// Host on the first line, Origin on the second one: what is the same origin is never from elsewhere.
pub fn site(data: &[u8]) {
    let mut request = Request::new(());
    for (line, name) in data.split(|byte| *byte == b'\n').zip([HOST, ORIGIN]) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            request.headers_mut().append(name, value);
        }
    }
    let site = Site::of(&request);
    assert_eq!(site.is_same_origin(), !site.is_from_elsewhere());
    if site.is_addressed_to(&[]) && !site.host().is_empty() {
        let bare = site.host().trim_matches(['[', ']', '.']);
        assert!(bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok(), "{bare}");
    }
}
