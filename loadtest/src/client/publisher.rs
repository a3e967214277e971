//! A WHIP client that sends synthetic media.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use media_core::internals::ice::random_credentials;
use media_core::media::{Codec, MediaKind};

use super::encoder::Encoder;
use super::error::ClientError;
use super::figures::PublisherFigures;
use super::identity::Identity;
use super::inbound::Inbound;
use super::options::ClientOptions;
use super::publisher_media::{Controls, PublisherMedia, Track};
use super::publisher_options::PublisherOptions;
use super::random::random_u32;
use super::rtp_sender::{Rid, RtpSender, SendFormat};
use super::running::{Negotiated, Running};
use super::signaling::Endpoint;
use crate::media::stamp::stream_number;
use crate::sdp::{Answer, Offer, OfferedSection, Ssrcs};

/// A running publisher. Dropping it ends it without DELETE and close_notify; [`Publisher::stop`] sends both.
pub struct Publisher {
    running: Running,
    figures: Arc<Mutex<PublisherFigures>>,
    controls: Arc<Controls>,
}

impl Publisher {
    /// Posts the offer and starts the session in the background, on the current tokio runtime.
    ///
    /// # Errors
    /// What the HTTP exchange or the answer lacks; all later failures show in [`Running::connected`].
    pub async fn start(
        endpoint: &Endpoint,
        identity: &Identity,
        media: PublisherOptions,
        options: ClientOptions,
    ) -> Result<Publisher, ClientError> {
        let begun = Instant::now();
        let local = random_credentials();
        let mut sections = Vec::new();
        let mut ssrcs = Vec::new();
        for codec in media.audio.then_some(Codec::Opus).into_iter().chain(media.video) {
            let pair = Ssrcs { media: random_u32()?, rtx: random_u32()? };
            let rids = if codec.kind() == MediaKind::Video { media.rids() } else { Vec::new() };
            sections.push(OfferedSection { codecs: vec![codec], sends: Some(pair), rids });
            ssrcs.push((codec, pair));
        }
        let fingerprint = identity.announced(&options);
        let (setup, imitates) = (options.setup, media.imitates);
        let offer = Offer {
            ice: &local,
            fingerprint: &fingerprint,
            setup,
            imitates,
            transport_cc: false,
            profiles: std::slice::from_ref(&media.described_profile),
            shift: media.payload_type_shift,
            sections: &sections,
        };
        let (answer, resource) = endpoint.offer(offer.to_sdp()).await?;

        let stream = stream_number(endpoint.stream());
        let mut sent = Vec::new();
        for (codec, ssrcs) in ssrcs {
            sent.extend(tracks(codec, ssrcs, &answer, stream, &media)?);
        }
        let figures = Arc::new(Mutex::new(PublisherFigures::default()));
        let controls = Arc::new(Controls {
            keyframes: AtomicBool::new(media.keyframes),
            paused: AtomicBool::new(false),
            profile: AtomicU32::new(media.profile),
        });
        let sent = PublisherMedia::new(begun, sent, media, Arc::clone(&controls), Arc::clone(&figures));
        let running =
            Running::start(Negotiated { resource, answer, local, begun }, identity, options, Inbound::new(sent))?;
        Ok(Publisher { running, figures, controls })
    }

    /// Lets an encoder that gave none so far make keyframes.
    pub fn allow_keyframes(&self) {
        self.controls.keyframes.store(true, Ordering::Relaxed);
    }

    /// Sends H264 of another profile from the next frame on, which is a keyframe: as [`PublisherOptions::profile`].
    pub fn change_profile(&self, profile: u32) {
        self.controls.profile.store(profile, Ordering::Relaxed);
    }

    /// Sends no media for a while, or again; its reports go on, and so does its media's time.
    pub fn pause(&self, paused: bool) {
        self.controls.paused.store(paused, Ordering::Relaxed);
    }

    /// The figures so far.
    pub fn figures(&self) -> PublisherFigures {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look at the figures that outlives the publisher.
    pub fn watch(&self) -> PublisherWatch {
        PublisherWatch(Arc::clone(&self.figures))
    }

    /// Ends the session: DELETE unless the options say no, then close_notify.
    ///
    /// # Errors
    /// What the DELETE said; the client is gone all the same.
    pub async fn stop(self) -> Result<PublisherFigures, ClientError> {
        let Publisher { running, figures, .. } = self;
        running.stop().await?;
        Ok(*figures.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The figures of a publisher that runs elsewhere.
#[derive(Clone)]
pub struct PublisherWatch(Arc<Mutex<PublisherFigures>>);

impl PublisherWatch {
    /// The figures so far.
    pub fn figures(&self) -> PublisherFigures {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Publisher {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

/// The track of a codec, as the server accepted it: one, or one for each encoding that it receives.
fn tracks(
    codec: Codec,
    ssrcs: Ssrcs,
    answer: &Answer,
    stream: u32,
    media: &PublisherOptions,
) -> Result<Vec<Track>, ClientError> {
    let accepted = answer.live(codec.kind()).and_then(|section| {
        let types = section.codecs.iter().find(|(other, _)| *other == codec)?.1;
        Some((section, types))
    });
    let (section, types) = accepted.ok_or_else(|| ClientError::Answer(format!("the server does not take {codec}")))?;
    let mid = section.mid_extension.map(|id| (id, section.mid.clone()));
    let track = |encoding, ssrcs, rid| {
        let first_timestamp = media.first_timestamp.map_or_else(random_u32, Ok)?;
        let format = SendFormat { ssrcs, types, mid: mid.clone(), rid };
        Ok(Track {
            encoder: Encoder::new(codec, encoding, first_timestamp, media),
            sender: RtpSender::new(format, stream, media.first_sequence)?,
        })
    };
    let rids = if codec.kind() == MediaKind::Video { media.rids() } else { Vec::new() };
    if rids.is_empty() {
        return Ok(vec![track(0, ssrcs, None)?]);
    }
    let Some(id) = section.rid_extension.filter(|_| section.rids == rids) else {
        let (ours, theirs) = (rids.join(";"), section.rids.join(";"));
        return Err(ClientError::Answer(format!("of the layers {ours} the server takes `{theirs}`")));
    };
    let encodings = (0..).zip(rids).map(|(encoding, name)| {
        let ssrcs = Ssrcs { media: random_u32()?, rtx: random_u32()? };
        track(encoding, ssrcs, Some(Rid { name, id, repaired_id: section.repaired_rid_extension }))
    });
    encodings.collect()
}
