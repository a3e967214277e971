//! An attacker with a session of its own: checks and a handshake as everybody makes them, and then whatever it likes.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use media_core::internals::demux::{PacketKind, classify};
use media_core::internals::dtls::{DtlsEndpoint, DtlsEvent};
use media_core::internals::ice::random_credentials;
use media_core::internals::srtp::{KeyingMaterial, SrtpSender};
use media_core::media::{Codec, MediaKind};
use media_core::{DtlsParameters, DtlsRole, IceCredentials};

use super::target::{attackers, socket};
use super::{AttackError, Target};
use crate::client::{ClientError, Identity, Resource, bare_check, random_u32};
use crate::sdp::{Answer, CONSTRAINED_BASELINE, Imitation, Offer, OfferedSection, PayloadTypes, Setup, Ssrcs};

/// From the POST to the end of the handshake.
const TIMEOUT: Duration = Duration::from_secs(15);
/// A check is made again after this, first until it is answered, and then to stay alive.
const CHECK: Duration = Duration::from_millis(100);
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// How long one call waits for a datagram in the handshake.
const WAIT: Duration = Duration::from_millis(5);

/// What an attacker does in its session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It watches.
    Viewer,
    /// It publishes.
    Publisher,
}

/// An attacker whose handshake is done.
pub(super) struct Peer {
    pub(super) socket: UdpSocket,
    pub(super) to: SocketAddr,
    pub(super) session: Resource,
    pub(super) sender: PeerSender,
}

/// What was agreed on for an attacker's media.
#[derive(Clone, Copy)]
pub(super) struct Formats {
    /// SSRCs of audio and video: those that it sends, or those that it receives as far as the answer names them.
    pub(super) audio: Ssrcs,
    pub(super) video: Ssrcs,
    /// Payload types of the video.
    pub(super) types: PayloadTypes,
    pub(super) audio_type: u8,
}

/// What an attacker sends with.
pub(super) struct PeerSender {
    pub(super) formats: Formats,
    pub(super) keys: KeyingMaterial,
    pub(super) srtp: SrtpSender,
    local: IceCredentials,
    remote: IceCredentials,
    next_check: Instant,
    checks: u32,
}

impl PeerSender {
    /// The check that keeps the session alive, if it is due.
    pub(super) fn check(&mut self, now: Instant) -> Option<Vec<u8>> {
        if now < self.next_check {
            return None;
        }
        self.next_check = now + KEEP_ALIVE;
        self.checks += 1;
        let mut transaction = *b"attacker....";
        transaction[8..].copy_from_slice(&self.checks.to_be_bytes());
        bare_check(&self.local, &self.remote, transaction).ok()
    }
}

/// An offer of Opus and VP8, and the SSRCs of audio and video.
pub(super) fn offer(
    identity: &Identity,
    local: &IceCredentials,
    role: Role,
) -> Result<(String, [Ssrcs; 2]), ClientError> {
    let pair = || Ok::<_, ClientError>(Ssrcs { media: random_u32()?, rtx: random_u32()? });
    let ssrcs = [pair()?, pair()?];
    let sends = |index: usize| (role == Role::Publisher).then_some(ssrcs[index]);
    let sections = [
        OfferedSection { codecs: vec![Codec::Opus], sends: sends(0), rids: Vec::new() },
        OfferedSection { codecs: vec![Codec::Vp8], sends: sends(1), rids: Vec::new() },
    ];
    let offer = Offer {
        ice: local,
        fingerprint: identity.fingerprint(),
        setup: Setup::Active,
        imitates: Imitation::Browser,
        transport_cc: true,
        profiles: &[CONSTRAINED_BASELINE.to_owned()],
        shift: 0,
        sections: &sections,
    };
    Ok((offer.to_sdp(), ssrcs))
}

impl Peer {
    /// Joins as everybody does; `number` tells attackers apart.
    pub(super) async fn join(target: &Target, role: Role, url: String, number: usize) -> Result<Peer, AttackError> {
        let (_, http) = target.http()?;
        let from = attackers(http.ip());
        let endpoint = target.endpoint(url, from[number % from.len()])?;
        let local = random_credentials();
        let (sdp, ssrcs) = offer(&target.identity, &local, role)?;
        let (answer, session) = endpoint.offer(sdp).await?;
        let to = answer.candidates.first().map(|candidate| candidate.address);
        let to = to.ok_or(ClientError::Answer("the answer has no usable candidate".into()))?;
        let ips = attackers(to.ip());
        let (socket, identity) = (socket(ips[number % ips.len()])?, target.identity.clone());
        let handshake = Handshake { socket, to, local, answer, identity };
        // A connection that waits must not hold up the honest clients of this thread.
        let connected = tokio::task::spawn_blocking(move || handshake.run(ssrcs, role)).await;
        match connected.unwrap_or(Err(ClientError::Stopped)) {
            Ok((socket, sender)) => Ok(Peer { socket, to, session, sender }),
            Err(error) => {
                // The attacker leaves as it came: without a session.
                let _ = session.delete().await;
                Err(error.into())
            }
        }
    }
}

/// A session on its way.
struct Handshake {
    socket: UdpSocket,
    to: SocketAddr,
    local: IceCredentials,
    answer: Answer,
    identity: Identity,
}

impl Handshake {
    fn run(self, ssrcs: [Ssrcs; 2], role: Role) -> Result<(UdpSocket, PeerSender), ClientError> {
        let failed = |error: std::io::Error| ClientError::Socket(error.to_string());
        self.socket.set_nonblocking(false).map_err(failed)?;
        self.socket.set_read_timeout(Some(WAIT)).map_err(failed)?;
        let begun = Instant::now();
        self.validate(begun)?;
        let keys = self.secure(begun)?;
        let contexts = keys.contexts(DtlsRole::Client).map_err(|error| ClientError::Crypto(error.to_string()))?;
        let Handshake { socket, local, answer, .. } = self;
        let named = |kind, offered: Ssrcs| match (role, answer.live(kind).and_then(|section| section.ssrcs)) {
            (Role::Viewer, Some(named)) => named,
            _ => offered,
        };
        let types = |kind| answer.live(kind).and_then(|section| section.codecs.first()).map(|(_, types)| *types);
        let none = || ClientError::Answer("the answer takes neither Opus nor VP8".into());
        let formats = Formats {
            audio: named(MediaKind::Audio, ssrcs[0]),
            video: named(MediaKind::Video, ssrcs[1]),
            types: types(MediaKind::Video).ok_or_else(none)?,
            audio_type: types(MediaKind::Audio).ok_or_else(none)?.media,
        };
        let sender = PeerSender {
            formats,
            keys,
            srtp: contexts.1,
            local,
            remote: answer.ice,
            next_check: Instant::now() + KEEP_ALIVE,
            checks: 0,
        };
        Ok((socket, sender))
    }

    fn send(&self, datagram: &[u8]) {
        // What cannot be sent is sent again.
        let _ = self.socket.send_to(datagram, self.to);
    }

    /// Checks until one is answered.
    fn validate(&self, begun: Instant) -> Result<(), ClientError> {
        let (mut next, mut buffer, mut number) = (begun, [0; 2048], 0_u32);
        loop {
            let now = Instant::now();
            if now > begun + TIMEOUT {
                return Err(ClientError::Timeout(TIMEOUT, media_core::ledger::Stage::Ice));
            }
            if now >= next {
                next = now + CHECK;
                number += 1;
                let mut transaction = *b"attack......";
                transaction[8..].copy_from_slice(&number.to_be_bytes());
                self.send(&bare_check(&self.local, &self.answer.ice, transaction)?);
            }
            if self.socket.recv(&mut buffer).is_ok() && buffer.starts_with(&[1, 1]) {
                return Ok(());
            }
        }
    }

    /// The handshake.
    fn secure(&self, begun: Instant) -> Result<KeyingMaterial, ClientError> {
        let parameters = DtlsParameters { role: DtlsRole::Client, fingerprints: self.answer.fingerprints.clone() };
        let mut dtls = DtlsEndpoint::new(&self.identity.context, parameters)
            .map_err(|error| ClientError::Crypto(error.to_string()))?;
        dtls.start(Instant::now());
        let (mut keys, mut buffer) = (None, [0; 2048]);
        loop {
            while let Some(datagram) = dtls.poll_transmit() {
                self.send(&datagram);
            }
            if let Some(keys) = keys {
                return Ok(keys);
            }
            if Instant::now() > begun + TIMEOUT {
                return Err(ClientError::Timeout(TIMEOUT, media_core::ledger::Stage::Dtls));
            }
            if let Ok(length) = self.socket.recv(&mut buffer)
                && classify(&buffer[..length]) == Ok(PacketKind::Dtls)
            {
                dtls.handle_datagram(Instant::now(), &buffer[..length]);
            }
            dtls.handle_timeout(Instant::now());
            while let Some(event) = dtls.poll_event() {
                match event {
                    DtlsEvent::Connected(connection) => keys = Some(connection.keying),
                    DtlsEvent::Failed(failure) => return Err(ClientError::Dtls(failure)),
                    _ => {}
                }
            }
        }
    }
}
