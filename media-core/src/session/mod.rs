//! One peer: its lifecycle, its connectivity, what it sends, and what it is sent.

#![deny(clippy::disallowed_types)]

mod connectivity;
mod inbound;
mod lifecycle;
mod rtcp_in;
mod rtcp_out;

use std::net::SocketAddr;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::config::CoreConfig;
use crate::egress::{FanOutPass, Served, Viewer};
use crate::ice::AgentTransmit;
use crate::ingest::Ingest;
use crate::media::{MediaKind, MediaSection, Role};
use crate::net::{Outbound, TransportTuple};
use crate::spec::{DtlsParameters, SessionId, SessionSpec};
use crate::srtp::SrtpSender;
use crate::stats::SessionStats;
use crate::stream::RequestLimit;

use connectivity::Connectivity;
use inbound::Inbound;
use lifecycle::Lifecycle;
use rtcp_in::ReferenceTimes;
use rtcp_out::PublisherReports;

pub(crate) use inbound::Secure;
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
}

/// What a peer does once SRTP keys are installed.
pub(crate) enum Media {
    /// There are no keys yet.
    Pending,
    /// It publishes.
    Publisher(Box<Publisher>),
    /// It watches.
    Viewer(Watching),
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
    pub(crate) cname: String,
    pub(crate) dtls: DtlsParameters,
    /// All sections agreed on RTCP without a report in front (RFC 5506).
    reduced_size_rtcp: bool,
}

impl Session {
    /// A session at its creation. `stream` is the key of its stream in the shard.
    pub(crate) fn new(
        now: Instant,
        spec: SessionSpec,
        stream: usize,
        config: &CoreConfig,
        (local_address, agents): (SocketAddr, &mpsc::Sender<AgentTransmit>),
    ) -> Session {
        let has_video = spec.sections.iter().any(|section| section.kind == MediaKind::Video);
        Session {
            selected: None,
            media: Media::Pending,
            id: spec.id,
            role: spec.role,
            stream,
            connectivity: Connectivity::new(&spec, local_address, agents, config.ice_timeout),
            inbound: Inbound::new(),
            lifecycle: Lifecycle::new(now, spec.role, has_video, config),
            stats: SessionStats::default(),
            negotiated: Negotiated {
                reduced_size_rtcp: spec.sections.iter().all(|section| section.reduced_size_rtcp),
                sections: spec.sections,
                cname: spec.cname,
                dtls: spec.dtls,
            },
        }
    }

    /// The keys are installed: it publishes.
    pub(crate) fn begin_publishing(&mut self, now: Instant, ingest: Ingest, srtp: SrtpSender) {
        let reports = PublisherReports::new(now);
        self.media = Media::Publisher(Box::new(Publisher { ingest, srtp, reports }));
    }

    /// The keys are installed: it watches.
    pub(crate) fn begin_watching(&mut self, now: Instant, viewer: Viewer) {
        self.media = Media::Viewer(Watching {
            viewer,
            keyframe_requests: RequestLimit::new(),
            fir_sequence: None,
            reference_times: ReferenceTimes::default(),
            next_report: now,
        });
    }

    /// The viewer, once it is connected.
    pub(crate) fn viewer_mut(&mut self) -> Option<&mut Viewer> {
        match &mut self.media {
            Media::Viewer(watching) => Some(&mut watching.viewer),
            _ => None,
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
            queueing_delay: estimate.map(|estimate| estimate.queueing_delay.as_secs_f64()),
            ..self.stats.clone()
        }
    }
}
