//! One peer: its lifecycle, its connectivity, what it sends, and what it is sent.

#![deny(clippy::disallowed_types)]

mod budgets;
mod connectivity;
mod evidence;
mod inbound;
mod lifecycle;
mod publisher_media;
mod rtcp_in;
mod rtcp_out;
mod standing;
mod viewer_media;

use std::net::SocketAddr;
use std::time::Instant;

use smallvec::SmallVec;
use tokio::sync::mpsc;

use crate::config::CoreConfig;
use crate::dtls::DtlsContext;
use crate::egress::{Chosen, FanOutPass, Served, Viewer};
use crate::ice::AgentTransmit;
use crate::ingest::Ingest;
use crate::layers::LayerSelection;
use crate::ledger::{Reason, Stage, WarningCode};
use crate::media::{MediaKind, MediaSection, Role, TrackId};
use crate::net::{Outbound, TransportTuple};
use crate::spec::{DtlsParameters, SessionId, SessionLimits, SessionSpec};
use crate::srtp::SrtpSender;
use crate::stats::SessionStats;
use crate::stream::{PublishedTrack, RequestLimit, Tracks};

use connectivity::Connectivity;
use inbound::Inbound;
use lifecycle::{Facts, Lifecycle, MediaFacts};
use publisher_media::{Published, ReceivedMedium};
use rtcp_in::ReferenceTimes;
use rtcp_out::PublisherReports;
use viewer_media::{SentMedium, Watched};

pub(crate) use connectivity::{Completed, GenerationOver};
pub(crate) use inbound::{Secure, Unprotected};
pub(crate) use rtcp_in::RtcpContext;

/// A session inside its shard: all that there is of a peer. What every fan-out pass needs stands in front.
#[repr(C)]
pub(crate) struct Session {
    /// Where to send: the tuple of the selected pair.
    pub(crate) selected: Option<TransportTuple>,
    pub(crate) media: Media,
    pub(crate) id: SessionId,
    pub(crate) role: Role,
    /// Key of its stream in the shard.
    pub(crate) stream: usize,
    pub(crate) negotiated: Negotiated,
    pub(crate) connectivity: Connectivity,
    pub(crate) inbound: Inbound,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) stats: SessionStats,
    /// What a viewer wants of its tracks.
    selections: SmallVec<[(TrackId, LayerSelection); 1]>,
}

/// What a peer does once SRTP keys are installed.
#[expect(
    clippy::large_enum_variant,
    reason = "most sessions are viewers, and a fan-out pass reads them without a detour"
)]
pub(crate) enum Media {
    /// There are no keys yet.
    Pending,
    /// It publishes.
    Publisher(Box<Publisher>),
    /// It watches.
    Viewer(Watching),
}

impl Media {
    /// The keys of what is sent to it.
    fn srtp(&self) -> Option<&SrtpSender> {
        match self {
            Media::Pending => None,
            Media::Publisher(publisher) => Some(&publisher.srtp),
            Media::Viewer(watching) => Some(watching.viewer.srtp()),
        }
    }
}

/// A connected publisher.
pub(crate) struct Publisher {
    pub(crate) ingest: Ingest,
    /// RTCP goes out through this.
    srtp: SrtpSender,
    reports: PublisherReports,
}

/// A connected viewer.
pub(crate) struct Watching {
    pub(crate) viewer: Viewer,
    /// How often it may request a keyframe.
    pub(crate) keyframe_requests: RequestLimit,
    /// Sequence number of its last FIR (RFC 5104 §4.3.1.1).
    fir_sequence: Option<u8>,
    reference_times: ReferenceTimes,
    /// When its next sender reports are due.
    next_report: Instant,
}

/// What both descriptions agreed and is needed while the session lives.
pub(crate) struct Negotiated {
    pub(crate) sections: Vec<MediaSection>,
    /// Offered, and rejected in the answer.
    pub(crate) refused: Vec<MediaSection>,
    pub(crate) cname: String,
    pub(crate) dtls: DtlsParameters,
    limits: SessionLimits,
    /// The one that the answer announced, whichever is the present one.
    pub(crate) certificate: DtlsContext,
    /// All sections agreed on RTCP without a report in front (RFC 5506).
    reduced_size_rtcp: bool,
}

impl Negotiated {
    /// True if some packet may be asked for that can be repaired without RTX alone.
    pub(crate) fn repairs_bit_for_bit(&self) -> bool {
        let mut formats = self.sections.iter().flat_map(|section| &section.formats);
        formats.any(|format| format.feedback.nack && format.rtx_payload_type.is_none())
    }

    /// True for an SSRC that the peer's description named as one of its own.
    fn announces(&self, ssrc: u32) -> bool {
        let mut declared = self.sections.iter().flat_map(|section| &section.declared_ssrcs);
        declared.any(|&(media, rtx)| media == ssrc || rtx == Some(ssrc))
    }
}

impl Session {
    /// A session at its creation. `stream` is the key of its stream in the shard.
    pub(crate) fn new(
        now: Instant,
        (spec, certificate): (SessionSpec, DtlsContext),
        stream: usize,
        config: &CoreConfig,
        (local_address, agents): (SocketAddr, &mpsc::Sender<AgentTransmit>),
    ) -> Session {
        Session {
            selected: None,
            media: Media::Pending,
            id: spec.id,
            role: spec.role,
            stream,
            connectivity: Connectivity::new(&spec, local_address, agents, config),
            inbound: Inbound::new(spec.role, spec.limits),
            lifecycle: Lifecycle::new(now, spec.role, config),
            stats: SessionStats::default(),
            selections: SmallVec::new(),
            negotiated: Negotiated {
                reduced_size_rtcp: spec.sections.iter().all(|section| section.reduced_size_rtcp),
                sections: spec.sections,
                refused: spec.refused,
                cname: spec.cname,
                limits: spec.limits,
                dtls: spec.dtls,
                certificate,
            },
        }
    }

    /// A valid check came by this tuple: what goes to the peer leaves from the address that it was sent to. It changes where
    /// this machine's address does and a NAT in front stays.
    pub(crate) fn follow_local_address(&mut self, tuple: TransportTuple) {
        let known = self.connectivity.validated.iter_mut().find(|known| known.remote == tuple.remote);
        if let Some(known) = known.filter(|known| known.local != tuple.local) {
            *known = tuple;
            if self.selected.is_some_and(|selected| selected.remote == tuple.remote) {
                self.selected = Some(tuple);
            }
        }
    }

    /// The keys are installed: it publishes.
    pub(crate) fn begin_publishing(&mut self, now: Instant, mut ingest: Ingest, srtp: SrtpSender, config: &CoreConfig) {
        if let Some(limit) = self.inbound.budgets.bitrate_limit() {
            ingest.limit_bitrate(now, limit);
        }
        self.lifecycle.begin_publishing(now, ingest.receptions().map(|(track, _)| track), config);
        let reports = PublisherReports::new(now);
        self.media = Media::Publisher(Box::new(Publisher { ingest, srtp, reports }));
    }

    /// The keys are installed: it watches. Encodings, by track and position, that need a keyframe so that it can begin.
    pub(crate) fn begin_watching(
        &mut self,
        now: Instant,
        mut viewer: Viewer,
        tracks: &Tracks,
        config: &CoreConfig,
    ) -> SmallVec<[(TrackId, u8); 2]> {
        let media = viewer.media();
        viewer.congestion_mut().limit(now, self.negotiated.limits, media);
        viewer.set_dscp(config.dscp);
        if config.l4s {
            viewer.congestion_mut().set_ect1(now, media);
        }
        for (track, selection) in self.selections.drain(..) {
            viewer.select_layer(track, selection);
        }
        let needed = viewer.start(now, tracks);
        self.lifecycle.begin_watching(config);
        self.media = Media::Viewer(Watching {
            viewer,
            keyframe_requests: RequestLimit::new(),
            fir_sequence: None,
            reference_times: ReferenceTimes::default(),
            next_report: now,
        });
        needed
    }

    /// What a viewer wants of a track from now on. Before it is connected it is remembered.
    pub(crate) fn select_layer(&mut self, track: TrackId, selection: LayerSelection) {
        match &mut self.media {
            Media::Viewer(watching) => watching.viewer.select_layer(track, selection),
            Media::Publisher(_) => {}
            Media::Pending => {
                let is_received = |(known, _): (TrackId, &MediaSection)| known == track;
                if TrackId::of_sections(&self.negotiated.sections).any(is_received) {
                    self.selections.retain(|(known, _)| *known != track);
                    self.selections.push((track, selection));
                }
            }
        }
    }

    /// Chooses a viewer's layers. Encodings, by track and position, that need a keyframe for that, as far as it may request
    /// some; with them whether there is something to be sent.
    pub(crate) fn choose_layers(&mut self, now: Instant, tracks: &Tracks) -> Chosen {
        let Media::Viewer(watching) = &mut self.media else { return Chosen::default() };
        let was_paused = watching.viewer.is_video_paused();
        let requests = &mut watching.keyframe_requests;
        let chosen = watching.viewer.choose_layers(now, tracks, || requests.allow(now));
        let key = (WarningCode::VideoPaused, Some(MediaKind::Video));
        match (was_paused, watching.viewer.is_video_paused()) {
            (false, true) => {
                let estimate = watching.viewer.congestion().estimate() / 1_000;
                let detail =
                    format!("the path carries {estimate} kbit/s as estimated, and the lowest layer needs more");
                self.lifecycle.warn(now, Stage::Media, key, detail);
            }
            (true, false) => self.lifecycle.clear(now, Stage::Media, key),
            _ => {}
        }
        chosen
    }

    /// Judges its stages. `Some` means: end it for this reason. `published` are the tracks of the stream's publisher.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        tracks: &Tracks,
        published: Option<&[PublishedTrack]>,
    ) -> Option<Reason> {
        let (last_authentic, lifecycle) = (self.lifecycle.last_authentic(), &mut self.lifecycle);
        self.inbound.budgets.poll(now, |code, detail| match detail {
            Some(detail) => lifecycle.warn(now, Stage::Media, (code, None), detail),
            None => lifecycle.clear(now, Stage::Media, (code, None)),
        });
        if self.media.srtp().is_some_and(SrtpSender::is_used_up) {
            return Some(Reason::SrtpKeyUsedUp);
        }
        let media = match &self.media {
            Media::Pending => MediaFacts::Pending,
            Media::Publisher(publisher) => MediaFacts::Publisher(Published {
                media: publisher.received(),
                keyframe_requests: self.stats.keyframe_requests,
                rtp_received: self.stats.rtp_received,
                dropped: &self.inbound.dropped,
                last_authentic,
            }),
            Media::Viewer(watching) => MediaFacts::Viewer(Watched {
                has_publisher: published.is_some(),
                media: watching.sent(tracks, published),
                last_authentic,
            }),
        };
        let facts = Facts {
            refusals: self.connectivity.refusals(),
            dtls_received: self.inbound.dtls_received,
            dropped: &self.inbound.dropped,
            refused_stream: self.inbound.refused_stream,
            media,
        };
        self.lifecycle.poll(now, &facts)
    }

    /// As if the keys of what is sent to it had no more than the reserve left.
    #[cfg(test)]
    pub(crate) fn wear_keys(&mut self) {
        match &mut self.media {
            Media::Pending => {}
            Media::Publisher(publisher) => publisher.srtp.leave(1, 1),
            Media::Viewer(watching) => watching.viewer.srtp_and_tracks().0.leave(1, 1),
        }
    }

    /// The receiving side of a connected publisher.
    pub(crate) fn ingest_mut(&mut self) -> Option<&mut Ingest> {
        match &mut self.media {
            Media::Publisher(publisher) => Some(&mut publisher.ingest),
            _ => None,
        }
    }

    /// Sends a viewer what a fan-out pass has for it.
    #[inline]
    pub(crate) fn serve(&mut self, pass: &FanOutPass<'_>, out: &mut Outbound) -> Served {
        let (Media::Viewer(watching), Some(tuple)) = (&mut self.media, self.selected) else { return Served::default() };
        let is_first = watching.viewer.sent().packets == 0;
        let served = watching.viewer.serve(pass, tuple, out);
        if is_first && served.packets > 0 {
            self.lifecycle.on_rtp_sent(pass.now);
        }
        served
    }

    /// Counts a keyframe request of a viewer; false if it is one too many.
    pub(crate) fn allows_keyframe_request(&mut self, now: Instant) -> bool {
        match &mut self.media {
            Media::Viewer(watching) => watching.keyframe_requests.allow(now),
            _ => false,
        }
    }

    /// Its figures.
    pub(crate) fn stats(&self) -> SessionStats {
        let Media::Viewer(watching) = &self.media else { return self.stats.clone() };
        let (sent, congestion) = (watching.viewer.sent(), watching.viewer.congestion());
        let estimate = congestion.has_feedback().then(|| congestion.snapshot());
        SessionStats {
            rtp_sent: sent.packets,
            rtp_sent_bytes: sent.bytes,
            rtp_shed: sent.dropped,
            available_outgoing_bitrate: estimate.map(|estimate| estimate.available_outgoing_bitrate),
            layer: watching.viewer.sent_layer(),
            video_paused: watching.viewer.is_video_paused(),
            queueing_delay: estimate.map(|estimate| estimate.queueing_delay.as_secs_f64()),
            ..self.stats.clone()
        }
    }
}

impl Publisher {
    fn received(&self) -> SmallVec<[ReceivedMedium; 2]> {
        let received = self.ingest.receptions().map(|(track, reception)| {
            let takes_requests = self.ingest.takes_keyframe_requests(track);
            ReceivedMedium { track, reception, takes_requests }
        });
        received.collect()
    }
}

impl Watching {
    fn sent(&self, tracks: &Tracks, published: Option<&[PublishedTrack]>) -> SmallVec<[SentMedium; 2]> {
        let media = self.viewer.tracks().iter().map(|track| {
            let id = track.id();
            let is_published = published.is_some_and(|published| published.iter().any(|known| known.id == id));
            let source = tracks.get(id).filter(|_| is_published && track.has_formats()).map(|track| track.source);
            SentMedium { track: id, source, is_paused: track.is_paused(), sent: track.packets_sent() }
        });
        media.collect()
    }
}
