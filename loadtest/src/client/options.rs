//! How a client behaves.

use std::net::IpAddr;
use std::time::Duration;

use media_core::internals::dtls::CertificateKey;
use media_core::internals::srtp::SrtpProfile;

use super::reception::Reception;
use crate::sdp::Setup;

/// Which packets a viewer authenticates, decrypts and compares with what was sent.
///
/// With [`Verify::All`] every payload is known to be whole. With [`Verify::Sample`] these hold for every packet: it was received
/// from the server's address, its SSRC and payload type were negotiated, and by its sequence number in the clear header it
/// is counted as delivered, lost, duplicated or reordered; no count is an estimate. Whether the tag and the payload are
/// right, and the latency, is known for one packet in so many, for all up to the first keyframe, and for every
/// retransmission. Packets lost in front of the server are counted exactly too: from one sampled packet to the next the
/// publisher's counter must grow as much as the sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Every packet.
    All,
    /// One in so many, at least 1.
    Sample(u16),
}

/// How a client behaves. The defaults are those of a good client; each other value breaks one thing on purpose.
///
/// More fields than fifteen: every one is a switch of its own, and tests name the one that they turn.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Makes ICE checks at all.
    pub send_checks: bool,
    /// Makes its checks as FFmpeg does, instead of with the agent: USERNAME and USE-CANDIDATE are all they say, the
    /// handshake ends them, and those of the server get no answer.
    pub bare_checks: bool,
    /// Sends and receives by TCP, to the server's passive candidates.
    pub ice_tcp: bool,
    /// Announces another fingerprint than that of its certificate.
    pub corrupt_fingerprint: bool,
    /// The kind of its certificate's key.
    pub certificate: CertificateKey,
    /// SRTP profiles to offer in the handshake, the preferred one first; with none there is no `use_srtp`.
    pub srtp_profiles: Vec<SrtpProfile>,
    /// Alters every protected packet that it sends.
    pub corrupt_srtp: bool,
    /// Answers the server's certificate and keys, but then sends neither RTP nor RTCP.
    pub send_media: bool,
    /// `a=setup` of the offer.
    pub setup: Setup,
    /// Local address of the media socket; chosen by the server's candidates if `None`.
    pub bind: Option<IpAddr>,
    /// From the POST to the end of the handshake.
    pub connect_timeout: Duration,
    /// Of the packets that arrive, this share is thrown away, 0.0..=1.0.
    pub drop_incoming: f64,
    /// Of the RTP and RTCP packets that it sends, this share is thrown away, 0.0..=1.0.
    pub drop_outgoing: f64,
    /// Sends every RTP and RTCP packet twice.
    pub repeat: bool,
    /// Sends DELETE when it stops.
    pub delete: bool,
    /// Receives with UDP_GRO. A server on the same machine then pays less for what it sends than to clients behind a
    /// network card without segmentation offload.
    pub receive_runs: bool,
    /// Which packets a viewer verifies.
    pub verify: Verify,
    /// The thread that receives once the client is connected; its own task if `None`.
    pub reception: Option<Reception>,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            send_checks: true,
            bare_checks: false,
            ice_tcp: false,
            corrupt_fingerprint: false,
            certificate: CertificateKey::P256,
            srtp_profiles: SrtpProfile::ALL.to_vec(),
            corrupt_srtp: false,
            send_media: true,
            setup: Setup::ActPass,
            bind: None,
            connect_timeout: Duration::from_secs(15),
            drop_incoming: 0.0,
            drop_outgoing: 0.0,
            repeat: false,
            delete: true,
            receive_runs: true,
            verify: Verify::All,
            reception: None,
        }
    }
}
