//! The SSRCs of a publisher, and which section each of them belongs to (RTP-02).

use std::time::Instant;

use crate::media::{MediaSection, TrackId};
use crate::rtp::RtpHeader;
use crate::srtp::MAX_INBOUND_SSRCS;
use crate::stats::DropReason;

use super::section::{PayloadUse, SectionReceiver};

/// SSRCs of one publisher that are told apart, as many as SRTP lets in; media and RTX of two sections are four.
pub(super) const MAX_SSRCS: usize = MAX_INBOUND_SSRCS;

/// The SSRCs that were declared or received, oldest first.
pub(super) struct KnownSsrcs(Vec<KnownSsrc>);

/// An SSRC, of media or RTX.
pub(super) struct KnownSsrc {
    ssrc: u32,
    /// The track of its section.
    pub(super) track: TrackId,
    /// Its section received it before: a MID alone does not bring it back, else two SSRCs that both send would replace each
    /// other with every packet.
    pub(super) was_adopted: bool,
    /// Sequence number of the last packet that its section did not take.
    pub(super) last_number: Option<u16>,
    last_packet: Instant,
}

impl KnownSsrcs {
    /// Those that the sections declare.
    pub(super) fn declared(now: Instant, sections: &[MediaSection]) -> KnownSsrcs {
        let mut known = Vec::with_capacity(MAX_SSRCS);
        for (track, section) in TrackId::of_sections(sections) {
            let ssrcs = section.declared_ssrcs.iter().flat_map(|&(media, rtx)| std::iter::once(media).chain(rtx));
            let room = MAX_SSRCS - known.len();
            let fresh = |ssrc| KnownSsrc { ssrc, track, was_adopted: false, last_number: None, last_packet: now };
            known.extend(ssrcs.take(room).map(fresh));
        }
        KnownSsrcs(known)
    }

    /// The entry of the packet's SSRC. A new one belongs to the section that its MID names, or to the only one that knows
    /// its payload type, and takes the place of the one that is idle for longest if there are too many.
    ///
    /// # Errors
    /// [`DropReason::UnknownRtpStream`] if there is no such section.
    pub(super) fn find(
        &mut self,
        now: Instant,
        header: &RtpHeader,
        packet: &[u8],
        sections: &[SectionReceiver],
    ) -> Result<&mut KnownSsrc, DropReason> {
        let index = match self.0.iter().position(|known| known.ssrc == header.ssrc) {
            Some(index) => index,
            None => {
                let track = track_of(header, packet, sections).ok_or(DropReason::UnknownRtpStream)?;
                if self.0.len() == MAX_SSRCS {
                    self.remove_idle();
                }
                let (was_adopted, last_number, last_packet) = (false, None, now);
                self.0.push(KnownSsrc { ssrc: header.ssrc, track, was_adopted, last_number, last_packet });
                self.0.len() - 1
            }
        };
        let known = &mut self.0[index];
        known.last_packet = now;
        Ok(known)
    }

    fn remove_idle(&mut self) {
        let idle = self.0.iter().enumerate().min_by_key(|(_, known)| known.last_packet);
        if let Some((index, _)) = idle {
            self.0.remove(index);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// By MID, else by payload type.
fn track_of(header: &RtpHeader, packet: &[u8], sections: &[SectionReceiver]) -> Option<TrackId> {
    if let Some(named) = sections.iter().find(|section| section.is_named_by(header, packet)) {
        return Some(named.track);
    }
    let mut users = sections.iter().filter(|section| section.payload_use(header.payload_type) != PayloadUse::Unknown);
    match (users.next(), users.next()) {
        (Some(section), None) => Some(section.track),
        _ => None,
    }
}
