//! A WHEP client that checks and counts what it receives.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use media_core::ice::random_credentials;
use media_core::media::{Codec, MediaKind};
use media_core::rtcp::{MAX_RTCP_LEN, NtpTime, ReportBlock, RtcpPacket, RtcpPackets, RtcpWriter};
use media_core::rtp::packet::RtpHeader;
use media_core::rtp::rtx;
use media_core::rtp::sequence::SequenceExtender;

use super::arrivals::Arrivals;
use super::flow::{Flow, Media, Outgoing, SharedFlow, lock};
use super::running::{Agreed, Running};
use super::start::Start;
use super::{ClientError, ClientOptions, Endpoint, Identity, Verify, ViewerFigures};
use crate::clock;
use crate::frames;
use crate::sdp::{AnsweredSection, Imitation, Offer, OfferedSection};
use crate::stamp::stream_number;
use crate::tally::Track;

const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// A gap is asked for this often, and this many times.
const NACK_INTERVAL: Duration = Duration::from_millis(40);
const NACK_TRIES: u8 = 5;
/// The first NACK waits this long: most gaps are reordering.
const NACK_DELAY: Duration = Duration::from_millis(10);
/// SSRCs of one viewer; a server has no reason for more.
const MAX_STREAMS: usize = 8;
/// The longest latency that is told from longer ones, in µs.
const MAX_LATENCY: u64 = 60_000_000;

/// One-way latencies in µs, shared by as many viewers as you like.
pub type SharedHistogram = Arc<Mutex<Histogram<u64>>>;

/// An empty histogram for latencies.
pub fn latency_histogram() -> SharedHistogram {
    // The bounds are constants that satisfy its conditions.
    let histogram = Histogram::new_with_bounds(1, MAX_LATENCY, 3).expect("valid bounds");
    Arc::new(Mutex::new(histogram))
}

/// What a viewer asks for.
#[derive(Clone, Debug)]
pub struct ViewerOptions {
    /// Video codecs to offer; none for no video.
    pub video: Vec<Codec>,
    /// Offers Opus.
    pub audio: bool,
    /// Asks for lost packets.
    pub nack: bool,
    /// Offers transport-wide feedback and gives it, as browsers do: the server then knows what the path carries.
    pub transport_cc: bool,
    /// Name of the stream whose stamps it expects; the last segment of the URL if `None`.
    pub expected_stream: Option<String>,
    /// Where latencies go, once its start is over.
    pub latency: SharedHistogram,
}

impl Default for ViewerOptions {
    fn default() -> ViewerOptions {
        ViewerOptions {
            video: vec![Codec::Vp8, Codec::H264],
            audio: true,
            nack: true,
            transport_cc: false,
            expected_stream: None,
            latency: latency_histogram(),
        }
    }
}

/// A running viewer. Dropping it ends it without a word; [`Viewer::stop`] ends it well.
pub struct Viewer {
    running: Running,
    flow: SharedFlow<Receiver>,
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
            sections.push(OfferedSection { codecs: vec![Codec::Opus], sends: None });
        }
        if !media.video.is_empty() {
            sections.push(OfferedSection { codecs: media.video.clone(), sends: None });
        }
        let fingerprint = identity.announced(&options);
        let (setup, imitates) = (options.setup, Imitation::Browser);
        let transport_cc = media.transport_cc;
        let offer =
            Offer { ice: &local, fingerprint: &fingerprint, setup, imitates, transport_cc, sections: &sections };
        let (answer, resource) = endpoint.offer(offer.to_sdp()).await?;

        let stream = stream_number(media.expected_stream.as_deref().unwrap_or(endpoint.stream()));
        let extension = answer.sections.iter().find_map(|section| section.transport_cc_extension);
        let flow = Flow::new(Receiver {
            sections: answer.sections.iter().filter(|section| !section.rejected).cloned().collect(),
            stream,
            nack: media.nack,
            arrivals: extension.filter(|_| transport_cc).map(|extension| Arrivals::new(begun, extension)),
            asks: false,
            latency: media.latency,
            verify: options.verify,
            origin,
            begun,
            next: begun,
            next_report: begun,
            ssrc: 1,
            start: Start::default(),
            latencies: Vec::new(),
            seen: Seen { figures: ViewerFigures::default(), streams: Vec::new() },
        });
        let running = Running::start(Agreed { resource, answer, local, begun }, identity, options, Arc::clone(&flow))?;
        Ok(Viewer { running, flow })
    }

    /// The figures so far.
    pub fn figures(&self) -> ViewerFigures {
        lock(&self.flow).media.seen.figures()
    }

    /// Asks for a keyframe as soon as the next packet comes.
    pub fn ask_for_keyframe(&self) {
        lock(&self.flow).media.asks = true;
    }

    /// A look at the figures that outlives the viewer.
    pub fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.flow))
    }

    /// Ends the session: DELETE unless the options say no, then close_notify.
    ///
    /// # Errors
    /// What the DELETE said; the client is gone all the same.
    pub async fn stop(self) -> Result<ViewerFigures, ClientError> {
        let Viewer { running, flow } = self;
        running.stop().await?;
        let figures = lock(&flow).media.seen.figures();
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
pub struct Watch(SharedFlow<Receiver>);

impl Watch {
    /// The figures so far.
    pub fn figures(&self) -> ViewerFigures {
        lock(&self.0).media.seen.figures()
    }
}

/// One SSRC.
struct Stream {
    ssrc: u32,
    kind: MediaKind,
    /// That of its media packets, once one was verified.
    payload_type: Option<u8>,
    extender: SequenceExtender,
    track: Track,
    clock_rate: f64,
    transit: Option<f64>,
    jitter: f64,
    last_timestamp: Option<u32>,
    time_steps_back: u64,
    longest_time_step: f64,
    reported: (u64, u64),
    last_report: Option<(u32, Instant)>,
    asked: HashMap<u64, (u8, Instant)>,
}

struct Seen {
    figures: ViewerFigures,
    streams: Vec<Stream>,
}

impl Seen {
    fn figures(&self) -> ViewerFigures {
        let mut figures = self.figures;
        figures.sources = self.streams.len() as u64;
        for stream in &self.streams {
            figures.time_steps_back += stream.time_steps_back;
            figures.longest_time_step = figures.longest_time_step.max(stream.longest_time_step);
            match stream.kind {
                MediaKind::Audio => figures.audio.add(&stream.track.figures()),
                MediaKind::Video => figures.video.add(&stream.track.figures()),
            }
        }
        figures
    }

    fn stream(&mut self, ssrc: u32, kind: MediaKind) -> Option<&mut Stream> {
        let index = match self.streams.iter().position(|stream| stream.ssrc == ssrc) {
            Some(index) => index,
            None if self.streams.len() >= MAX_STREAMS => return None,
            None => {
                self.streams.push(Stream {
                    ssrc,
                    kind,
                    payload_type: None,
                    extender: SequenceExtender::new(),
                    track: Track::default(),
                    clock_rate: if kind == MediaKind::Video { 90_000.0 } else { 48_000.0 },
                    transit: None,
                    jitter: 0.0,
                    last_timestamp: None,
                    time_steps_back: 0,
                    longest_time_step: 0.0,
                    reported: (0, 0),
                    last_report: None,
                    asked: HashMap::new(),
                });
                self.streams.len() - 1
            }
        };
        self.streams.get_mut(index).filter(|stream| stream.kind == kind)
    }
}

impl Stream {
    /// RFC 3550 A.8
    fn note_arrival(&mut self, arrival: f64, timestamp: u32, in_order: bool) {
        if in_order {
            let before = self.last_timestamp.replace(timestamp);
            self.time_steps_back += u64::from(before.is_some_and(|before| timestamp.wrapping_sub(before) > 1 << 31));
        }
        let transit = arrival * self.clock_rate - f64::from(timestamp);
        if let Some(before) = self.transit {
            let difference = (transit - before).abs();
            // A wrap of the timestamp is no jitter.
            if difference < self.clock_rate * 60.0 {
                self.longest_time_step = self.longest_time_step.max(difference / self.clock_rate);
                self.jitter += (difference - self.jitter) / 16.0;
            }
        }
        self.transit = Some(transit);
    }

    fn report(&mut self, now: Instant) -> Option<ReportBlock> {
        let highest = self.track.highest()?;
        let figures = self.track.figures();
        let (delivered, lost) = (figures.delivered, figures.lost);
        let fresh = (delivered.saturating_sub(self.reported.0), lost.saturating_sub(self.reported.1));
        self.reported = (delivered, lost);
        let (last_sr, since) = self.last_report.map_or((0, Duration::ZERO), |(sr, at)| (sr, now - at));
        Some(ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: (fresh.1 * 256 / (fresh.0 + fresh.1).max(1)).min(255) as u8,
            cumulative_lost: i32::try_from(lost).unwrap_or(i32::MAX).min(0x7f_ffff),
            extended_highest_sequence: highest as u32,
            jitter: self.jitter as u32,
            last_sr,
            delay_since_last_sr: media_core::rtcp::ntp::compact_duration(since),
        })
    }

    /// Sequence numbers to ask for now.
    fn missing(&mut self, now: Instant) -> Vec<u16> {
        let gaps: Vec<u64> = self.track.gaps().collect();
        self.asked.retain(|number, _| gaps.binary_search(number).is_ok());
        let mut ask = Vec::new();
        for number in gaps {
            let (tries, at) = self.asked.entry(number).or_insert((0, now + NACK_DELAY));
            if *tries < NACK_TRIES && now >= *at {
                *tries += 1;
                *at = now + NACK_INTERVAL;
                ask.push(number as u16);
            }
        }
        ask
    }

    fn waits_for_gaps(&self) -> bool {
        self.asked.values().any(|(tries, _)| *tries < NACK_TRIES)
    }
}

struct Receiver {
    sections: Vec<AnsweredSection>,
    stream: u32,
    nack: bool,
    /// Of what the server is told when it came.
    arrivals: Option<Arrivals>,
    /// Whoever runs it wants a keyframe.
    asks: bool,
    latency: SharedHistogram,
    verify: Verify,
    /// One moment on the clocks of this process and of the stamps, which are the same but for their zero.
    origin: (Instant, u64),
    begun: Instant,
    next: Instant,
    next_report: Instant,
    /// Our own SSRC in RTCP.
    ssrc: u32,
    /// What its latencies do not count.
    start: Start,
    /// Not yet in the histogram, in µs.
    latencies: Vec<u64>,
    seen: Seen,
}

impl Receiver {
    fn since(&self, now: Instant) -> f64 {
        now.duration_since(self.begun).as_secs_f64()
    }

    /// The codec and kind of a payload type; true if it is the RTX one, with the media payload type.
    fn format(&self, payload_type: u8) -> Option<(Codec, Option<u8>, Option<u32>)> {
        for section in &self.sections {
            for (codec, types) in &section.codecs {
                if types.media == payload_type {
                    return Some((*codec, None, None));
                }
                if types.rtx == Some(payload_type) {
                    return Some((*codec, Some(types.media), section.ssrcs.map(|ssrcs| ssrcs.media)));
                }
            }
        }
        None
    }

    fn report(&mut self, now: Instant, out: &mut Outgoing) {
        let seen = &mut self.seen;
        let blocks: Vec<ReportBlock> = seen.streams.iter_mut().filter_map(|stream| stream.report(now)).collect();
        let video = seen.streams.iter().find(|stream| stream.kind == MediaKind::Video);
        let asks = std::mem::take(&mut self.asks);
        let blind = video.filter(|stream| asks || !stream.track.has_keyframe()).map(|stream| stream.ssrc);
        let mut buffer = [0; MAX_RTCP_LEN];
        let mut writer = RtcpWriter::new(&mut buffer);
        let mut written = writer.receiver_report(self.ssrc, &blocks);
        written = written.and_then(|()| writer.sdes_cname(self.ssrc, "loadtest"));
        if let Some(media) = blind {
            // Nothing can be decoded before a keyframe.
            written = written.and_then(|()| writer.pli(self.ssrc, media));
        }
        if written.is_ok() {
            out.rtcp(writer.as_bytes());
        }
    }

    fn ask(&mut self, now: Instant, out: &mut Outgoing) -> bool {
        let seen = &mut self.seen;
        let mut waiting = false;
        let mut nacked = 0;
        for stream in seen.streams.iter_mut().filter(|stream| stream.kind == MediaKind::Video) {
            let missing = stream.missing(now);
            waiting |= stream.waits_for_gaps();
            let mut rest = &missing[..];
            while !rest.is_empty() {
                let mut buffer = [0; MAX_RTCP_LEN];
                let mut writer = RtcpWriter::new(&mut buffer);
                let taken = writer.nack(self.ssrc, stream.ssrc, rest);
                if taken == 0 {
                    break;
                }
                out.rtcp(writer.as_bytes());
                nacked += taken as u64;
                rest = &rest[taken..];
            }
        }
        seen.figures.nacked += nacked;
        waiting
    }
}

impl Media for Receiver {
    fn connected(&mut self, now: Instant) {
        let since = self.since(now);
        self.seen.figures.connected = Some(since);
        self.next_report = now + REPORT_INTERVAL / 4;
        self.next = self.next_report;
    }

    fn wants(&mut self, arrival: Instant, packet: &[u8], overhead: usize) -> bool {
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.note(arrival, packet);
        }
        if self.asks {
            self.next_report = self.next_report.min(arrival);
            self.next = self.next.min(arrival);
        }
        let Verify::Sample(one_in) = self.verify else { return true };
        let Ok(header) = RtpHeader::parse(packet) else { return true };
        if header.sequence_number.is_multiple_of(one_in.max(1)) {
            return true;
        }
        // Only packets of a kind that was verified before.
        let known =
            |stream: &&mut Stream| stream.ssrc == header.ssrc && stream.payload_type == Some(header.payload_type);
        let Some(stream) = self.seen.streams.iter_mut().find(known) else { return true };
        if stream.kind == MediaKind::Video && !stream.track.has_keyframe() {
            return true;
        }
        let before = stream.extender.highest();
        let extended = stream.extender.extend(header.sequence_number);
        let payload_len = header.payload(packet).len().saturating_sub(overhead);
        if stream.track.note_sequence(extended, payload_len, false)
            && self.nack
            && before.is_some_and(|before| extended > before + 1)
        {
            self.next = self.next.min(arrival + NACK_DELAY);
        }
        false
    }

    fn overflowed(&mut self, total: u32) {
        self.seen.figures.overflowed = total.into();
    }

    fn pause(&mut self) {
        if !self.latencies.is_empty() {
            let mut histogram = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
            self.latencies.drain(..).for_each(|latency| histogram.saturating_record(latency));
        }
    }

    fn rtp(&mut self, now: Instant, packet: &mut [u8]) {
        let since = self.since(now);
        let arrival = self.origin.1 + now.saturating_duration_since(self.origin.0).as_nanos() as u64;
        self.seen.figures.first_rtp.get_or_insert(since);
        let header = RtpHeader::parse(packet).ok();
        let format = header.and_then(|header| Some((header, self.format(header.payload_type)?)));
        let seen = &mut self.seen;
        let Some((mut header, (codec, retransmitted, media_ssrc))) = format else {
            seen.figures.unexpected += 1;
            return;
        };
        let mut packet = packet;
        if let Some(payload_type) = retransmitted {
            let known = seen.streams.iter().find(|stream| stream.kind == codec.kind()).map(|stream| stream.ssrc);
            let Some(ssrc) = media_ssrc.or(known) else {
                seen.figures.unexpected += 1;
                return;
            };
            // A retransmission without a payload is a probe.
            let Some(restored) = rtx::restore(packet, &header, payload_type, ssrc) else { return };
            packet = restored;
            let Ok(restored_header) = RtpHeader::parse(packet) else { return };
            header = restored_header;
        }
        let Some(stream) = seen.stream(header.ssrc, codec.kind()) else {
            seen.figures.unexpected += 1;
            return;
        };
        let before = stream.extender.highest();
        let extended = stream.extender.extend(header.sequence_number);
        let payload = header.payload(packet);
        if !stream.track.note_sequence(extended, payload.len(), retransmitted.is_some()) || payload.is_empty() {
            return;
        }
        if self.nack && before.is_some_and(|before| extended > before + 1) {
            self.next = self.next.min(now + NACK_DELAY);
        }
        if retransmitted.is_none() {
            let in_order = before.is_none_or(|before| extended > before);
            stream.note_arrival(arrival as f64 / 1e9, header.timestamp, in_order);
            stream.payload_type = Some(header.payload_type);
        }
        match frames::open(codec, payload) {
            Ok(stamp) if stamp.stream == self.stream => {
                let first = !stream.track.has_keyframe();
                match self.verify {
                    Verify::All => stream.track.note_stamp(&stamp),
                    Verify::Sample(_) => stream.track.note_sampled_stamp(&stamp, extended),
                }
                if first && stamp.content == crate::stamp::Content::KeyframeStart {
                    seen.figures.first_keyframe.get_or_insert(since);
                }
                if before.is_none() {
                    self.start.on_first(arrival, stamp.sent);
                }
                if retransmitted.is_none() && self.start.is_over(stamp.sent) {
                    let latency = arrival.saturating_sub(stamp.sent) / 1000;
                    self.latencies.push(latency.max(1));
                }
            }
            _ => stream.track.note_corrupt(),
        }
    }

    fn rtcp(&mut self, now: Instant, packet: &[u8], _: &mut Outgoing) {
        let seen = &mut self.seen;
        for message in RtcpPackets::new(packet).flatten() {
            if let RtcpPacket::SenderReport(report) = message {
                seen.figures.sender_reports += 1;
                let stream = seen.streams.iter_mut().find(|stream| stream.ssrc == report.sender_ssrc);
                let mut step = 0.0;
                if let Some(stream) = stream {
                    stream.last_report = Some((NtpTime::compact(report.info.ntp), now));
                    if let Some(last) = stream.last_timestamp {
                        step =
                            f64::from(report.info.rtp_timestamp.wrapping_sub(last).cast_signed()) / stream.clock_rate;
                    }
                }
                seen.figures.longest_report_step = seen.figures.longest_report_step.max(step.abs());
            }
        }
    }

    fn refused(&mut self) {
        self.seen.figures.refused += 1;
    }

    fn tick(&mut self, now: Instant, out: &mut Outgoing) -> Instant {
        if now >= self.next_report {
            self.next_report = now + REPORT_INTERVAL;
            self.report(now, out);
        }
        let waiting = self.nack && self.ask(now, out);
        self.next = if waiting { self.next_report.min(now + NACK_DELAY) } else { self.next_report };
        if let Some(arrivals) = &mut self.arrivals {
            let media_ssrc = self.seen.streams.first().map_or(0, |stream| stream.ssrc);
            arrivals.report(now, self.ssrc, media_ssrc, |message| out.rtcp(message));
            self.next = self.next.min(arrivals.deadline());
        }
        self.next
    }

    fn deadline(&self) -> Instant {
        self.next
    }
}
