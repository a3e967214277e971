//! The tracks of a viewer whose packets carry transport-wide numbers.

use super::*;

pub(super) const VIDEO_SSRC: u32 = 10;
pub(super) const AUDIO_SSRC: u32 = 20;
/// Id of the transport-wide number.
pub(super) const NUMBER: u8 = 5;

/// Opus, and VP8 with RTX.
pub(super) fn numbered_tracks() -> [EgressTrack; 2] {
    let egress = |track: TrackId, ours: Format, theirs: Format, ssrc| {
        let mut extensions = ExtensionMap::default();
        extensions.set(Extension::TransportCc, NUMBER);
        let mut section = MediaSection {
            extensions,
            reduced_size_rtcp: true,
            send_ssrcs: Some(SendSsrcs { media: ssrc, rtx: ssrc + 1 }),
            ..MediaSection::new("0", track.kind, vec![ours])
        };
        section.formats[0].feedback.transport_cc = true;
        let mut egress = EgressTrack::new(track, &section, 7).unwrap();
        egress.set_publisher_formats(&[theirs], None);
        egress
    };
    let opus = format(111, Codec::Opus, None);
    let (ours, theirs) = (format(100, Codec::Vp8, Some(101)), format(96, Codec::Vp8, None));
    [egress(TrackId::AUDIO, opus.clone(), opus, AUDIO_SSRC), egress(TrackId::VIDEO, ours, theirs, VIDEO_SSRC)]
}
