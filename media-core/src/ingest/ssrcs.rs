//! The SSRCs of a publisher, and which section and encoding each of them belongs to (RTP-02).

use std::time::{Duration, Instant};

use crate::media::TrackId;
use crate::rtp::RtpHeader;
use crate::srtp::MAX_INBOUND_SSRCS;
use crate::stats::DropReason;

use super::section::{PayloadUse, SectionReceiver};

/// SSRCs of one publisher that are told apart, as many as SRTP lets in; media and RTX of audio and four encodings are ten.
pub(super) const MAX_SSRCS: usize = MAX_INBOUND_SSRCS;

/// The SSRCs that were declared or received, oldest first.
pub(super) struct KnownSsrcs(Vec<KnownSsrc>);

/// An SSRC, of media or RTX.
pub(super) struct KnownSsrc {
    ssrc: u32,
    /// The track of its section.
    pub(super) track: TrackId,
    /// The encoding that it belongs to, as media or RTX, once that is known: a rid comes with the first packets only.
    pub(super) encoding: Option<u8>,
    /// Its section received it before: a MID alone does not bring it back, else two SSRCs that both send would replace each
    /// other with every packet.
    pub(super) was_adopted: bool,
    /// When its last packet was received, of media or RTX, or it was declared.
    last_packet: Instant,
    last_media: Option<LastMedia>,
}

/// The last packet of media of an SSRC.
#[derive(Clone, Copy)]
struct LastMedia {
    received: Instant,
    sequence_number: u16,
    /// When the SSRC came back after silence.
    came_back: Option<Instant>,
}

/// What the packets of an SSRC up to the present one show.
#[derive(Clone, Copy)]
pub(super) struct Heard {
    /// The packet follows on the one before.
    pub(super) in_order: bool,
    /// The SSRC has come back after silence, no longer ago than silence lasts.
    pub(super) came_back: bool,
}

impl KnownSsrc {
    fn new(now: Instant, ssrc: u32, section: &SectionReceiver) -> KnownSsrc {
        let (track, encoding) = (section.track(), section.encoding_of(ssrc));
        KnownSsrc { ssrc, track, encoding, was_adopted: false, last_packet: now, last_media: None }
    }

    /// Notes a packet of media; nothing received for `silence` is silence.
    pub(super) fn hear(&mut self, now: Instant, sequence_number: u16, silence: Duration) -> Heard {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < silence;
        let last = self.last_media;
        let in_order = last.is_some_and(|last| last.sequence_number.wrapping_add(1) == sequence_number);
        let was_silent = last.is_some_and(|last| !is_recent(last.received));
        let came_back = if was_silent { Some(now) } else { last.and_then(|last| last.came_back) };
        self.last_media = Some(LastMedia { received: now, sequence_number, came_back });
        Heard { in_order, came_back: came_back.is_some_and(is_recent) }
    }
}

impl KnownSsrcs {
    /// Those that the sections declare.
    pub(super) fn declared(now: Instant, sections: &[SectionReceiver]) -> KnownSsrcs {
        let mut known = Vec::with_capacity(MAX_SSRCS);
        for section in sections {
            let declared = section.negotiated().declared_ssrcs.iter();
            let ssrcs = declared.flat_map(|&(media, rtx)| std::iter::once(media).chain(rtx));
            let room = MAX_SSRCS - known.len();
            known.extend(ssrcs.take(room).map(|ssrc| KnownSsrc::new(now, ssrc, section)));
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
                let section = section_of(header, packet, sections).ok_or(DropReason::UnknownRtpStream)?;
                if self.0.len() == MAX_SSRCS {
                    self.remove_idle();
                }
                self.0.push(KnownSsrc::new(now, header.ssrc, section));
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
fn section_of<'a>(header: &RtpHeader, packet: &[u8], sections: &'a [SectionReceiver]) -> Option<&'a SectionReceiver> {
    if let Some(named) = sections.iter().find(|section| section.is_named_by(header, packet)) {
        return Some(named);
    }
    let mut users = sections.iter().filter(|section| section.payload_use(header.payload_type) != PayloadUse::Unknown);
    users.next().filter(|_| users.next().is_none())
}
