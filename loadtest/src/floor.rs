//! The floor: what the same packets cost a program that does nothing but send them.
//!
//! For every viewer and packet: copy the payload, write 12 bytes of header, protect. A viewer's packets of one frame leave
//! as one message with UDP segmentation, many messages in one `sendmmsg`; frames that are late leave together, as a server
//! would find them together in its socket. No receiving, no sessions, no decisions. The
//! cost of a server's forwarded packet, divided by this one's at the same pace, says how much of it is the server's own.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use media_core::DtlsRole;
use media_core::internals::egress::PACKET_ROOM;
use media_core::internals::net::{MediaSocket, RunBatch, SendBatch, TransportTuple};
use media_core::internals::rtp::packet::{HeaderFields, write_header};
use media_core::internals::srtp::{KeyingMaterial, SrtpProfile, SrtpSender};
use media_core::media::{Codec, MediaKind};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::client::{
    AUDIO_BYTES, AUDIO_INTERVAL, DatagramSink, Moment, PublisherOptions, ReceptionThread, open_socket,
};
use crate::media::frames::Packetizer;
use crate::seconds::seconds;

/// Before this has passed nothing is measured: caches, the clock of the CPU and the receivers' buffers settle.
const WARM_UP: Duration = Duration::from_secs(1);

/// An SRTP profile on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Srtp {
    /// AEAD_AES_128_GCM
    Gcm128,
    /// AEAD_AES_256_GCM
    Gcm256,
    /// AES_CM_128_HMAC_SHA1_80
    Cm,
}

impl Srtp {
    /// Its profile.
    pub fn profile(self) -> SrtpProfile {
        match self {
            Srtp::Gcm128 => SrtpProfile::AeadAes128Gcm,
            Srtp::Gcm256 => SrtpProfile::AeadAes256Gcm,
            Srtp::Cm => SrtpProfile::Aes128CmHmacSha1_80,
        }
    }
}

/// The command line.
#[derive(Args, Debug)]
pub struct FloorArgs {
    /// Number of streams
    #[arg(long, default_value_t = 1)]
    publishers: usize,
    /// Number of viewers, dealt out to the streams in turn
    #[arg(long, default_value_t = 100)]
    viewers: usize,
    /// Seconds to measure
    #[arg(long, default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Send video
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    video: bool,
    /// Send audio, 50 packets a second
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    audio: bool,
    /// Video payload in kbit/s
    #[arg(long, default_value_t = 1000)]
    bitrate: u32,
    /// Video frames a second
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=240))]
    fps: u32,
    /// Longest RTP payload in bytes
    #[arg(long, default_value_t = 1100, value_parser = clap::value_parser!(u16).range(128..=1200))]
    packet_size: u16,
    /// SRTP profile
    #[arg(long, value_enum, default_value = "gcm128")]
    srtp: Srtp,
    /// Be the receiving process, with this many sockets
    #[arg(long, hide = true)]
    drain: Option<usize>,
}

/// Runs the command and prints its figures.
///
/// # Errors
/// Sockets, keys, or a child that does not start.
pub fn command(args: &FloorArgs) -> io::Result<()> {
    if let Some(count) = args.drain {
        return drain(count);
    }
    let plan = FloorPlan {
        streams: args.publishers,
        viewers: args.viewers,
        duration: args.seconds,
        media: PublisherOptions {
            video: args.video.then_some(Codec::H264),
            audio: args.audio,
            bitrate: args.bitrate,
            fps: args.fps,
            packet_size: args.packet_size.into(),
            ..PublisherOptions::default()
        },
        profile: args.srtp.profile(),
    };
    let figures = run(&plan)?;
    println!("{}", serde_json::to_string_pretty(&figures).map_err(io::Error::other)?);
    Ok(())
}

/// What to send.
#[derive(Clone, Debug)]
struct FloorPlan {
    /// Streams, each with a pace of its own.
    streams: usize,
    /// FloorViewers, dealt out to the streams in turn.
    viewers: usize,
    /// Time that is measured.
    duration: Duration,
    /// The media of each stream.
    media: PublisherOptions,
    /// SRTP profile.
    profile: SrtpProfile,
}

/// What it cost.
#[derive(Clone, Debug, Serialize)]
struct FloorFigures {
    /// Streams.
    streams: usize,
    /// FloorViewers.
    viewers: usize,
    /// Name of the SRTP profile.
    profile: &'static str,
    /// Time that was measured, in seconds.
    seconds: f64,
    /// Packets that the socket took in that time.
    packets: u64,
    /// Packets that it refused.
    dropped: u64,
    /// Packets in one message on average.
    packets_per_message: f64,
    /// CPU time of this process, user and system, in seconds. The receivers are another process.
    cpu_seconds: f64,
    /// CPU time for each packet, in µs.
    cpu_us_per_packet: f64,
    /// How late the latest frame was sent, in ms: more than a frame's time means that the pace was not kept.
    latest_ms: f64,
}

/// Runs the loop; the receivers are a child process.
fn run(plan: &FloorPlan) -> io::Result<FloorFigures> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _inside = runtime.enter();
    let receivers = Receivers::start(plan.viewers)?;
    let socket = MediaSocket::register(MediaSocket::bind(Ipv4Addr::LOCALHOST.into(), 0)?)?;
    let mut streams: Vec<Vec<FloorViewer>> = (0..plan.streams.max(1)).map(|_| Vec::new()).collect();
    let count = streams.len();
    for (index, &remote) in receivers.addresses.iter().enumerate() {
        streams[index % count].push(FloorViewer::new(TransportTuple::udp(remote, None), index, plan.profile)?);
    }

    let begun = Instant::now();
    let mut tracks: Vec<Vec<FloorTrack>> =
        (0..count).map(|stream| FloorTrack::of(stream, begun, count, &plan.media)).collect();
    let mut batch = SendBatch::new(socket.is_ipv6());
    let mut sent = Sent::default();
    let mut latest = Duration::ZERO;
    let mut measured = None;
    while let Some(next) = tracks.iter().flatten().map(|track| track.next).min() {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let now = Instant::now();
        if measured.is_none() && now >= begun + WARM_UP {
            measured = Some((now, cpu_time()));
            (sent, latest) = (Sent::default(), Duration::ZERO);
        }
        if measured.is_some_and(|(since, _)| now >= since + plan.duration) {
            break;
        }
        latest = latest.max(now.saturating_duration_since(next));
        for (tracks, viewers) in tracks.iter_mut().zip(&mut streams) {
            for track in tracks.iter_mut() {
                track.due = track.frames_until(now);
            }
            for viewer in viewers.iter_mut() {
                for track in tracks.iter() {
                    viewer.send(track, &socket, &mut batch, &mut sent)?;
                }
            }
            flush(&socket, &mut batch, &mut sent);
            tracks.iter_mut().for_each(FloorTrack::advance);
        }
    }
    let (since, cpu_before) = measured.ok_or_else(|| io::Error::other("there is nothing to send"))?;
    let cpu = cpu_time().saturating_sub(cpu_before).as_secs_f64();
    let packets = sent.packets.max(1) as f64;
    Ok(FloorFigures {
        streams: count,
        viewers: plan.viewers,
        profile: plan.profile.as_str(),
        seconds: since.elapsed().as_secs_f64(),
        packets: sent.packets,
        dropped: sent.dropped,
        packets_per_message: packets / sent.messages.max(1) as f64,
        cpu_seconds: cpu,
        cpu_us_per_packet: cpu * 1e6 / packets,
        latest_ms: latest.as_secs_f64() * 1000.0,
    })
}

/// CPU time of all threads of this process, user and system.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // Neither part is ever negative on this clock.
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

#[derive(Default)]
struct Sent {
    packets: u64,
    dropped: u64,
    messages: u64,
}

struct FloorViewer {
    tuple: TransportTuple,
    srtp: SrtpSender,
    /// SSRC of audio; video's is the next one.
    first_ssrc: u32,
}

impl FloorViewer {
    fn new(tuple: TransportTuple, index: usize, profile: SrtpProfile) -> io::Result<FloorViewer> {
        let mut exported = vec![0; profile.export_len()];
        openssl::rand::rand_bytes(&mut exported)?;
        let keying = KeyingMaterial::new(profile, &exported).map_err(io::Error::other)?;
        let (_, srtp) = keying.contexts(DtlsRole::Server).map_err(io::Error::other)?;
        Ok(FloorViewer { tuple, srtp, first_ssrc: 2 * index as u32 + 1 })
    }

    /// Sends the frames of a track that are due.
    fn send(
        &mut self,
        track: &FloorTrack,
        socket: &MediaSocket,
        batch: &mut SendBatch,
        sent: &mut Sent,
    ) -> io::Result<()> {
        let offset = u8::from(track.kind == MediaKind::Video);
        let mut sequence_number = track.sequence;
        for number in track.count..track.count + track.due {
            let frame = track.frame(number);
            for (index, payload) in frame.iter().enumerate() {
                if batch.room() < PACKET_ROOM {
                    flush(socket, batch, sent);
                }
                let fields = HeaderFields {
                    marker: index + 1 == frame.len(),
                    padding: false,
                    payload_type: 96 + offset,
                    sequence_number,
                    timestamp: (number as u32).wrapping_mul(track.ticks),
                    ssrc: self.first_ssrc + u32::from(offset),
                };
                let out = batch.spare();
                let header = write_header(out, &fields, []).ok_or_else(|| io::Error::other("no room for a header"))?;
                let length = header + payload.len();
                out[header..length].copy_from_slice(payload);
                let length = self.srtp.protect_rtp(out, length).map_err(io::Error::other)?;
                batch.commit(self.tuple, length);
                sequence_number = sequence_number.wrapping_add(1);
            }
        }
        Ok(())
    }
}

/// One track of a stream.
struct FloorTrack {
    kind: MediaKind,
    next: Instant,
    interval: Duration,
    /// The payloads of a keyframe and of an interframe.
    frames: [Vec<Vec<u8>>; 2],
    /// Frames from one keyframe to the next.
    gop: u64,
    /// Frames sent.
    count: u64,
    /// Frames to send now.
    due: u64,
    /// Number of the next packet.
    sequence: u16,
    ticks: u32,
}

impl FloorTrack {
    /// The tracks of a stream; streams begin one after the other within the first frame's time.
    fn of(stream: usize, begun: Instant, streams: usize, media: &PublisherOptions) -> Vec<FloorTrack> {
        let codecs = media.audio.then_some(Codec::Opus).into_iter().chain(media.video);
        codecs
            .map(|codec| {
                let kind = codec.kind();
                let (interval, ticks, sizes) = match kind {
                    MediaKind::Audio => (AUDIO_INTERVAL, 960, (AUDIO_BYTES, AUDIO_BYTES)),
                    MediaKind::Video => {
                        let fps = media.fps.max(1);
                        (Duration::from_secs(1) / fps, 90_000 / fps, media.frame_sizes())
                    }
                };
                let mut packetizer = Packetizer::new(codec, media.packet_size);
                let mut frame = |keyframe, bytes| {
                    packetizer.frame(keyframe, bytes).into_iter().map(|payload| payload.bytes).collect()
                };
                FloorTrack {
                    kind,
                    next: begun + interval.mul_f64(stream as f64 / streams as f64),
                    interval,
                    frames: [frame(true, sizes.1), frame(false, sizes.0)],
                    gop: ((media.gop.as_secs_f64() / interval.as_secs_f64()) as u64).max(1),
                    count: 0,
                    due: 0,
                    sequence: 0,
                    ticks,
                }
            })
            .collect()
    }

    /// Frames that are due, at most as many as make a second.
    fn frames_until(&self, now: Instant) -> u64 {
        let late = now.checked_duration_since(self.next);
        late.map_or(0, |late| (late.as_secs_f64().min(1.0) / self.interval.as_secs_f64()) as u64 + 1)
    }

    fn frame(&self, number: u64) -> &[Vec<u8>] {
        let interframe = self.kind == MediaKind::Audio || !number.is_multiple_of(self.gop);
        &self.frames[usize::from(interframe)]
    }

    /// The frames that were due are sent.
    fn advance(&mut self) {
        for number in self.count..self.count + self.due {
            self.sequence = self.sequence.wrapping_add(self.frame(number).len() as u16);
        }
        self.count += self.due;
        self.next += self.interval * self.due as u32;
        self.due = 0;
    }
}

fn flush(socket: &MediaSocket, batch: &mut SendBatch, sent: &mut Sent) {
    sent.messages += batch.messages() as u64;
    let report = socket.send(batch);
    sent.packets += report.sent;
    sent.dropped += report.dropped;
}

/// The process that takes the packets off the sockets. It ends with its parent.
struct Receivers {
    child: Child,
    addresses: Vec<SocketAddr>,
}

impl Receivers {
    fn start(count: usize) -> io::Result<Receivers> {
        let child = Command::new(std::env::current_exe()?)
            .args(["floor", "--drain", &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut receivers = Receivers { child, addresses: Vec::with_capacity(count) };
        let output = receivers.child.stdout.take().ok_or_else(|| io::Error::other("the receivers have no output"))?;
        for line in BufReader::new(output).lines().take(count) {
            receivers.addresses.push(line?.parse().map_err(io::Error::other)?);
        }
        if receivers.addresses.len() < count {
            return Err(io::Error::other("the receivers did not start"));
        }
        Ok(receivers)
    }
}

impl Drop for Receivers {
    fn drop(&mut self) {
        // The end of its input ends it as well; both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes packets and does nothing with them.
struct Sink;

impl DatagramSink for Sink {
    fn take_batch(&mut self, _: Moment, _: &mut RunBatch) -> bool {
        false
    }
}

/// The receiving process: opens sockets and reads them as the load test's viewers do, prints their addresses, and ends
/// with its input.
fn drain(count: usize) -> io::Result<()> {
    let thread = ReceptionThread::start("receivers".into(), 0)?;
    let (sink, task) = (Arc::new(Mutex::new(Sink)), Arc::default());
    let mut out = io::stdout().lock();
    let mut lent = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = open_socket(Ipv4Addr::LOCALHOST.into())?;
        writeln!(out, "{}", socket.local_addr()?)?;
        lent.push(thread.handle().lend(socket, sink.clone(), Arc::clone(&task))?);
    }
    out.flush()?;
    io::stdin().lock().read_to_end(&mut Vec::new()).map(drop)
}
