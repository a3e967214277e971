//! Sessions and streams of a shard: how they come, change and end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dtls::{Connection, DtlsOutput, DtlsOutputKind};
use crate::ice::{AgentTransmit, IceOutput};
use crate::ledger::Reason;
use crate::media::{MediaKind, Role};
use crate::net::TransportTuple;
use crate::publication::Publication;
use crate::router::{Feed, PublisherFormats, ShardMessage, Stream};
use crate::session::{
    CoreEvent, DtlsRole, SessionId, SessionSnapshot, SessionSpec, SessionStats, ShardIndex, StreamId,
};
use crate::stats::{DropReason, ShardSnapshot};
use crate::subscription::{Outgoing, PACKET_ROOM, Subscription};

use super::session::Session;
use super::{SLOW_TICK, Shard, send};

/// DTLS record type of alerts, close_notify among them (RFC 6347 §4.1).
const ALERT: u8 = 21;
/// A shard that goes on shedding says so this often.
const SHED_REPORT: Duration = Duration::from_secs(10);
/// How long an ended session's address is kept for its close_notify.
const FAREWELL: Duration = Duration::from_secs(1);
/// An address stays with the session whose media goes there while its peer proved itself within this time. A check proves
/// the password of the new session, but not that its source address is true.
const ADDRESS_HELD: Duration = Duration::from_secs(2);
/// How long a full agent's transaction is remembered; a response that took longer helps nobody.
const TRANSACTION: Duration = Duration::from_secs(5);
/// Transactions that are remembered at most.
const MAX_TRANSACTIONS: usize = 65_536;

impl Shard {
    /// Returns false when the shard is to stop.
    pub(super) fn on_message(&mut self, message: ShardMessage) -> bool {
        let now = Instant::now();
        match message {
            ShardMessage::Open(spec, home) => self.open(now, *spec, home),
            ShardMessage::Close(session, reason) => {
                if let Some(&key) = self.by_id.get(&session) {
                    self.end(now, key, reason);
                }
            }
            ShardMessage::Candidates(session, candidates) => {
                if let Some(&key) = self.by_id.get(&session) {
                    let ice = &mut self.sessions[key].ice;
                    candidates.into_iter().for_each(|candidate| ice.add_remote_candidate(candidate));
                }
            }
            ShardMessage::Snapshot(reply) => {
                // Nobody waits any more: the scrape was given up.
                let _ = reply.send(self.snapshot());
            }
            ShardMessage::Shutdown => {
                let keys: Vec<usize> = self.sessions.iter().map(|(key, _)| key).collect();
                for key in keys {
                    self.end(now, key, Reason::Shutdown);
                }
                return false;
            }
            ShardMessage::Join(id, shard) => {
                let key = self.stream(now, id, self.index);
                self.streams[key].join(now, shard, &mut self.feeds, &self.shards);
            }
            ShardMessage::Leave(id, shard) => {
                if let Some(&key) = self.by_stream.get(&id) {
                    self.streams[key].joined.retain(|&joined| joined != shard);
                    self.forget_unused_stream(key);
                }
            }
            ShardMessage::KeyframeWanted(id) => {
                if let Some(&key) = self.by_stream.get(&id) {
                    self.want_keyframe(now, key);
                }
            }
            ShardMessage::Publisher(id, formats) => {
                if let Some(&key) = self.by_stream.get(&id) {
                    self.finish_walk(key);
                    self.streams[key].set_publisher(now, formats);
                }
            }
            ShardMessage::Feed(feed) => self.on_feed(now, &feed),
        }
        true
    }

    /// Packets of a stream whose home is another shard.
    fn on_feed(&mut self, now: Instant, feed: &Feed) {
        let Some(&key) = self.by_stream.get(&feed.head.stream) else { return };
        let stream = &mut self.streams[key];
        // Between two publishers nothing of either is for the viewers.
        if stream.formats.is_none() {
            return;
        }
        stream.clocks = feed.head.clocks;
        stream.keyframes.set_ignored(feed.head.keyframes_ignored);
        for (kind, packet) in feed.packets() {
            stream.tracks[kind.index()].admit(packet.info, packet.extensions, packet.payload);
        }
        self.enqueue(now, key);
    }

    fn open(&mut self, now: Instant, spec: SessionSpec, home: ShardIndex) {
        let stream = self.stream(now, spec.stream, home);
        self.streams[stream].sessions += 1;
        if home != self.index && self.streams[stream].sessions == 1 {
            self.shards[home].send(ShardMessage::Join(spec.stream, self.index));
        }
        let session = Session::new(now, spec, stream, &self.config, self.socket.address(), &self.agent_outputs);
        let (id, ufrag) = (session.id, session.local_ufrag.clone());
        let key = self.sessions.insert(session);
        self.by_id.insert(id, key);
        self.by_ufrag.insert(ufrag, key);
        self.publish_events(key);
    }

    fn stream(&mut self, now: Instant, id: StreamId, home: ShardIndex) -> usize {
        if let Some(&key) = self.by_stream.get(&id) {
            return key;
        }
        let key = self.streams.insert(Stream::new(now, id, home, self.config.keyframe_request_interval));
        self.by_stream.insert(id, key);
        key
    }

    fn forget_unused_stream(&mut self, key: usize) {
        if self.streams[key].is_unused() {
            let stream = self.streams.remove(key);
            self.by_stream.remove(&stream.id);
            self.due.retain(|&due| due != key);
            self.behind.retain(|&behind| behind != key);
        }
    }

    /// Ends a session and frees everything of it.
    pub(super) fn end(&mut self, now: Instant, key: usize, reason: Reason) {
        self.publish_events(key);
        let stats = self.stats_of(&self.sessions[key]);
        let mut session = self.sessions.remove(key);
        self.by_id.remove(&session.id);
        self.by_ufrag.remove(&session.local_ufrag);
        for path in &session.paths {
            if self.by_address.get(&path.remote) == Some(&key) {
                self.by_address.remove(&path.remote);
            }
        }
        self.transactions.retain(|_, (owner, _)| *owner != key);
        if let Some(path) = session.path {
            self.farewells.insert(session.id, (path, now + FAREWELL));
            self.pool.close(session.id);
        }
        let stream = &mut self.streams[session.stream];
        stream.sessions -= 1;
        if let Some(index) = session.viewer.take() {
            for index in stream.remove_viewer(index) {
                if let Some(moved) = stream.viewers.get(index) {
                    self.sessions[moved.session].viewer = Some(index);
                }
            }
        }
        if stream.publisher.as_ref().is_some_and(|(publisher, _)| *publisher == key) {
            stream.publisher = None;
            self.publishing.retain(|&stream| stream != session.stream);
            self.set_publisher(now, session.stream, None);
        }
        let stream = &self.streams[session.stream];
        if stream.home != self.index && stream.sessions == 0 {
            self.shards[stream.home].send(ShardMessage::Leave(stream.id, self.index));
        }
        self.forget_unused_stream(session.stream);
        self.load.remove_session();
        if self.sessions.is_empty() {
            self.meter.idle(&self.load);
        }
        let event = CoreEvent::Ended { session: session.id, reason, stats };
        let _ = self.events.send(event);
    }

    /// What came of a stream goes out before its cache is cleared.
    fn finish_walk(&mut self, key: usize) {
        while self.streams[key].is_queued() {
            self.fan_out();
        }
    }

    /// Tells all viewers of a stream, here and elsewhere, of its publisher.
    fn set_publisher(&mut self, now: Instant, key: usize, formats: Option<Arc<PublisherFormats>>) {
        self.finish_walk(key);
        let stream = &mut self.streams[key];
        stream.set_publisher(now, formats.clone());
        for &shard in &stream.joined {
            self.shards[shard].send(ShardMessage::Publisher(stream.id, formats.clone()));
        }
    }

    /// Does what ICE said. `path` is that of the datagram which led to it, if one did.
    pub(super) fn apply_ice(
        &mut self,
        now: Instant,
        key: usize,
        path: Option<TransportTuple>,
        outputs: &mut Vec<IceOutput>,
    ) -> Result<(), DropReason> {
        let mut result = Ok(());
        let session = &mut self.sessions[key];
        for output in outputs.drain(..) {
            match output {
                IceOutput::Transmit { to, datagram } => {
                    let local = path.and_then(|path| path.local);
                    if self.outbox.room() < PACKET_ROOM {
                        send(&self.socket, &mut self.outbox, &mut self.counters);
                    }
                    self.outbox.push(TransportTuple::udp(to, local), &datagram);
                }
                IceOutput::Validated(remote) => {
                    session.paths.push(TransportTuple::udp(remote, path.and_then(|path| path.local)));
                }
                IceOutput::Forgotten(remote) => {
                    session.paths.retain(|path| path.remote != remote);
                    if self.by_address.get(&remote) == Some(&key) {
                        self.by_address.remove(&remote);
                    }
                }
                IceOutput::Selected(remote) => {
                    session.path = session.path_to(remote);
                    session.stats.remote_address = Some(remote);
                    if let (Some(index), Some(path)) = (session.viewer, session.path) {
                        self.streams[session.stream].viewers[index].path = path;
                    }
                }
                IceOutput::CheckRefused(reason) => result = Err(reason),
            }
        }
        // A peer that proved itself without a path, by an indication, has none that media could take.
        if session.ice.last_valid_check() == Some(now) && session.path.is_some() {
            let (remote, checks) = (session.path.map(|path| path.remote), session.paths.len());
            let first = session.transport.on_valid_check(now, || match remote {
                Some(remote) => format!("valid check from {remote}"),
                None => format!("valid checks from {checks} addresses"),
            });
            if first {
                self.pool.open(session.id, session.dtls.clone(), self.dtls_outputs.clone());
                if session.dtls.role == DtlsRole::Client {
                    self.pool.start(session.id);
                }
            }
            self.publish_events(key);
            if let Some(path) = path {
                self.claim(now, key, path.remote);
            }
        }
        result
    }

    /// Lets a validated address lead to its session. Every check asks anew: who held the address may be gone by now.
    fn claim(&mut self, now: Instant, key: usize, remote: SocketAddr) {
        let owner = self.by_address.get(&remote).copied();
        if owner == Some(key) || self.sessions[key].path_to(remote).is_none() {
            return;
        }
        let held = owner.and_then(|owner| self.sessions.get(owner)).is_some_and(|owner| {
            owner.path.is_some_and(|path| path.remote == remote) && owner.transport.is_alive(now, ADDRESS_HELD)
        });
        if !held {
            self.by_address.insert(remote, key);
        }
    }

    /// A datagram of a full agent.
    pub(super) fn on_agent_transmit(&mut self, transmit: AgentTransmit) {
        let now = Instant::now();
        let Some(&key) = self.by_id.get(&transmit.owner) else { return };
        if let Some(transaction) = transmit.transaction
            && self.transactions.len() < MAX_TRANSACTIONS
        {
            self.transactions.insert(transaction, (key, now + TRANSACTION));
        }
        let path = self.sessions[key].path_to(transmit.to).unwrap_or(TransportTuple::udp(transmit.to, None));
        if self.outbox.room() < PACKET_ROOM {
            send(&self.socket, &mut self.outbox, &mut self.counters);
        }
        if transmit.datagram.len() <= self.outbox.room() {
            self.outbox.push(path, &transmit.datagram);
        }
    }

    /// What a handshake thread says.
    pub(super) fn on_dtls(&mut self, output: DtlsOutput) {
        let now = Instant::now();
        let key = self.by_id.get(&output.session).copied();
        match (output.kind, key) {
            (DtlsOutputKind::Transmit(datagram), key) => self.transmit_dtls(output.session, key, &datagram),
            (DtlsOutputKind::Connected(connection), Some(key)) => self.on_connected(now, key, connection),
            (DtlsOutputKind::Failed(failure), Some(key)) => {
                self.sessions[key].transport.on_failure(now, failure.stage, failure.reason, failure.detail);
                self.end(now, key, failure.reason);
            }
            (DtlsOutputKind::PeerClosed, Some(key)) => self.end(now, key, Reason::PeerClosed),
            _ => {}
        }
    }

    fn transmit_dtls(&mut self, session: SessionId, key: Option<usize>, datagram: &[u8]) {
        let path = match key {
            Some(key) => self.sessions[key].path,
            // Behind its end a session says close_notify and nothing else (RFC 7675 §5.2).
            None if datagram.first() == Some(&ALERT) => self.farewells.remove(&session).map(|(path, _)| path),
            None => None,
        };
        let Some(path) = path else { return };
        if self.outbox.room() < datagram.len().max(PACKET_ROOM) {
            send(&self.socket, &mut self.outbox, &mut self.counters);
        }
        self.outbox.push(path, datagram);
    }

    /// The keys are here: media may flow.
    fn on_connected(&mut self, now: Instant, key: usize, connection: Connection) {
        let session = &mut self.sessions[key];
        let profile = connection.keying.profile();
        let (receiver, sender) = match connection.keying.contexts(session.dtls.role) {
            Ok(contexts) => contexts,
            Err(error) => {
                let detail = format!("libsrtp refused the keys: {error}");
                session.transport.on_failure(now, crate::ledger::Stage::Srtp, Reason::Internal, detail);
                self.end(now, key, Reason::Internal);
                return;
            }
        };
        self.counters.handshakes_completed += 1;
        session.receiver = Some(receiver);
        session.stats.srtp_profile = Some(profile.as_str());
        let detail = format!("{} {}", connection.version, connection.cipher);
        session.transport.on_handshake(now, detail, profile.as_str());
        let stream_key = session.stream;
        match session.role {
            Role::Publisher => {
                session.sender = Some(sender);
                let publication = Publication::new(now, &session.sections);
                if let Some((old, _)) = self.streams[stream_key].publisher {
                    self.end(now, old, Reason::Replaced);
                }
                let formats = [MediaKind::Audio, MediaKind::Video].map(|kind| publication.formats(kind).to_vec());
                self.streams[stream_key].publisher = Some((key, publication));
                self.publishing.retain(|&stream| stream != stream_key);
                self.publishing.push(stream_key);
                self.set_publisher(now, stream_key, Some(Arc::new(formats)));
            }
            Role::Viewer => {
                // There is a path: the handshake went over it.
                let Some(path) = session.path else { return };
                let stream = &mut self.streams[stream_key];
                let mut outgoing = [None, None];
                for section in &session.sections {
                    outgoing[section.kind.index()] = Outgoing::new(section, random_u32());
                }
                if let Some(formats) = &stream.formats {
                    for outgoing in outgoing.iter_mut().flatten() {
                        outgoing.set_publisher_formats(&formats[outgoing.kind.index()]);
                    }
                }
                let mut ready = true;
                for outgoing in outgoing.iter_mut().flatten() {
                    ready &= outgoing.join(now, &stream.tracks[outgoing.kind.index()]);
                }
                session.viewer = Some(stream.viewers.len());
                let media = stream.bitrate();
                stream.viewers.push(Subscription::new(now, key, path, sender, outgoing, media));
                self.enqueue(now, stream_key);
                if !ready {
                    self.want_keyframe(now, stream_key);
                }
            }
        }
        self.publish_events(key);
        let early = self.sessions[key].take_early(now);
        for held in early {
            let result = held.and_then(|(path, mut data)| self.on_datagram(now, path, &mut data));
            if let Err(reason) = result {
                self.counters.drop(reason);
            }
        }
        self.fan_out();
    }

    /// A viewer of the stream cannot decode without a keyframe; the home shard asks the publisher.
    pub(super) fn want_keyframe(&mut self, now: Instant, key: usize) {
        let stream = &mut self.streams[key];
        if stream.home != self.index {
            if !self.wishes.contains(&stream.id) {
                self.wishes.push(stream.id);
            }
            return;
        }
        stream.keyframes.want();
        self.request_keyframe(now, key);
    }

    /// Hands the session's new stage events to control.
    pub(super) fn publish_events(&mut self, key: usize) {
        let session = &mut self.sessions[key];
        for event in session.transport.take_events() {
            // Control has stopped listening only when the server ends.
            let _ = self.events.send(CoreEvent::Stage { session: session.id, event });
        }
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, now: Instant) {
        self.tick_publishers(now);
        for id in std::mem::take(&mut self.wishes) {
            let Some(&key) = self.by_stream.get(&id) else { continue };
            match self.streams[key].home {
                home if home == self.index => self.want_keyframe(now, key),
                home => self.shards[home].send(ShardMessage::KeyframeWanted(id)),
            }
        }
        if now < self.next_slow_tick {
            return;
        }
        self.next_slow_tick = now + SLOW_TICK;
        self.meter.poll(now, &self.load);
        self.report_shedding(now);
        self.tick_viewers(now);
        self.farewells.retain(|_, (_, until)| now < *until);
        self.transactions.retain(|_, (_, until)| now < *until);
        let mut ticking = std::mem::take(&mut self.ticking);
        ticking.extend(self.sessions.iter().map(|(key, _)| key));
        for key in ticking.drain(..) {
            self.tick_session(now, key);
        }
        self.ticking = ticking;
    }

    fn tick_session(&mut self, now: Instant, key: usize) {
        let mut outputs = std::mem::take(&mut self.ice_outputs);
        self.sessions[key].ice.tick(now, &mut outputs);
        let _ = self.apply_ice(now, key, None, &mut outputs);
        self.ice_outputs = outputs;
        let session = &mut self.sessions[key];
        let mut verdict = session.transport.poll(now);
        let stream = &self.streams[session.stream];
        if session.role == Role::Viewer
            && let Some(since) = stream.without_publisher_since
            && now.saturating_duration_since(since.max(session.transport.created())) >= self.config.publisher_wait
        {
            verdict = verdict.or(Some(Reason::PublisherGone));
        }
        self.publish_events(key);
        if let Some(reason) = verdict {
            self.end(now, key, reason);
        }
    }

    /// Says that viewers did without packets, once in a while as long as it goes on.
    fn report_shedding(&mut self, now: Instant) {
        let shed = self.counters.rtp_shed - self.shed_reported.1;
        if shed > 0 && self.shed_reported.0.is_none_or(|last| now.saturating_duration_since(last) >= SHED_REPORT) {
            tracing::warn!(
                shard = self.index,
                packets = shed,
                busy = format!("{:.2}", self.meter.busy()),
                "the shard cannot keep up: viewers did without packets that came too late for them"
            );
            self.shed_reported = (Some(now), self.counters.rtp_shed);
        }
    }

    fn snapshot(&self) -> ShardSnapshot {
        let sessions = self.sessions.iter();
        ShardSnapshot {
            shard: self.index,
            busy: self.meter.busy(),
            counters: self.counters.clone(),
            sessions: sessions.map(|(_, s)| SessionSnapshot { id: s.id, stats: self.stats_of(s) }).collect(),
        }
    }

    /// A session's figures, with those that its stream keeps for it.
    fn stats_of(&self, session: &Session) -> SessionStats {
        let Some(index) = session.viewer else { return session.stats.clone() };
        let viewer = &self.streams[session.stream].viewers[index];
        let path = viewer.congestion.snapshot();
        SessionStats {
            rtp_sent: viewer.sent.packets,
            rtp_sent_bytes: viewer.sent.bytes,
            rtp_shed: viewer.sent.shed,
            available_outgoing_bitrate: viewer.congestion.is_informed().then_some(path.available_outgoing_bitrate),
            queueing_delay: viewer.congestion.is_informed().then_some(path.queueing_delay.as_secs_f64()),
            ..session.stats.clone()
        }
    }
}

fn random_u32() -> u32 {
    let mut bytes = [0; 4];
    // It fails only on a system without any source of randomness, where no handshake could have ended well.
    openssl::rand::rand_bytes(&mut bytes).expect("the system has a source of randomness");
    u32::from_ne_bytes(bytes)
}
