//! One payload type in several sections of a publisher (RFC 9143 §9.1.1, §9.2).
//!
//! On one transport a packet's section is found by its MID, else by its SSRC, else by its payload type. Where a payload type
//! stands in two sections, one of the first two must decide: else no packet of it can be placed, and nothing ever arrives.

use media_core::media::Extension;

use super::SdpError;
use super::negotiate::{Agreed, LiveSection};
use super::offer::Section;
use crate::problem::Slug;

/// Refuses a publisher's sections of which one format can never be received. A shared number that stands for RTX is given
/// up: repair is worth less than the other section's media.
pub(super) fn settle(offered: &[Section], sections: &mut [Agreed]) -> Result<(), SdpError> {
    for payload_type in 0..=127 {
        let uses = |section: &Agreed| section.live().is_some_and(|live| uses(live, payload_type));
        let undecided =
            |section: &Agreed| uses(section) && section.live().is_some_and(|live| !tells_packets_apart(live));
        let is_shared = |sections: &[Agreed]| {
            sections.iter().filter(|section| uses(section)).count() > 1 && sections.iter().any(undecided)
        };
        if !is_shared(sections) {
            continue;
        }
        for section in sections.iter_mut() {
            give_up_rtx(section, payload_type);
        }
        if is_shared(sections) {
            return Err(refusal(offered, sections, payload_type));
        }
    }
    Ok(())
}

fn uses(section: &LiveSection, payload_type: u8) -> bool {
    let mut formats = section.media.formats.iter();
    formats.any(|format| format.payload_type == payload_type || format.rtx_payload_type == Some(payload_type))
}

/// MIDs or declared SSRCs name the section of its packets.
fn tells_packets_apart(section: &LiveSection) -> bool {
    let has_mids = section.has_mid && section.media.extensions.id(Extension::Mid).is_some();
    has_mids || !section.media.declared_ssrcs.is_empty()
}

fn give_up_rtx(section: &mut Agreed, payload_type: u8) {
    let Agreed::Live(live) = section else { return };
    for format in &mut live.media.formats {
        format.rtx_payload_type = format.rtx_payload_type.filter(|rtx| *rtx != payload_type);
    }
}

fn refusal(offered: &[Section], sections: &[Agreed], payload_type: u8) -> SdpError {
    let mut places = Vec::new();
    for (offered, agreed) in offered.iter().zip(sections) {
        let formats = agreed.live().map_or(&[][..], |live| &live.media.formats);
        if let Some(format) = formats.iter().find(|format| format.payload_type == payload_type) {
            places.push(format!("{} in {}", format.codec, offered.name()));
        }
    }
    let detail = format!(
        "payload type {payload_type} stands for {}: on one transport their packets cannot be told apart (RFC 9143 §9.1.1); \
         give each format a number of its own, or offer the MID header extension ({}), or declare the SSRCs (a=ssrc)",
        places.join(" and for "),
        Extension::Mid.uri()
    );
    SdpError::new(Slug::SdpSemantics, detail)
}
