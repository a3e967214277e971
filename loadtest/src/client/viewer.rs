//! A WHEP client that checks and counts what it receives.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use media_core::internals::ice::random_credentials;
use media_core::media::Codec;

use super::error::ClientError;
use super::figures::ViewerFigures;
use super::identity::Identity;
use super::inbound::{Inbound, SharedInbound, lock};
use super::latency::{SharedHistogram, latency_histogram};
use super::options::ClientOptions;
use super::pictures::Pictures;
use super::running::{Negotiated, Running};
use super::signaling::Endpoint;
use super::transport_feedback::FeedbackSender;
use super::viewer_media::{Expected, ViewerMedia};
use crate::clock;
use crate::media::stamp::stream_number;
use crate::sdp::{CONSTRAINED_BASELINE, Imitation, Offer, OfferedSection};

/// What a viewer asks for.
#[derive(Clone, Debug)]
pub struct ViewerOptions {
    /// Video codecs to offer; none for no video.
    pub video: Vec<Codec>,
    /// `profile-level-id` of each H264 format that it offers.
    pub profiles: Vec<String>,
    /// Offers Opus.
    pub audio: bool,
    /// Asks for lost packets.
    pub nack: bool,
    /// Offers transport-wide feedback and gives it, as browsers do: the server then knows what the path carries.
    pub transport_cc: bool,
    /// Name of the stream whose stamps it expects, as its publisher's [`Endpoint::stream`]; that of its own URL if `None`.
    pub expected_stream: Option<String>,
    /// The stream's video has layers: every packet says which one it is of, and what is left out is not missing. It is known for
    /// all that is verified.
    pub has_layers: bool,
    /// Where latencies go, once its start is over.
    pub latency: SharedHistogram,
}

impl Default for ViewerOptions {
    fn default() -> ViewerOptions {
        ViewerOptions {
            video: vec![Codec::Vp8, Codec::H264],
            profiles: vec![CONSTRAINED_BASELINE.to_owned()],
            audio: true,
            nack: true,
            transport_cc: false,
            expected_stream: None,
            has_layers: false,
            latency: latency_histogram(),
        }
    }
}

/// A running viewer. Dropping it ends it without DELETE and close_notify; [`Viewer::stop`] sends both.
pub struct Viewer {
    running: Running,
    inbound: SharedInbound<ViewerMedia>,
}

impl Viewer {
    /// Posts the offer and starts the session in the background, on the current tokio runtime.
    ///
    /// # Errors
    /// What the HTTP exchange or the answer lacks; all later failures show in [`Running::connected`].
    pub async fn start(
        endpoint: &Endpoint,
        identity: &Identity,
        media: ViewerOptions,
        options: ClientOptions,
    ) -> Result<Viewer, ClientError> {
        let begun = Instant::now();
        let origin = (begun, clock::nanos());
        let local = random_credentials();
        let mut sections = Vec::new();
        if media.audio {
            sections.push(OfferedSection { codecs: vec![Codec::Opus], sends: None, rids: Vec::new() });
        }
        if !media.video.is_empty() {
            sections.push(OfferedSection { codecs: media.video.clone(), sends: None, rids: Vec::new() });
        }
        let fingerprint = identity.announced(&options);
        let (setup, imitates) = (options.setup, Imitation::Browser);
        let transport_cc = media.transport_cc;
        let offer = Offer {
            ice: &local,
            fingerprint: &fingerprint,
            setup,
            imitates,
            transport_cc,
            profiles: &media.profiles,
            shift: 0,
            sections: &sections,
        };
        let (answer, resource) = endpoint.offer(offer.to_sdp()).await?;

        let stream = stream_number(media.expected_stream.as_deref().unwrap_or(endpoint.stream()));
        let extension = answer.sections.iter().find_map(|section| section.transport_cc_extension);
        let feedback = extension.filter(|_| transport_cc).map(|extension| FeedbackSender::new(begun, extension));
        let sections = answer.sections.iter().filter(|section| !section.rejected).cloned().collect();
        let expected = Expected { sections, stream, verify: options.verify, has_layers: media.has_layers };
        let inbound = Inbound::new(ViewerMedia::new(origin, expected, media.nack, feedback, media.latency));
        let running =
            Running::start(Negotiated { resource, answer, local, begun }, identity, options, Arc::clone(&inbound))?;
        Ok(Viewer { running, inbound })
    }

    /// The figures so far.
    pub fn figures(&self) -> ViewerFigures {
        lock(&self.inbound).media.figures()
    }

    /// What it could have shown so far, of a stream with layers.
    pub fn pictures(&self) -> Pictures {
        lock(&self.inbound).media.pictures()
    }

    /// Asks for a keyframe as soon as the next packet comes.
    pub fn ask_for_keyframe(&self) {
        lock(&self.inbound).media.request_keyframe();
    }

    /// A look at the figures that outlives the viewer.
    pub fn watch(&self) -> ViewerWatch {
        ViewerWatch(Arc::clone(&self.inbound))
    }

    /// Ends the session: DELETE unless the options say no, then close_notify.
    ///
    /// # Errors
    /// What the DELETE said; the client is gone all the same.
    pub async fn stop(self) -> Result<ViewerFigures, ClientError> {
        let Viewer { running, inbound } = self;
        running.stop().await?;
        let figures = lock(&inbound).media.figures();
        Ok(figures)
    }
}

impl Deref for Viewer {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

/// The figures of a viewer that runs elsewhere.
#[derive(Clone)]
pub struct ViewerWatch(SharedInbound<ViewerMedia>);

impl ViewerWatch {
    /// What it could have shown so far, of a stream with layers.
    pub fn pictures(&self) -> Pictures {
        lock(&self.0).media.pictures()
    }

    /// The figures so far.
    pub fn figures(&self) -> ViewerFigures {
        lock(&self.0).media.figures()
    }
}
