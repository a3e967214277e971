//! A real core on loopback, and small clients of it, made of the crate's own protocol parts.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use media_core::MediaCore;
use media_core::internals::demux::{PacketKind, classify};
use media_core::internals::dtls::{Certificate, DtlsContext, DtlsEndpoint, DtlsEvent};
use media_core::internals::ice::{CheckBuilder, answer_check, is_response, random_credentials};
use media_core::internals::ingest::arrival::ArrivalLog;
use media_core::internals::net::framing::{Deframer, MAX_FRAME, prefix};
use media_core::internals::rtcp::transport_feedback::FeedbackFields;
use media_core::internals::rtcp::{ReportBlock, RtcpPacket, RtcpPackets, RtcpWriter, SenderInfo};
use media_core::internals::rtp::{HeaderFields, RtpHeader, write_header};
use media_core::internals::srtp::{MAX_TRAILER, SrtpReceiver, SrtpSender};
use media_core::ledger::{Reason, Stage, StageChange};
use media_core::media::{Codec, Extension, ExtensionMap, Feedback, Format, MediaKind, MediaSection, Role, SendSsrcs};
use media_core::stats::{DropReason, ShardCounters};
use media_core::{
    CoreConfig, CoreEvent, DtlsParameters, DtlsRole, IceCredentials, IceMode, IceParameters, SessionId, SessionLimits,
    SessionSpec, ShardIndex, StreamId,
};
use stun::agent::TransactionId;
use tokio::sync::mpsc;

/// Long enough for anything here, even beside a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// VP8: a payload descriptor with S=1, then the first byte of a keyframe or of another frame.
pub(crate) const KEYFRAME: &[u8] = &[0x10, 0x00, 1, 2, 3];
pub(crate) const DELTA: &[u8] = &[0x10, 0x01, 4, 5];
pub(crate) const PUBLISHER_VIDEO: u32 = 0x1111;
pub(crate) const PUBLISHER_AUDIO: u32 = 0x2222;
pub(crate) const VIEWER_VIDEO: u32 = 0xa001;
pub(crate) const VIEWER_RTX: u32 = 0xa002;
pub(crate) const VIEWER_AUDIO: u32 = 0xa003;
pub(crate) const MID: u8 = 4;
pub(crate) const WIDE: u8 = 5;

/// The core and what it says.
pub(crate) struct Server {
    pub(crate) core: MediaCore,
    pub(crate) events: RefCell<mpsc::UnboundedReceiver<CoreEvent>>,
    /// Sessions whose `Ended` event was received while another one was waited for.
    ended: RefCell<Vec<(SessionId, Reason)>>,
    opened: Cell<u64>,
    /// Of the sessions that are opened from now on.
    pub(crate) limits: Cell<SessionLimits>,
    certificate: Certificate,
    context: DtlsContext,
}

impl Server {
    pub(crate) fn start(shards: usize) -> Server {
        Server::with(CoreConfig { shards, media_port: 0, ..CoreConfig::default() })
    }

    pub(crate) fn with(config: CoreConfig) -> Server {
        let (core, events) = MediaCore::start(config).unwrap();
        let certificate = Certificate::generate().unwrap();
        let context = DtlsContext::new(&certificate).unwrap();
        let (events, ended, opened) = (RefCell::new(events), RefCell::default(), Cell::new(0));
        Server { core, events, ended, opened, limits: Cell::default(), certificate, context }
    }

    /// Opens a session on a shard; its peer has done nothing yet.
    pub(crate) fn open(&self, shard: ShardIndex, stream: u64, role: Role, sections: Vec<MediaSection>) -> Peer {
        self.open_with(IceMode::Lite, DtlsRole::Server, shard, stream, role, sections)
    }

    pub(crate) fn open_with(
        &self,
        mode: IceMode,
        dtls_role: DtlsRole,
        shard: ShardIndex,
        stream: u64,
        role: Role,
        sections: Vec<MediaSection>,
    ) -> Peer {
        let spec = self.spec(mode, dtls_role, stream, role, sections);
        let (id, local, remote) = (spec.id, spec.ice.local.clone(), spec.ice.remote.clone());
        self.core.open(shard, spec);
        let role = if dtls_role == DtlsRole::Server { DtlsRole::Client } else { DtlsRole::Server };
        let parameters = DtlsParameters { role, fingerprints: vec![self.core.fingerprint()] };
        Peer {
            id,
            shard,
            socket: socket(),
            connection: None,
            server: self.core.local_candidates(shard)[0].address,
            local: remote,
            remote: local,
            dtls: DtlsEndpoint::new(&self.context, parameters).unwrap(),
            role,
            keys: None,
            closed: false,
            answers: 0,
            answers_checks: true,
            rtp: Vec::new(),
            rtcp: Vec::new(),
            raw: Vec::new(),
        }
    }

    /// A session of a new name, and credentials for both of its ends.
    pub(crate) fn spec(
        &self,
        mode: IceMode,
        dtls_role: DtlsRole,
        stream: u64,
        role: Role,
        sections: Vec<MediaSection>,
    ) -> SessionSpec {
        let id = SessionId(self.opened.get() + 1);
        self.opened.set(id.0);
        SessionSpec {
            id,
            stream: StreamId(stream),
            role,
            ice: IceParameters {
                mode,
                local: random_credentials(),
                remote: random_credentials(),
                remote_is_lite: false,
                remote_candidates: Vec::new(),
            },
            dtls: DtlsParameters { role: dtls_role, fingerprints: vec![self.certificate.fingerprint().clone()] },
            sections,
            refused: Vec::new(),
            certificate: self.core.fingerprint(),
            cname: "server".into(),
            limits: self.limits.get(),
        }
    }

    /// A connected publisher of VP8 and Opus.
    pub(crate) fn publisher(&self, stream: u64) -> Peer {
        let shard = self.core.home_shard(StreamId(stream));
        self.connected(self.open(shard, stream, Role::Publisher, vec![audio(None), video(None, true)]))
    }

    /// A connected viewer.
    pub(crate) fn viewer(&self, shard: ShardIndex, stream: u64, rtx: bool) -> Peer {
        self.connected(self.answered_viewer(shard, stream, rtx))
    }

    /// A viewer that has done nothing yet.
    pub(crate) fn answered_viewer(&self, shard: ShardIndex, stream: u64, rtx: bool) -> Peer {
        let sections = vec![
            audio(Some(SendSsrcs { media: VIEWER_AUDIO, rtx: VIEWER_AUDIO + 100 })),
            video(Some(SendSsrcs { media: VIEWER_VIDEO, rtx: VIEWER_RTX }), rtx),
        ];
        self.open(shard, stream, Role::Viewer, sections)
    }

    /// The peer, when both ends have their keys: the server holds only so many packets that come before its own.
    pub(crate) fn connected(&self, mut peer: Peer) -> Peer {
        peer.connect();
        peer.until("the server has its keys", |peer| {
            let mut events = self.events.borrow_mut();
            std::iter::from_fn(|| events.try_recv().ok()).any(|event| match event {
                CoreEvent::Stage { session, event } => {
                    session == peer.id && event.stage == Stage::Srtp && event.change == StageChange::Begin
                }
                CoreEvent::Ended { session, reason, .. } => {
                    self.ended.borrow_mut().push((session, reason));
                    false
                }
                CoreEvent::FormatInUse { .. }
                | CoreEvent::Layers { .. }
                | CoreEvent::PublisherSilence { .. }
                | CoreEvent::IceRestartOver { .. } => false,
            })
        });
        peer
    }

    pub(crate) async fn counters(&self, shard: ShardIndex) -> ShardCounters {
        self.core.snapshot().await[shard].counters.clone()
    }

    pub(crate) async fn dropped(&self, shard: ShardIndex, reason: DropReason) -> u64 {
        self.counters(shard).await.dropped[reason as usize]
    }

    /// Waits for the end of a session.
    pub(crate) async fn ended(&mut self, id: SessionId) -> Reason {
        if let Some(&(_, reason)) = self.ended.get_mut().iter().find(|(session, _)| *session == id) {
            return reason;
        }
        loop {
            let event = self.events.get_mut().recv();
            let event = tokio::time::timeout(PATIENCE, event).await.expect("the session ends");
            match event {
                Some(CoreEvent::Ended { session, reason, .. }) if session == id => return reason,
                Some(CoreEvent::Ended { session, reason, .. }) => self.ended.get_mut().push((session, reason)),
                Some(_) => {}
                None => panic!("the core has ended"),
            }
        }
    }
}

thread_local! {
    /// Ports of the peers of a test, which runs in a thread of its own.
    static PORTS: RefCell<BTreeSet<u16>> = const { RefCell::new(BTreeSet::new()) };
}

/// A socket at an address that no peer of the test has had: a session holds its own for some time after its peer is gone, and most
/// peers here do not check again.
pub(crate) fn socket() -> UdpSocket {
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        if PORTS.with_borrow_mut(|ports| ports.insert(socket.local_addr().unwrap().port())) {
            socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
            return socket;
        }
    }
}

pub(crate) fn audio(send_ssrcs: Option<SendSsrcs>) -> MediaSection {
    section(MediaKind::Audio, Codec::Opus, 111, None, send_ssrcs)
}

pub(crate) fn video(send_ssrcs: Option<SendSsrcs>, rtx: bool) -> MediaSection {
    section(MediaKind::Video, Codec::Vp8, 96, rtx.then_some(97), send_ssrcs)
}

fn section(
    kind: MediaKind,
    codec: Codec,
    payload_type: u8,
    rtx_payload_type: Option<u8>,
    send_ssrcs: Option<SendSsrcs>,
) -> MediaSection {
    let mut extensions = ExtensionMap::default();
    extensions.set(Extension::Mid, MID);
    extensions.set(Extension::TransportCc, WIDE);
    let video = kind == MediaKind::Video;
    let feedback = Feedback { nack: video, pli: video, transport_cc: true, ..Feedback::default() };
    let formats = vec![Format { rtx_payload_type, feedback, ..Format::new(payload_type, codec) }];
    MediaSection { extensions, reduced_size_rtcp: true, send_ssrcs, ..MediaSection::new(kind.as_str(), kind, formats) }
}

/// A client's TCP connection to a media port.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    deframer: Deframer,
    /// The server has closed it.
    pub(crate) is_closed: bool,
}

impl Connection {
    pub(crate) fn open(to: SocketAddr) -> Connection {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        stream.set_nodelay(true).unwrap();
        Connection { stream, deframer: Deframer::default(), is_closed: false }
    }

    /// Sends a packet in a frame. The server may have closed the connection.
    pub(crate) fn send(&self, packet: &[u8]) {
        let framed = [&prefix(packet).unwrap()[..], packet].concat();
        let _ = (&self.stream).write_all(&framed);
    }

    /// The whole packets that have come.
    pub(crate) fn receive(&mut self) -> Vec<Vec<u8>> {
        let (mut packets, mut bytes, mut packet) = (Vec::new(), [0; 65_536], [0; MAX_FRAME]);
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => self.is_closed = true,
                Ok(length) => {
                    let mut rest = &bytes[..length];
                    while let Some(length) = self.deframer.next(&mut rest, &mut packet).unwrap() {
                        packets.push(packet[..length].to_vec());
                    }
                    continue;
                }
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => self.is_closed = true,
                Err(_) => {}
            }
            return packets;
        }
    }

    /// Waits for the server to close it; what came before that.
    pub(crate) fn closes(&mut self) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        let mut packets = Vec::new();
        while !self.is_closed {
            assert!(Instant::now() < deadline, "the server closes it");
            packets.extend(self.receive());
        }
        packets
    }
}

/// A client: publisher or viewer.
pub(crate) struct Peer {
    pub(crate) id: SessionId,
    pub(crate) shard: ShardIndex,
    pub(crate) socket: UdpSocket,
    /// In place of the socket, where it has one.
    pub(crate) connection: Option<Connection>,
    pub(crate) server: SocketAddr,
    local: IceCredentials,
    remote: IceCredentials,
    pub(crate) dtls: DtlsEndpoint,
    role: DtlsRole,
    pub(crate) keys: Option<(SrtpReceiver, SrtpSender)>,
    /// The server said close_notify.
    pub(crate) closed: bool,
    /// STUN responses.
    pub(crate) answers: usize,
    /// It answers checks, as every client but the simplest does.
    pub(crate) answers_checks: bool,
    /// RTP packets received, decrypted.
    pub(crate) rtp: Vec<Vec<u8>>,
    /// RTCP datagrams received, decrypted.
    pub(crate) rtcp: Vec<Vec<u8>>,
    /// All datagrams received, as they are on the wire.
    pub(crate) raw: Vec<Vec<u8>>,
}

impl Peer {
    /// A connectivity check, of a transaction of its own.
    pub(crate) fn check_bytes(&self, nominates: bool) -> Vec<u8> {
        let check = CheckBuilder::new(&self.local, &self.remote).transaction(TransactionId::new().0);
        let check = if nominates { check.nominating() } else { check };
        check.bytes()
    }

    /// Sends a connectivity check.
    pub(crate) fn check(&self, nominates: bool) {
        self.send(&self.check_bytes(nominates));
    }

    pub(crate) fn send(&self, datagram: &[u8]) {
        match &self.connection {
            Some(connection) => connection.send(datagram),
            None => drop(self.socket.send_to(datagram, self.server).unwrap()),
        }
    }

    /// From now on it speaks by a TCP connection.
    pub(crate) fn over_tcp(mut self) -> Peer {
        self.connection = Some(Connection::open(self.server));
        self
    }

    /// Packets that the connection has.
    fn receive_framed(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        for packet in connection.receive() {
            self.receive(&packet);
            self.settle();
        }
    }

    /// ICE, DTLS, SRTP.
    pub(crate) fn connect(&mut self) {
        self.validate();
        self.dtls.start(Instant::now());
        self.until("the handshake ends", |peer| peer.keys.is_some());
    }

    /// Checks until the server answers.
    pub(crate) fn validate(&mut self) {
        let before = self.answers;
        let deadline = Instant::now() + PATIENCE;
        while self.answers == before {
            assert!(Instant::now() < deadline, "no answer to checks");
            self.check(true);
            self.turn();
        }
    }

    /// Receives until something holds.
    pub(crate) fn until(&mut self, what: &str, done: impl Fn(&Peer) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "in vain: {what}");
            self.turn();
        }
    }

    /// Receives until something comes out of it.
    pub(crate) fn find<T>(&mut self, what: &str, find: impl Fn(&Peer) -> Option<T>) -> T {
        self.until(what, |peer| find(peer).is_some());
        find(self).unwrap()
    }

    /// Receives what is there and lets DTLS have its way.
    pub(crate) fn turn(&mut self) {
        self.receive_framed();
        if self.connection.is_none() {
            let socket = self.socket.try_clone().unwrap();
            self.receive_at(&socket);
        }
        self.dtls.handle_timeout(Instant::now());
        self.settle();
    }

    /// Receives what is there at a socket of its own, be it the one that it sends from or not.
    pub(crate) fn receive_at(&mut self, socket: &UdpSocket) {
        let mut buffer = [0; 2048];
        while let Ok((length, _)) = socket.recv_from(&mut buffer) {
            self.receive(&buffer[..length]);
            self.settle();
        }
    }

    /// Does what DTLS wants done.
    fn settle(&mut self) {
        while let Some(datagram) = self.dtls.poll_transmit() {
            self.send(&datagram);
        }
        while let Some(event) = self.dtls.poll_event() {
            match event {
                DtlsEvent::Connected(connection) => {
                    self.keys = Some(connection.keying.contexts(self.role).unwrap());
                }
                DtlsEvent::PeerClosed => self.closed = true,
                DtlsEvent::Failed(failure) => panic!("{failure:?}"),
                DtlsEvent::HandshakeStarted | DtlsEvent::AddressProven(_) | DtlsEvent::ApplicationData(_) => {}
            }
        }
    }

    fn receive(&mut self, datagram: &[u8]) {
        self.raw.push(datagram.to_vec());
        let mut bytes = datagram.to_vec();
        match (classify(datagram).unwrap(), &mut self.keys) {
            (PacketKind::Stun, _) => {
                self.answers += usize::from(is_response(datagram));
                let answer = answer_check(&self.local, self.server, datagram);
                if let Some(answer) = answer.filter(|_| self.answers_checks) {
                    self.send(&answer);
                }
            }
            (PacketKind::Dtls, _) => self.dtls.handle_datagram(Instant::now(), datagram),
            // A packet received before is a retransmission without RTX.
            (PacketKind::Rtp, Some((receiver, _))) => {
                if let Ok(length) = receiver.unprotect_rtp(&mut bytes, datagram.len()) {
                    bytes.truncate(length);
                    self.rtp.push(bytes);
                }
            }
            (PacketKind::Rtcp, Some((receiver, _))) => {
                if let Ok(length) = receiver.unprotect_rtcp(&mut bytes, datagram.len()) {
                    bytes.truncate(length);
                    self.rtcp.push(bytes);
                }
            }
            // Another session's, on a socket that two share.
            _ => {}
        }
    }

    /// Encrypts an RTP packet without sending it.
    pub(crate) fn protect(&mut self, fields: HeaderFields, elements: &[(u8, &[u8])], payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 1500 + MAX_TRAILER];
        let header = write_header(&mut bytes, &fields, elements.iter().copied()).unwrap();
        bytes[header..header + payload.len()].copy_from_slice(payload);
        let sender = &mut self.keys.as_mut().expect("connected").1;
        let length = sender.protect_rtp(&mut bytes, header + payload.len()).unwrap();
        bytes.truncate(length);
        bytes
    }

    /// Sends one packet of the publisher's video, its wide number equal to its own.
    pub(crate) fn video(&mut self, sequence: u16, timestamp: u32, payload: &[u8]) {
        let fields = HeaderFields {
            marker: true,
            padding: false,
            payload_type: 96,
            sequence_number: sequence,
            timestamp,
            ssrc: PUBLISHER_VIDEO,
        };
        let datagram = self.protect(fields, &[(WIDE, &sequence.to_be_bytes())], payload);
        self.send(&datagram);
    }

    pub(crate) fn audio(&mut self, sequence: u16, timestamp: u32) {
        let fields = HeaderFields {
            marker: false,
            padding: false,
            payload_type: 111,
            sequence_number: sequence,
            timestamp,
            ssrc: PUBLISHER_AUDIO,
        };
        let datagram = self.protect(fields, &[], b"opus");
        self.send(&datagram);
    }

    /// Encrypts what need be no good RTP or RTCP, and sends it if SRTP takes it.
    pub(crate) fn send_protected(&mut self, plain: &[u8]) {
        let mut bytes = plain.to_vec();
        bytes.resize(plain.len() + MAX_TRAILER, 0);
        let sender = &mut self.keys.as_mut().expect("connected").1;
        let length = match classify(plain) {
            Ok(PacketKind::Rtp) => sender.protect_rtp(&mut bytes, plain.len()),
            Ok(PacketKind::Rtcp) => sender.protect_rtcp(&mut bytes, plain.len()),
            _ => return,
        };
        if let Ok(length) = length {
            self.send(&bytes[..length]);
        }
    }

    /// Sends a datagram of RTCP.
    pub(crate) fn rtcp(&mut self, fill: impl FnOnce(&mut RtcpWriter<'_>)) {
        let mut bytes = vec![0; 1500 + MAX_TRAILER];
        let mut writer = RtcpWriter::new(&mut bytes);
        fill(&mut writer);
        let length = writer.len();
        let sender = &mut self.keys.as_mut().expect("connected").1;
        let length = sender.protect_rtcp(&mut bytes, length).unwrap();
        bytes.truncate(length);
        self.send(&bytes);
    }

    /// Transport-wide sequence numbers of the packets received, in order of arrival.
    pub(crate) fn wide_numbers(&self) -> Vec<u16> {
        let wide = |packet: &Vec<u8>| {
            let header = RtpHeader::parse(packet).unwrap();
            header.extension(packet, WIDE).map(|wide| u16::from_be_bytes([wide[0], wide[1]]))
        };
        self.rtp.iter().filter_map(wide).collect()
    }

    /// Sends transport-wide feedback, if it is due.
    pub(crate) fn report_arrivals(&mut self, arrivals: &mut ArrivalLog) {
        let now = Instant::now();
        self.wide_numbers().into_iter().for_each(|wide| arrivals.on_packet(now, wide));
        arrivals.poll(now, |packets| {
            self.rtcp(|writer| {
                let fields = FeedbackFields { sender_ssrc: 1, media_ssrc: VIEWER_VIDEO, feedback_count: 0 };
                writer.transport_feedback(&fields, packets).unwrap();
            });
        });
    }

    /// Headers of the packets received from this SSRC.
    pub(crate) fn headers(&self, ssrc: u32) -> Vec<RtpHeader> {
        let headers = self.rtp.iter().map(|packet| RtpHeader::parse(packet).unwrap());
        headers.filter(|header| header.ssrc == ssrc).collect()
    }

    /// PLIs received.
    pub(crate) fn plis(&self) -> usize {
        self.rtcp.iter().flat_map(|d| RtcpPackets::new(d)).filter(|p| matches!(p, Ok(RtcpPacket::Pli(_)))).count()
    }

    /// Sequence numbers that the server asks for.
    pub(crate) fn nacked(&self) -> Vec<u16> {
        let mut numbers = Vec::new();
        for packet in self.rtcp.iter().flat_map(|datagram| RtcpPackets::new(datagram)) {
            if let Ok(RtcpPacket::Nack(nack)) = packet {
                numbers.extend(nack.sequence_numbers());
            }
        }
        numbers
    }

    /// The sender reports of one SSRC.
    pub(crate) fn sender_reports(&self, ssrc: u32) -> Vec<SenderInfo> {
        let packets = self.rtcp.iter().flat_map(|datagram| RtcpPackets::new(datagram));
        packets
            .filter_map(|packet| match packet {
                Ok(RtcpPacket::SenderReport(report)) if report.sender_ssrc == ssrc => Some(report.info),
                _ => None,
            })
            .collect()
    }

    /// Blocks about the publisher's own sources.
    pub(crate) fn report_blocks(&self) -> Vec<ReportBlock> {
        let mut blocks = Vec::new();
        for packet in self.rtcp.iter().flat_map(|datagram| RtcpPackets::new(datagram)) {
            if let Ok(RtcpPacket::ReceiverReport(report)) = packet {
                blocks.extend(report.blocks());
            }
        }
        blocks
    }
}
