//! What publishers and viewers count.

use crate::tally::TrackFigures;

/// What a publisher did.
#[derive(Clone, Copy, Debug, Default)]
pub struct PublisherFigures {
    /// From the POST to the end of the handshake, in seconds.
    pub connected: Option<f64>,
    /// RTP packets sent, without retransmissions.
    pub packets: u64,
    /// Frames sent; every audio packet is one.
    pub frames: u64,
    /// Frames that left more than 10 ms after their time: the load test itself was too slow.
    pub late_frames: u64,
    /// Keyframes sent.
    pub keyframes: u64,
    /// PLI and FIR received.
    pub keyframe_requests: u64,
    /// Packets sent again after a NACK.
    pub resent: u64,
    /// SRTP packets of the server that did not authenticate.
    pub refused: u64,
}

/// What a viewer saw. Times are seconds since its POST.
#[derive(Clone, Copy, Debug, Default)]
pub struct ViewerFigures {
    /// End of the handshake.
    pub connected: Option<f64>,
    /// First RTP packet.
    pub first_rtp: Option<f64>,
    /// First packet of the first keyframe.
    pub first_keyframe: Option<f64>,
    /// Audio.
    pub audio: TrackFigures,
    /// Video.
    pub video: TrackFigures,
    /// RTP packets with a payload type or SSRC that was not negotiated.
    pub unexpected: u64,
    /// SRTP packets that did not authenticate or were received twice.
    pub refused: u64,
    /// SRTP packets that did not authenticate, from SSRCs that the answer does not name: of a session that had this port before, and
    /// whose client vanished without a word.
    pub strays: u64,
    /// Datagrams that this client's own socket had no room for: losses by the load test, not by the server.
    pub overflowed: u64,
    /// NACKed sequence numbers.
    pub nacked: u64,
    /// PLI sent.
    pub keyframe_requests: u64,
    /// Sender reports received.
    pub sender_reports: u64,
    /// SSRCs that sent.
    pub sources: u64,
    /// Packets in order whose RTP time lies before that of the packet in front of them.
    pub time_steps_back: u64,
    /// The largest step of RTP time against the time of arrival from one packet to the next, in seconds.
    pub longest_time_step: f64,
    /// How far RTP time was from the time of arrival at most, by what they were after the fast start, in seconds.
    pub longest_time_error: f64,
    /// The largest distance of a sender report's RTP time from that of the last packet, in seconds.
    pub longest_report_step: f64,
}

impl ViewerFigures {
    /// Audio and video together.
    pub fn total(&self) -> TrackFigures {
        let mut total = self.audio;
        total.add(&self.video);
        total
    }

    /// Everything received was whole, received once and left no gap, and something was received.
    pub fn is_intact(&self) -> bool {
        let total = self.total();
        total.delivered > 0 && total.is_intact() && self.unexpected == 0 && self.refused == 0
    }
}
