//! How long a viewer's join took.

use serde::Serialize;

/// How one viewer's join went. Times are ms since its POST.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Join {
    /// When it began, in seconds since the test's begin.
    pub at: f64,
    /// End of the handshake.
    pub connected_ms: Option<f64>,
    /// First RTP packet.
    pub first_rtp_ms: Option<f64>,
    /// First keyframe.
    pub first_keyframe_ms: Option<f64>,
}
