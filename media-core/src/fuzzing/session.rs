//! A publisher and a viewer of one stream in one shard, in virtual time, with whatever their peers and strangers may send:
//! datagrams of any bytes, checks, handshakes, ICE restarts, authentic RTP and RTCP of any content, and silence.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::CoreConfig;
use crate::demux::{PacketKind, classify};
use crate::ice::CheckBuilder;
use crate::media::{Codec, Extension, ExtensionMap, Format, MediaKind, MediaSection, Role, SendSsrcs};
use crate::net::TransportTuple;
use crate::rtcp::RtcpPackets;
use crate::rtp::RtpHeader;
use crate::rtp::sequence::SequenceExtender;
use crate::shard::simulation::Simulation;
use crate::spec::{
    DtlsParameters, DtlsRole, Fingerprint, FingerprintHash, IceCredentials, IceMode, IceParameters, IceRestart,
    SessionId, SessionLimits, SessionSpec, StreamId,
};
use crate::srtp::{KeyingMaterial, MAX_TRAILER, SrtpError, SrtpProfile, SrtpReceiver, SrtpSender};

/// Inputs are cut here; a session of so many steps has seen what there is to see.
const MAX_STEPS: usize = 400;
/// Longest datagram that is made.
const MAX_LEN: usize = 1400;

/// What the fuzzer says, byte by byte; zeros once there is no more.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or_default()
    }

    fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let taken = self.0.split_off(..len.min(self.0.len()));
        taken.unwrap_or_default()
    }

    /// Bytes whose number comes first.
    fn counted(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte());
        self.bytes(len)
    }
}

/// A peer: what it knows of its session.
struct Peer {
    id: SessionId,
    server: IceCredentials,
    client: IceCredentials,
    /// The credentials of server and client before the last ICE restart.
    former: Option<(IceCredentials, IceCredentials)>,
    /// Of the server.
    role: DtlsRole,
    keys: Option<(SrtpReceiver, SrtpSender)>,
    /// What it was sent, by SSRC: the numbers, and each packet as it was.
    received: HashMap<u32, (SequenceExtender, HashMap<u64, Vec<u8>>)>,
    /// Of the RTP that it sends.
    sequence: [u16; 4],
    timestamp: u32,
}

const PUBLISHER_SSRCS: [u32; 4] = [1, 2, 3, 4];
const VIEWER_SSRCS: [SendSsrcs; 2] = [SendSsrcs { media: 11, rtx: 12 }, SendSsrcs { media: 13, rtx: 14 }];

impl Peer {
    fn new(id: u64, role: DtlsRole) -> Peer {
        let credentials =
            |name: &str| IceCredentials { ufrag: format!("{name}{id:03}"), pwd: format!("{name}-{id:020}") };
        Peer {
            id: SessionId(id),
            server: credentials("s"),
            client: credentials("c"),
            former: None,
            role,
            keys: None,
            received: HashMap::new(),
            sequence: [100; 4],
            timestamp: 0,
        }
    }

    /// The keys of both ends.
    fn keying(&self, profile: SrtpProfile) -> KeyingMaterial {
        let exported: Vec<u8> = (0..profile.export_len()).map(|index| index as u8 ^ self.id.0 as u8).collect();
        KeyingMaterial::new(profile, &exported).expect("the right length")
    }

    fn spec(&self, role: Role, sections: Vec<MediaSection>) -> SessionSpec {
        SessionSpec {
            id: self.id,
            stream: StreamId(1),
            role,
            ice: IceParameters {
                mode: IceMode::Lite,
                local: self.server.clone(),
                remote: self.client.clone(),
                remote_is_lite: false,
                remote_candidates: Vec::new(),
            },
            dtls: DtlsParameters {
                role: self.role,
                fingerprints: vec![Fingerprint { hash: FingerprintHash::Sha256, digest: vec![7; 32] }],
            },
            sections,
            refused: Vec::new(),
            certificate: Fingerprint { hash: FingerprintHash::Sha256, digest: vec![0; 32] },
            cname: "fuzz".into(),
            limits: SessionLimits::default(),
        }
    }

    /// Takes what was sent to its address, if it was sent to it: all media and RTCP must be authentic and well-formed, and no
    /// number may stand for two packets.
    fn take(&mut self, kind: PacketKind, datagram: &[u8]) -> bool {
        let Some((receiver, _)) = &mut self.keys else { return false };
        let mut plain = datagram.to_vec();
        if kind == PacketKind::Rtcp {
            let Ok(length) = receiver.unprotect_rtcp(&mut plain, datagram.len()) else { return false };
            assert!(RtcpPackets::new(&plain[..length]).all(|packet| packet.is_ok()), "it is RTCP");
            return true;
        }
        let header = RtpHeader::parse_encrypted(datagram).expect("its header is not encrypted");
        let (numbers, packets) = self.received.entry(header.ssrc).or_default();
        match receiver.unprotect_rtp(&mut plain, datagram.len()) {
            Ok(length) => {
                assert!(RtpHeader::parse(&plain[..length]).is_ok(), "it is RTP");
                let number = numbers.extend(header.sequence_number);
                let known = packets.entry(number).or_insert_with(|| datagram.to_vec());
                assert!(known == datagram, "one number of SSRC {} for two packets", header.ssrc);
                true
            }
            // Sent again, and nothing else; or it is another one's.
            Err(SrtpError::Replay) => packets.values().any(|known| known == datagram),
            Err(_) => false,
        }
    }
}

fn sections(role: Role, options: u8) -> Vec<MediaSection> {
    let video = [Codec::Vp8, Codec::H264, Codec::Vp9, Codec::H265, Codec::Av1][usize::from(options >> 4) % 5];
    let mut extensions = ExtensionMap::default();
    extensions.set(Extension::Mid, 4);
    extensions.set(Extension::AbsSendTime, 2);
    extensions.set(Extension::AudioLevel, 1);
    if options & 1 != 0 {
        extensions.set(Extension::TransportCc, 3);
    }
    let section = |index: usize, kind, codecs: Vec<Format>| {
        let formats = codecs.into_iter().map(|mut format| {
            let feedback = &mut format.feedback;
            (feedback.nack, feedback.pli, feedback.fir) = (options & 2 != 0, options & 4 == 0, true);
            (feedback.transport_cc, feedback.remb) = (options & 1 != 0, options & 1 == 0);
            feedback.receiver_round_trip = options & 8 != 0;
            if options & 2 != 0 && kind == MediaKind::Video {
                format.rtx_payload_type = Some(97);
            }
            format
        });
        let mut section = MediaSection::new(index.to_string(), kind, formats.collect());
        section.extensions = extensions;
        section.reduced_size_rtcp = options & 8 != 0;
        match role {
            Role::Publisher => {
                let ssrcs = &PUBLISHER_SSRCS[2 * index..2 * index + 2];
                section.declared_ssrcs = if options & 4 == 0 { vec![(ssrcs[0], Some(ssrcs[1]))] } else { Vec::new() };
            }
            Role::Viewer => section.send_ssrcs = Some(VIEWER_SSRCS[index]),
        }
        section
    };
    let red = Format { fmtp: "111/111".into(), ..Format::new(63, Codec::Red) };
    vec![
        section(0, MediaKind::Audio, vec![Format::new(111, Codec::Opus), red]),
        section(1, MediaKind::Video, vec![Format::new(96, video)]),
    ]
}

/// All that a run consists of.
struct World {
    simulation: Simulation,
    publisher: Peer,
    viewer: Peer,
    /// Peers that others took the place of; their sessions may still be there.
    former: Vec<Peer>,
    options: u8,
    profile: SrtpProfile,
    next_id: u64,
}

/// Two of the publisher and of the viewer each.
fn address(index: u8) -> SocketAddr {
    ([192, 0, 2, 1 + index % 4], 40_000).into()
}

impl World {
    fn new(options: u8, more: u8) -> World {
        let role = if more & 0x10 == 0 { DtlsRole::Server } else { DtlsRole::Client };
        let mut world = World {
            simulation: Simulation::new(CoreConfig::default()),
            publisher: Peer::new(1, role),
            viewer: Peer::new(2, role),
            former: Vec::new(),
            options,
            profile: SrtpProfile::ALL[usize::from(more) % 3],
            next_id: 3,
        };
        for (peer, kind) in [(&world.publisher, Role::Publisher), (&world.viewer, Role::Viewer)] {
            world.simulation.open(peer.spec(kind, sections(kind, options)));
        }
        // Otherwise the script has to get there.
        if more & 0x20 == 0 {
            for role in [Role::Publisher, Role::Viewer] {
                world.check(role, 0, (true, false), &[0; 12]);
                world.connect(role);
            }
        }
        world
    }

    fn peer(&mut self, role: Role) -> &mut Peer {
        match role {
            Role::Publisher => &mut self.publisher,
            Role::Viewer => &mut self.viewer,
        }
    }

    fn tuple(role: Role, which: u8) -> TransportTuple {
        TransportTuple::udp(address(2 * u8::from(role == Role::Viewer) + which % 2), None)
    }

    fn receive(&mut self, tuple: TransportTuple, datagram: &[u8]) {
        // Aligned as in the shard's buffers.
        let mut buffer = [0u32; MAX_LEN.div_ceil(4)].map(u32::to_ne_bytes);
        let buffer = buffer.as_flattened_mut();
        let len = datagram.len().min(MAX_LEN);
        buffer[..len].copy_from_slice(&datagram[..len]);
        self.simulation.receive(tuple, &mut buffer[..len]);
    }

    /// An authentic check, perhaps of the generation before a restart.
    fn check(&mut self, role: Role, which: u8, (nominates, is_former): (bool, bool), id: &[u8]) {
        let mut transaction = [0; 12];
        transaction[..id.len()].copy_from_slice(id);
        let peer = self.peer(role);
        let present = (peer.server.clone(), peer.client.clone());
        let (server, client) = peer.former.clone().filter(|_| is_former).unwrap_or(present);
        let check = CheckBuilder::new(&client, &server).transaction(transaction);
        let check = if nominates { check.nominating() } else { check };
        self.receive(World::tuple(role, which), &check.bytes());
    }

    /// An ICE restart, with credentials that nobody had before.
    fn restart(&mut self, role: Role) {
        let next = self.next_id;
        self.next_id += 1;
        let peer = self.peer(role);
        let Peer { server, client, .. } = Peer::new(next, peer.role);
        let restart = IceRestart { local: server.clone(), remote: client.clone(), remote_candidates: Vec::new() };
        let before = (std::mem::replace(&mut peer.server, server), std::mem::replace(&mut peer.client, client));
        peer.former = Some(before);
        let id = peer.id;
        self.simulation.restart_ice(id, restart);
    }

    fn connect(&mut self, role: Role) {
        let profile = self.profile;
        let peer = self.peer(role);
        if peer.keys.is_some() {
            return;
        }
        let client = if peer.role == DtlsRole::Server { DtlsRole::Client } else { DtlsRole::Server };
        let end = peer.keying(profile).contexts(client).expect("valid keys");
        peer.keys = Some(end);
        let (id, keying) = (peer.id, peer.keying(profile));
        self.simulation.connect(id, World::tuple(role, 0).remote, keying);
    }

    /// Whoever it was leaves, and another one comes.
    fn replace(&mut self, role: Role, closes: bool) {
        let id = self.next_id;
        self.next_id += 1;
        let dtls = self.peer(role).role;
        let old = std::mem::replace(self.peer(role), Peer::new(id, dtls));
        if closes {
            self.simulation.close(old.id);
        }
        self.former.push(old);
        let sections = sections(role, self.options);
        let spec = self.peer(role).spec(role, sections);
        self.simulation.open(spec);
    }

    fn protected(&mut self, role: Role, which: u8, packet: &[u8], is_rtcp: bool) {
        let Some((_, sender)) = &mut self.peer(role).keys else { return };
        let len = packet.len().min(MAX_LEN - 40);
        let mut buffer = packet[..len].to_vec();
        buffer.resize(len + MAX_TRAILER, 0);
        let protected = match is_rtcp {
            true => sender.protect_rtcp(&mut buffer, len),
            false => sender.protect_rtp(&mut buffer, len),
        };
        // libsrtp looks at the header, too.
        if let Ok(len) = protected {
            buffer.truncate(len);
            self.receive(World::tuple(role, which), &buffer);
        }
    }

    /// RTP that is well-formed but for its content.
    fn rtp(&mut self, role: Role, script: &mut Script<'_>) {
        let (flags, step) = (script.byte(), script.byte());
        let ssrc = usize::from(flags & 3);
        let payload_type = [111, 96, 97, 63, 96, 96, 111, 0][usize::from(flags >> 2 & 7)];
        let peer = self.peer(role);
        peer.sequence[ssrc] = peer.sequence[ssrc].wrapping_add_signed(match step & 0x0f {
            0..8 => 1,
            8..15 => i16::from(step as i8 >> 4),
            _ => script.number() as i16,
        });
        peer.timestamp = peer.timestamp.wrapping_add(u32::from(step >> 4) * 960);
        let mut packet = vec![0x80, payload_type | flags & 0x80];
        packet.extend_from_slice(&peer.sequence[ssrc].to_be_bytes());
        packet.extend_from_slice(&peer.timestamp.to_be_bytes());
        packet.extend_from_slice(&PUBLISHER_SSRCS[ssrc].to_be_bytes());
        if flags & 0x20 != 0 {
            let elements = script.counted();
            packet[0] |= 0x10;
            packet.extend_from_slice(&[0xbe, 0xde, 0, elements.len().div_ceil(4) as u8]);
            packet.extend_from_slice(elements);
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        packet.extend_from_slice(script.counted());
        if flags & 0x40 != 0 {
            packet.resize(packet.len() + 900, 0x55);
        }
        self.protected(role, 0, &packet, false);
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let op = script.byte();
        let role = if op & 8 == 0 { Role::Publisher } else { Role::Viewer };
        let which = op >> 4 & 1;
        match op & 7 {
            0 => {
                let datagram = script.counted();
                self.receive(World::tuple(role, which), datagram);
            }
            1 => self.check(role, which, (op & 0x20 != 0, op & 0x80 != 0), script.bytes(2)),
            2 => self.rtp(role, script),
            3 => {
                let packet = script.counted();
                self.protected(role, which, packet, true);
            }
            4 => {
                let packet = script.counted();
                self.protected(role, which, packet, false);
            }
            5 => self.simulation.advance(Duration::from_millis(u64::from(script.byte()))),
            6 => self.simulation.advance(Duration::from_millis(u64::from(script.number()))),
            _ if op & 0x60 == 0x20 => self.restart(role),
            _ if op & 0x40 == 0 => self.connect(role),
            _ => self.replace(role, op & 0x80 != 0),
        }
    }

    fn judge(&mut self) {
        for (to, datagram) in self.simulation.take_sent() {
            assert!(datagram.len() <= 1500);
            assert!((0..4).any(|index| address(index) == to), "nobody has that address");
            let kind = classify(&datagram).expect("it is a datagram of WebRTC");
            if matches!(kind, PacketKind::Stun | PacketKind::Dtls) {
                continue;
            }
            let mut peers = [&mut self.publisher, &mut self.viewer].into_iter().chain(&mut self.former);
            assert!(peers.any(|peer| peer.take(kind, &datagram)), "nobody understands that");
        }
        assert_eq!(self.simulation.open_sessions(), self.simulation.sessions());
    }
}

/// One run.
pub fn session(data: &[u8]) {
    let mut script = Script(data);
    let mut world = World::new(script.byte(), script.byte());
    for _ in 0..MAX_STEPS {
        if script.0.is_empty() {
            break;
        }
        world.step(&mut script);
        world.judge();
    }
    // In the end nobody is there any more.
    world.simulation.advance(Duration::from_secs(120));
    assert_eq!(world.simulation.sessions(), 0, "silence ends every session");
}

#[cfg(test)]
mod tests {
    use super::*;

    // WHIP-33: what peers sent meanwhile waits in the sockets.
    #[test]
    fn nobody_is_judged_by_the_first_tick_after_a_pause_of_the_process() {
        let mut world = World::new(0, 0);
        world.simulation.advance(Duration::from_secs(1));
        world.simulation.pause(Duration::from_secs(600));
        world.simulation.advance(Duration::ZERO);
        assert_eq!(world.simulation.open_sessions(), 2);
        world.simulation.advance(Duration::from_secs(1));
        assert_eq!(world.simulation.open_sessions(), 0, "nothing had come");
    }

    // SRTP-12
    #[test]
    fn sessions_end_before_their_keys_have_protected_all_that_they_may() {
        let mut world = World::new(0, 0);
        world.simulation.advance(Duration::from_secs(1));
        assert_eq!(world.simulation.open_sessions(), 2);
        world.simulation.wear_keys();
        world.simulation.advance(Duration::from_secs(1));
        assert_eq!(world.simulation.open_sessions(), 0);
        assert_eq!(world.simulation.last_reason().unwrap().to_string(), "srtp-key-used-up");
    }
}
