//! How sessions open, connect and end.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::dtls::{Connection, DtlsContext, DtlsOutput, DtlsOutputKind};
use crate::egress::{EgressTrack, Viewer};
use crate::event::CoreEvent;
use crate::ingest::{Ingest, has_ccfb};
use crate::ledger::{Reason, Stage, WarningCode};
use crate::media::{Role, TrackId};
use crate::session::{Media, Session};
use crate::spec::{SessionId, SessionSpec, ShardIndex};
use crate::srtp::SrtpSender;
use crate::stats::DropReason;
use crate::stream::PublishedTrack;

use super::Shard;
use super::formats::missing;
use super::mailbox::ShardMessage;

/// DTLS record type of alerts, close_notify among them (RFC 6347 §4.1).
const ALERT: u8 = 21;

impl Shard {
    /// Opens a session of a stream that lives on shard `home`.
    pub(super) fn open(&mut self, now: Instant, spec: SessionSpec, certificate: DtlsContext, home: ShardIndex) {
        self.roster.insert(spec.id);
        let stream = self.stream(now, spec.stream, home);
        self.streams.slab[stream].sessions += 1;
        if home != self.index && self.streams.slab[stream].sessions == 1 {
            self.links[home].send(ShardMessage::Join(spec.stream, self.index));
        }
        let transport = (self.local_address, &self.agents);
        let session = Session::new(now, (spec, certificate), stream, &self.config, transport);
        let key = self.sessions.insert(session);
        self.publish_events(key);
    }

    /// Ends a session and frees everything of it.
    pub(super) fn end(&mut self, now: Instant, key: usize, reason: Reason) {
        self.publish_events(key);
        let session = self.sessions.remove(now, key);
        self.close_connections(now, &session.connectivity.validated);
        self.handshakes.pool.close(session.id);
        let stream = &mut self.streams.slab[session.stream];
        stream.sessions -= 1;
        stream.remove_viewer(key);
        if stream.publisher == Some(key) {
            stream.publisher = None;
            self.streams.publishing.retain(|&stream| stream != session.stream);
            self.set_publisher(now, session.stream, None);
        }
        let stream = &self.streams.slab[session.stream];
        if stream.home != self.index && stream.sessions == 0 {
            self.links[stream.home].send(ShardMessage::Leave(stream.id, self.index));
        }
        self.streams.remove_if_unused(session.stream);
        if self.sessions.slab.is_empty() {
            self.load.meter.idle(&self.load.shared);
        }
        let stats = session.stats();
        self.roster.remove(&session.id);
        self.load.shared.remove_session();
        // Control has stopped listening only when the server ends.
        let _ = self.events.send(CoreEvent::Ended { session: session.id, reason, stats });
    }

    /// The caches of a stream are about to lose what its viewers were sent: they note where its numbers are.
    pub(super) fn note_positions(&mut self, key: usize) {
        let stream = &self.streams.slab[key];
        for &viewer in &stream.viewers {
            let Media::Viewer(watching) = &mut self.sessions.slab[viewer].media else { continue };
            watching.viewer.note_positions(&stream.tracks);
        }
    }

    /// A publisher connected (`Some`) or is gone: tells all viewers of the stream, here and on the shards that it feeds.
    pub(super) fn set_publisher(&mut self, now: Instant, key: usize, published: Option<Vec<PublishedTrack>>) {
        self.finish_passes(key);
        self.note_positions(key);
        let stream = &mut self.streams.slab[key];
        stream.tracks.set_publisher(published.as_deref());
        stream.without_publisher_since = published.is_none().then_some(now);
        for &viewer in &stream.viewers {
            let session = &mut self.sessions.slab[viewer];
            let Media::Viewer(watching) = &mut session.media else { continue };
            for track in watching.viewer.tracks_mut() {
                if let Some(encoding) = track.encoding(&stream.tracks) {
                    track.end_publication(encoding);
                }
                let Some(published) = &published else { continue };
                let kind = track.id().kind;
                match published.iter().find(|published| published.id == track.id()) {
                    Some(published) => track.set_publisher_formats(&published.formats, published.in_use),
                    None => {
                        track.set_publisher_formats(&[], None);
                        session.lifecycle.warn(
                            now,
                            Stage::Media,
                            (WarningCode::TrackMissing, Some(kind)),
                            missing(kind),
                        );
                    }
                }
            }
            publish_events(session, &self.events);
        }
        for &shard in stream.feeder.shards() {
            self.links[shard].send(ShardMessage::Publisher(stream.id, published.clone()));
        }
        stream.published = published;
    }

    /// What a handshake thread says.
    pub(super) fn on_dtls(&mut self, output: DtlsOutput) {
        let now = self.now();
        let key = self.sessions.find(output.session);
        match (output.kind, key) {
            (DtlsOutputKind::Transmit { to, datagram }, key) => self.transmit_dtls(output.session, key, to, &datagram),
            (DtlsOutputKind::Proven(address), Some(key)) => self.on_address_proven(now, key, address),
            (DtlsOutputKind::Connected(connection), Some(key)) => self.on_connected(now, key, *connection),
            (DtlsOutputKind::Failed(failure), Some(key)) => {
                let session = &mut self.sessions.slab[key];
                session.lifecycle.on_failure(now, failure.stage, failure.reason, failure.detail);
                self.end(now, key, failure.reason);
            }
            (DtlsOutputKind::PeerClosed, Some(key)) => self.end(now, key, Reason::PeerClosed),
            _ => {}
        }
    }

    /// `to` is the address with which the handshake is under way; afterwards the selected one counts.
    fn transmit_dtls(&mut self, session: SessionId, key: Option<usize>, to: Option<SocketAddr>, datagram: &[u8]) {
        let tuple = match key {
            Some(key) => {
                let Session { connectivity, selected, .. } = &mut self.sessions.slab[key];
                let tuple = to.and_then(|to| connectivity.tuple_to(to)).or(*selected);
                let allowed = tuple.filter(|tuple| connectivity.may_send(tuple.remote, datagram.len()));
                self.counters.unproven_withheld += u64::from(tuple.is_some() && allowed.is_none());
                allowed
            }
            // After its end a session says close_notify and nothing else (RFC 7675 §5.2).
            None if datagram.first() == Some(&ALERT) => self.sessions.take_close_notify(session),
            None => None,
        };
        if let Some(tuple) = tuple {
            self.outbound.push(tuple, datagram);
        }
    }

    /// The keys are there: media may flow.
    fn on_connected(&mut self, now: Instant, key: usize, connection: Connection) {
        let session = &mut self.sessions.slab[key];
        let id = session.id;
        let profile = connection.keying.profile();
        let (receiver, sender) = match connection
            .keying
            .contexts_with(session.negotiated.dtls.role, session.negotiated.repairs_bit_for_bit())
        {
            Ok(contexts) => contexts,
            Err(error) => {
                let detail = format!("libsrtp refused the keys: {error}");
                session.lifecycle.on_failure(now, Stage::Srtp, Reason::Internal, detail);
                self.end(now, key, Reason::Internal);
                return;
            }
        };
        self.counters.handshakes_completed += 1;
        session.inbound.srtp = Some(receiver);
        session.stats.srtp_profile = Some(profile.as_str());
        let detail = format!("{} {}", connection.version, connection.cipher);
        session.lifecycle.on_handshake(now, detail, profile.as_str());
        match session.role {
            Role::Publisher => self.on_publisher_connected(now, key, sender),
            Role::Viewer => self.on_viewer_connected(now, key, sender),
        }
        self.publish_events(key);
        let early = self.sessions.slab[key].inbound.take_early(now);
        for ((tuple, ecn), mut data, is_fresh) in early {
            let result =
                if is_fresh { self.on_datagram(now, (tuple, ecn), &mut data) } else { Err(DropReason::NoKeys) };
            if let Err(reason) = result {
                self.on_dropped(tuple, reason, &data, data.len());
            }
        }
        self.fan_out();
        if let Some(viewer) = self.sessions.find(id).filter(|&key| self.sessions.slab[key].role == Role::Viewer) {
            self.judge_new_viewer(now, viewer);
        }
    }

    fn on_publisher_connected(&mut self, now: Instant, key: usize, srtp: SrtpSender) {
        let session = &mut self.sessions.slab[key];
        let stream_key = session.stream;
        let tracks = &mut self.streams.slab[stream_key].tracks;
        self.wants_ecn |= has_ccfb(&session.negotiated.sections);
        let ingest = Ingest::new(now, &session.negotiated.sections, tracks);
        let published = ingest.tracks().map(|(id, section)| PublishedTrack::new(id, section)).collect();
        session.begin_publishing(now, ingest, srtp, &self.config);
        if let Some(old) = self.streams.slab[stream_key].publisher {
            self.end(now, old, Reason::Replaced);
        }
        self.streams.slab[stream_key].publisher = Some(key);
        self.streams.publishing.retain(|&stream| stream != stream_key);
        self.streams.publishing.push(stream_key);
        self.set_publisher(now, stream_key, Some(published));
    }

    fn on_viewer_connected(&mut self, now: Instant, key: usize, srtp: SrtpSender) {
        let session = &mut self.sessions.slab[key];
        let stream_key = session.stream;
        let stream = &mut self.streams.slab[stream_key];
        let sections = TrackId::of_sections(&session.negotiated.sections);
        let mut tracks: Vec<EgressTrack> =
            sections.filter_map(|(track, section)| EgressTrack::new(track, section, random_u32())).collect();
        for track in &mut tracks {
            let published = stream.published.iter().flatten().find(|published| published.id == track.id());
            if let Some(published) = published {
                track.set_publisher_formats(&published.formats, published.in_use);
            }
        }
        let media = stream.tracks.least_bitrate();
        let viewer = Viewer::new(now, srtp, tracks, media);
        let waits_for_keyframe = session.begin_watching(now, viewer, &stream.tracks, &self.config);
        stream.viewers.push(key);
        self.streams.enqueue(now, stream_key);
        for encoding in waits_for_keyframe {
            self.request_keyframe(now, stream_key, encoding);
        }
    }

    /// Hands the session's new stage events to control.
    pub(super) fn publish_events(&mut self, key: usize) {
        publish_events(&mut self.sessions.slab[key], &self.events);
    }
}

fn publish_events(session: &mut Session, events: &mpsc::UnboundedSender<CoreEvent>) {
    for event in session.lifecycle.take_events() {
        // Control has stopped listening only when the server ends.
        let _ = events.send(CoreEvent::Stage { session: session.id, event });
    }
}

fn random_u32() -> u32 {
    let mut bytes = [0; 4];
    // It fails only on a system without any source of randomness, where no handshake could have ended well.
    openssl::rand::rand_bytes(&mut bytes).expect("the system has a source of randomness");
    u32::from_ne_bytes(bytes)
}
