//! A client that the test plays itself, packet by packet: nothing goes out but what the test sends.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use loadtest::client::bare_check;
use loadtest::sdp::{Answer, CONSTRAINED_BASELINE, Imitation, Offer, OfferedSection, Setup, Ssrcs};
use media_core::internals::demux::{PacketKind, classify};
use media_core::internals::dtls::{Certificate, DtlsContext, DtlsEndpoint, DtlsEvent};
use media_core::internals::rtcp::{ReportBlock, RtcpWriter};
use media_core::internals::rtp::{HeaderFields, RtpHeader, write_header};
use media_core::internals::srtp::{KeyingMaterial, MAX_TRAILER, SrtpReceiver, SrtpSender};
use media_core::media::{Codec, MediaKind};
use media_core::{DtlsParameters, DtlsRole, IceCredentials};

use crate::support::{LONG, Sluice};

/// VP8: a payload descriptor with S=1, then the first byte of a keyframe or of another frame.
const KEYFRAME: &[u8] = &[0x10, 0x00, 1, 2, 3];
const DELTA: &[u8] = &[0x10, 0x01, 4, 5];
pub(crate) const AUDIO: u32 = 0x2222;
pub(crate) const VIDEO: u32 = 0x1111;
/// Id of `sdes:mid` in the offers, and the mid of the video.
const MID: (u8, &[u8]) = (4, b"1");

/// A client whose offer was answered.
pub(crate) struct RawClient {
    pub(crate) ice: IceCredentials,
    pub(crate) answer: Answer,
    pub(crate) socket: UdpSocket,
    context: DtlsContext,
    keys: Option<Keys>,
    /// SSRC and extended highest sequence number of what was received.
    received: Vec<(u32, u32)>,
    checks: u32,
}

struct Keys {
    material: KeyingMaterial,
    receiver: SrtpReceiver,
    sender: SrtpSender,
}

/// One RTP packet.
#[derive(Clone, Copy)]
pub(crate) struct Rtp {
    pub(crate) ssrc: u32,
    pub(crate) payload_type: u8,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
}

impl RawClient {
    /// Posts an offer of audio and video, or of audio alone, to `path`; publishers send what they offer.
    pub(crate) async fn post(
        server: &Sluice,
        path: &str,
        setup: Setup,
        imitates: Imitation,
        codecs: &[Codec],
    ) -> RawClient {
        let ice = media_core::internals::ice::random_credentials();
        let certificate = Certificate::generate().unwrap();
        let publishes = path.starts_with("whip/");
        let section = |&codec: &Codec| {
            let media = if codec.kind() == MediaKind::Audio { AUDIO } else { VIDEO };
            let sends = publishes.then_some(Ssrcs { media, rtx: media + 1 });
            OfferedSection { codecs: vec![codec], sends, rids: Vec::new() }
        };
        let sections: Vec<_> = codecs.iter().map(section).collect();
        let fingerprint = certificate.fingerprint();
        let profiles = [CONSTRAINED_BASELINE.to_owned()];
        let offer = Offer {
            ice: &ice,
            fingerprint,
            setup,
            imitates,
            transport_cc: false,
            profiles: &profiles,
            shift: 0,
            sections: &sections,
        };
        let request = server.http.post(format!("{}/{path}", server.base)).header("Content-Type", "application/sdp");
        let reply = request.body(offer.to_sdp()).send().await.unwrap();
        assert_eq!(reply.status(), 201);
        let answer = Answer::parse(&reply.text().await.unwrap()).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(answer.candidates[0].address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        let context = DtlsContext::new(&certificate).unwrap();
        RawClient { ice, answer, socket, context, keys: None, received: Vec::new(), checks: 0 }
    }

    /// A connected publisher of Opus and VP8.
    pub(crate) async fn publisher(server: &Sluice, stream: &str, imitates: Imitation) -> RawClient {
        let path = format!("whip/{stream}");
        let mut client = RawClient::post(server, &path, Setup::Active, imitates, &[Codec::Opus, Codec::Vp8]).await;
        client.connect();
        client
    }

    /// A connected viewer of Opus and VP8.
    pub(crate) async fn viewer(server: &Sluice, stream: &str) -> RawClient {
        let path = format!("whep/{stream}");
        let codecs = [Codec::Opus, Codec::Vp8];
        let mut client = RawClient::post(server, &path, Setup::Active, Imitation::Browser, &codecs).await;
        client.connect();
        client
    }

    /// Sends a connectivity check.
    pub(crate) fn check(&mut self) {
        let mut transaction = *b"transaction.";
        transaction[8..].copy_from_slice(&self.checks.to_be_bytes());
        self.checks += 1;
        self.send(&bare_check(&self.ice, &self.answer.ice, transaction).unwrap());
    }

    /// Checks until one is answered.
    pub(crate) fn validate(&mut self) {
        let begun = Instant::now();
        let mut buffer = [0; 2048];
        loop {
            assert!(begun.elapsed() < LONG, "no check is answered");
            self.check();
            // In full mode the server's own checks come in between.
            if (0..5).any(|_| self.socket.recv(&mut buffer).is_ok() && buffer.starts_with(&[1, 1])) {
                return;
            }
        }
    }

    /// Checks, and the handshake.
    pub(crate) fn connect(&mut self) {
        self.validate();
        let parameters = DtlsParameters { role: DtlsRole::Client, fingerprints: self.answer.fingerprints.clone() };
        let mut dtls = DtlsEndpoint::new(&self.context, parameters).unwrap();
        dtls.start(Instant::now());
        let begun = Instant::now();
        let mut buffer = [0; 2048];
        while self.keys.is_none() {
            assert!(begun.elapsed() < LONG, "the handshake does not end");
            while let Some(datagram) = dtls.poll_transmit() {
                self.send(&datagram);
            }
            if let Ok(length) = self.socket.recv(&mut buffer)
                && classify(&buffer[..length]) == Ok(PacketKind::Dtls)
            {
                dtls.handle_datagram(Instant::now(), &buffer[..length]);
            }
            dtls.handle_timeout(Instant::now());
            while let Some(event) = dtls.poll_event() {
                match event {
                    DtlsEvent::Connected(connection) => {
                        let (receiver, sender) = connection.keying.contexts(DtlsRole::Client).unwrap();
                        self.keys = Some(Keys { material: connection.keying, receiver, sender });
                    }
                    DtlsEvent::Failed(failure) => panic!("{failure:?}"),
                    _ => {}
                }
            }
        }
        while let Some(datagram) = dtls.poll_transmit() {
            self.send(&datagram);
        }
    }

    pub(crate) fn send(&self, datagram: &[u8]) {
        self.socket.send(datagram).unwrap();
    }

    /// Forgets which packets were sent: the next ones may have any number.
    pub(crate) fn forget_sent(&mut self) {
        let keys = self.keys.as_mut().unwrap();
        keys.sender = keys.material.contexts(DtlsRole::Client).unwrap().1;
    }

    /// Sends an RTP packet with this payload, and with the mid of the video if `named`.
    pub(crate) fn rtp(&mut self, rtp: Rtp, named: bool, payload: &[u8]) {
        let Rtp { ssrc, payload_type, sequence, timestamp } = rtp;
        let fields =
            HeaderFields { marker: true, padding: false, payload_type, sequence_number: sequence, timestamp, ssrc };
        let mut bytes = vec![0; 64 + payload.len() + MAX_TRAILER];
        let header = write_header(&mut bytes, &fields, named.then_some(MID)).unwrap();
        bytes[header..header + payload.len()].copy_from_slice(payload);
        let length = header + payload.len();
        let length = self.keys.as_mut().unwrap().sender.protect_rtp(&mut bytes, length).unwrap();
        self.send(&bytes[..length]);
    }

    /// Sends a frame of Opus.
    pub(crate) fn audio(&mut self, sequence: u16) {
        let timestamp = u32::from(sequence) * 960;
        self.rtp(Rtp { ssrc: AUDIO, payload_type: 111, sequence, timestamp }, false, b"opus");
    }

    /// Sends a frame of VP8.
    pub(crate) fn video(&mut self, sequence: u16, keyframe: bool) {
        let rtp = Rtp { ssrc: VIDEO, payload_type: 96, sequence, timestamp: u32::from(sequence) * 3_000 };
        self.rtp(rtp, false, if keyframe { KEYFRAME } else { DELTA });
    }

    /// Sends a keyframe of VP8 in packets of this SSRC.
    pub(crate) fn keyframe_of(&mut self, ssrc: u32, sequence: u16, timestamp: u32) {
        self.rtp(Rtp { ssrc, payload_type: 96, sequence, timestamp }, true, KEYFRAME);
    }

    /// Sends RTP with more padding than the packet holds.
    pub(crate) fn malformed_video(&mut self, sequence: u16) {
        // P=1, and the last byte is the number of bytes of padding.
        let [high, low] = sequence.to_be_bytes();
        let mut bytes = vec![0xa0, 96, high, low, 0, 0, 0, 0, 0, 0, 0x11, 0x11, 1, 2, 3, 200];
        let length = bytes.len();
        bytes.resize(length + MAX_TRAILER, 0);
        let length = self.keys.as_mut().unwrap().sender.protect_rtp(&mut bytes, length).unwrap();
        self.send(&bytes[..length]);
    }

    /// Receives what is there; the number of RTP packets.
    pub(crate) fn receive(&mut self) -> usize {
        let mut count = 0;
        let mut buffer = [0; 2048];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let packet = &mut buffer[..length];
            if classify(packet) != Ok(PacketKind::Rtp) {
                continue;
            }
            let Ok(length) = self.keys.as_mut().unwrap().receiver.unprotect_rtp(packet, length) else { continue };
            let header = RtpHeader::parse(&packet[..length]).unwrap();
            count += 1;
            match self.received.iter_mut().find(|(ssrc, _)| *ssrc == header.ssrc) {
                Some((_, highest)) => *highest = header.sequence_number.into(),
                None => self.received.push((header.ssrc, header.sequence_number.into())),
            }
        }
        count
    }

    /// Reports receipt of all that was received so far.
    pub(crate) fn report(&mut self) {
        let block = |&(ssrc, highest): &(u32, u32)| ReportBlock {
            ssrc,
            fraction_lost: 0,
            cumulative_lost: 0,
            extended_highest_sequence: highest,
            jitter: 0,
            last_sr: 0,
            delay_since_last_sr: 0,
        };
        let blocks: Vec<ReportBlock> = self.received.iter().map(block).collect();
        let mut bytes = vec![0; 1500 + MAX_TRAILER];
        let mut writer = RtcpWriter::new(&mut bytes);
        writer.receiver_report(1, &blocks).unwrap();
        writer.sdes_cname(1, "raw").unwrap();
        let length = writer.len();
        let length = self.keys.as_mut().unwrap().sender.protect_rtcp(&mut bytes, length).unwrap();
        self.send(&bytes[..length]);
    }
}

/// A publisher's media in real time, sent by a thread: 50 audio and 25 video packets a second, as far as they are on, and
/// checks.
pub(crate) struct Playout {
    controls: Arc<Controls>,
    thread: JoinHandle<()>,
}

/// What whoever runs a playout can change.
struct Controls {
    audio: AtomicBool,
    video: AtomicBool,
}

impl Playout {
    /// Begins to send.
    pub(crate) fn start(mut client: RawClient, (audio, video): (bool, bool)) -> Playout {
        let controls = Arc::new(Controls { audio: AtomicBool::new(audio), video: AtomicBool::new(video) });
        let played = Arc::downgrade(&controls);
        let thread = std::thread::spawn(move || {
            let begun = Instant::now();
            let (mut audio, mut video, mut checks) = (0_u16, 0_u16, 0_u16);
            while let Some(controls) = played.upgrade() {
                let elapsed = begun.elapsed().as_millis();
                while u128::from(audio) * 20 < elapsed {
                    audio += 1;
                    if controls.audio.load(Ordering::Relaxed) {
                        client.audio(audio);
                    }
                }
                while u128::from(video) * 40 < elapsed {
                    video += 1;
                    if controls.video.load(Ordering::Relaxed) {
                        client.video(video, video % 10 == 1);
                    }
                }
                while u128::from(checks) * 500 < elapsed {
                    checks += 1;
                    client.check();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Playout { controls, thread }
    }

    /// Which media go on from now on.
    pub(crate) fn set(&self, audio: bool, video: bool) {
        assert!(!self.thread.is_finished());
        self.controls.audio.store(audio, Ordering::Relaxed);
        self.controls.video.store(video, Ordering::Relaxed);
    }
}
