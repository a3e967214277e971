//! One session inside its shard.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::ice::{AgentTransmit, Ice};
use crate::media::{MediaKind, MediaSection, Role};
use crate::net::TransportTuple;
use crate::rate::TokenBucket;
use crate::session::{CoreConfig, DtlsParameters, SessionId, SessionSpec, SessionStats};
use crate::srtp::{SrtpReceiver, SrtpSender};
use crate::stats::DropReason;
use crate::transport::Transport;

/// DTLS datagrams that one peer may send: a handshake takes some five, a hello in many fragments and every flight three
/// times over some sixty.
const DTLS_BURST: f64 = 100.0;
/// … and then so many a second.
const DTLS_PER_SECOND: f64 = 25.0;

/// Keyframe requests of one viewer that are heard: so many at once …
const KEYFRAME_WISHES: f64 = 5.0;
/// … and then so many a second.
const KEYFRAME_WISHES_PER_SECOND: f64 = 0.2;

/// Datagrams of media that are held while the handshake threads are at the keys (DMX-06): a peer may send media right
/// behind its last flight, a keyframe first, and some know no way to send another.
const EARLY_DATAGRAMS: usize = 64;
/// What was held longer is of no use any more.
const EARLY_TIME: Duration = Duration::from_millis(200);

/// A session and everything of it but what fan-out needs, which stands in its stream.
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) role: Role,
    /// Key of its stream in the shard.
    pub(super) stream: usize,
    pub(super) local_ufrag: String,
    pub(super) sections: Vec<MediaSection>,
    pub(super) cname: String,
    pub(super) dtls: DtlsParameters,
    pub(super) ice: Ice,
    /// The addresses that passed a check, with the local address each of them uses.
    pub(super) paths: Vec<TransportTuple>,
    /// Where to send.
    pub(super) path: Option<TransportTuple>,
    pub(super) transport: Transport,
    /// Bounds what this peer may put into the queue of the handshake threads, which all peers share.
    pub(super) dtls_limit: TokenBucket,
    pub(super) receiver: Option<SrtpReceiver>,
    /// What came before the keys.
    early: Vec<(Instant, TransportTuple, Vec<u8>)>,
    /// A publisher's RTCP goes out through this; a viewer's keys are in its subscription.
    pub(super) sender: Option<SrtpSender>,
    /// Index among its stream's viewers, once it is secured.
    pub(super) viewer: Option<usize>,
    pub(super) stats: SessionStats,
    /// When a publisher's next receiver report is due.
    pub(super) next_report: Instant,
    /// Bounds how often a viewer is heard that asks for keyframes.
    pub(super) keyframe_wishes: TokenBucket,
    /// Number of the last FIR, ours to a publisher or a viewer's to us (RFC 5104 §4.3.1.1).
    pub(super) fir_sequence: Option<u8>,
    /// Reference times of a viewer's receivers that are not answered yet: one for sound and one for the picture.
    pub(super) reference_times: [Option<ReferenceTime>; 2],
    /// Number of the next transport-wide feedback message to a publisher.
    pub(super) feedback_count: u8,
    /// All sections agreed on RTCP without a report in front (RFC 5506).
    pub(super) reduced_size_rtcp: bool,
    /// Losses of this publisher that the shard's counter has.
    pub(super) lost_counted: i64,
    /// Formats that came into use and of which control does not know yet, by kind.
    pub(super) new_formats: [Option<u8>; 2],
}

/// A viewer's receiver asks for its round-trip time (RFC 3611 §4.4).
#[derive(Clone, Copy, Debug)]
pub(super) struct ReferenceTime {
    /// The receiver.
    pub(super) ssrc: u32,
    /// Middle 32 bits of its clock.
    pub(super) time: u32,
    /// When that came.
    pub(super) came: Instant,
}

impl Session {
    pub(super) fn new(
        now: Instant,
        spec: SessionSpec,
        stream: usize,
        config: &CoreConfig,
        local_address: SocketAddr,
        agents: &tokio::sync::mpsc::Sender<AgentTransmit>,
    ) -> Session {
        let has_video = spec.sections.iter().any(|section| section.kind == MediaKind::Video);
        let local_ufrag = spec.ice.local.ufrag.clone();
        let ice = Ice::start(&spec.ice, spec.id, local_address, agents, config.ice_timeout);
        Session {
            reduced_size_rtcp: spec.sections.iter().all(|section| section.reduced_size_rtcp),
            lost_counted: 0,
            new_formats: [None; 2],
            id: spec.id,
            role: spec.role,
            stream,
            local_ufrag,
            sections: spec.sections,
            cname: spec.cname,
            dtls: spec.dtls,
            ice,
            paths: Vec::new(),
            path: None,
            transport: Transport::new(now, spec.role, has_video, config),
            dtls_limit: TokenBucket::new(DTLS_PER_SECOND, DTLS_BURST),
            receiver: None,
            early: Vec::new(),
            sender: None,
            viewer: None,
            stats: SessionStats::default(),
            next_report: now,
            keyframe_wishes: TokenBucket::new(KEYFRAME_WISHES_PER_SECOND, KEYFRAME_WISHES),
            fir_sequence: None,
            reference_times: [None; 2],
            feedback_count: 0,
        }
    }

    /// The path to one of the validated addresses.
    pub(super) fn path_to(&self, remote: SocketAddr) -> Option<TransportTuple> {
        self.paths.iter().copied().find(|path| path.remote == remote)
    }

    /// Notes a reference time, if it was agreed that there may be any; the older one of more than two gives way.
    pub(super) fn on_reference_time(&mut self, reference: ReferenceTime) {
        if !self.sections.iter().flat_map(|section| &section.formats).any(|format| format.feedback.receiver_round_trip)
        {
            return;
        }
        let [first, second] = &mut self.reference_times;
        let same = |known: &Option<ReferenceTime>| known.is_none_or(|known| known.ssrc == reference.ssrc);
        if same(first) {
            *first = Some(reference);
        } else {
            if !same(second) {
                *first = *second;
            }
            *second = Some(reference);
        }
    }

    /// Keeps a datagram until the keys are here; the first ones matter most, as a keyframe is of no use without its start.
    ///
    /// # Errors
    /// [`DropReason::NoKeys`] if there is no room for it.
    pub(super) fn hold(&mut self, now: Instant, path: TransportTuple, data: &[u8]) -> Result<(), DropReason> {
        if self.early.len() == EARLY_DATAGRAMS {
            return Err(DropReason::NoKeys);
        }
        self.early.push((now, path, data.to_vec()));
        Ok(())
    }

    /// What was held, oldest first; an error stands for one that waited too long.
    pub(super) fn take_early(
        &mut self,
        now: Instant,
    ) -> impl Iterator<Item = Result<(TransportTuple, Vec<u8>), DropReason>> + use<> {
        std::mem::take(&mut self.early).into_iter().map(move |(at, path, data)| {
            let fresh = now.saturating_duration_since(at) < EARLY_TIME;
            if fresh { Ok((path, data)) } else { Err(DropReason::NoKeys) }
        })
    }
}
