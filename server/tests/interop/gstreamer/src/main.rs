//! GStreamer as a client: `whipsink` publishes a test picture and a tone, `whepsrc` watches and decodes.
//!
//! The options are one JSON object: `role` (`publish` or `watch`), `url`, and for a publisher `codec`. A line `figures` on
//! standard input is answered with the counts so far; the end of standard input ends the session.

use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use gst::prelude::*;
use serde_json::{Value, json};

const STATISTICS_WAIT: Duration = Duration::from_secs(2);
const AUDIO: &str = "audiotestsrc is-live=true wave=sine freq=440 ! audio/x-raw,channels=2 ! audioconvert ! audioresample ! \
    opusenc name=audio_encoder ! rtpopuspay pt=97 ! application/x-rtp,encoding-params=(string)2 ! sink.";

/// What has passed so far: encoded by a publisher, decoded by a viewer.
#[derive(Default)]
struct Counts {
    frames: AtomicU64,
    audio_buffers: AtomicU64,
    /// The sum of the squares of the decoded samples, in thousandths of full scale.
    energy: AtomicU64,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    gst::init()?;
    gstwebrtchttp::plugin_register_static()?;
    let options: Value = serde_json::from_str(&std::env::args().nth(1).ok_or("no options")?)?;
    let option = |name: &str| options[name].as_str().ok_or(format!("no option {name}"));
    if option("role")? == "version" {
        println!("{}", gst::version_string());
        return Ok(());
    }
    let counts = Arc::new(Counts::default());
    let publishing = option("role")? == "publish";
    let pipeline =
        if publishing { publish(option("url")?, option("codec")?, &counts)? } else { watch(option("url")?, &counts)? };
    report_errors(&pipeline)?;
    pipeline.set_state(gst::State::Playing)?;
    for line in std::io::stdin().lock().lines() {
        if line? == "figures" {
            println!("{}", figures(&pipeline, &counts, publishing));
        }
    }
    pipeline.set_state(gst::State::Null)?;
    Ok(())
}

/// Ends the process on the pipeline's first error.
fn report_errors(pipeline: &gst::Pipeline) -> Result<(), Failure> {
    let bus = pipeline.bus().ok_or("the pipeline has no bus")?;
    std::thread::spawn(move || {
        for message in bus.iter_timed(gst::ClockTime::NONE) {
            if let gst::MessageView::Error(error) = message.view() {
                eprintln!(
                    "{}: {} {}",
                    error.src().map(|src| src.path_string()).unwrap_or_default(),
                    error.error(),
                    error.debug().unwrap_or_default()
                );
                std::process::exit(1);
            }
        }
    });
    Ok(())
}

fn encoder(codec: &str) -> Result<&'static str, Failure> {
    Ok(match codec {
        "H264" => {
            "x264enc name=video_encoder tune=zerolatency speed-preset=ultrafast key-int-max=60 bitrate=400 ! \
            video/x-h264,profile=constrained-baseline ! rtph264pay config-interval=-1 aggregate-mode=zero-latency pt=96"
        }
        "H265" => {
            "x265enc name=video_encoder tune=zerolatency speed-preset=ultrafast key-int-max=60 bitrate=400 ! \
            h265parse ! rtph265pay config-interval=-1 pt=96"
        }
        "VP8" => {
            "vp8enc name=video_encoder deadline=1 cpu-used=8 keyframe-max-dist=60 target-bitrate=400000 ! rtpvp8pay pt=96"
        }
        "VP9" => {
            "vp9enc name=video_encoder deadline=1 cpu-used=8 keyframe-max-dist=60 target-bitrate=400000 ! rtpvp9pay pt=96"
        }
        _ => return Err(format!("no payloader for {codec}").into()),
    })
}

fn publish(url: &str, codec: &str, counts: &Arc<Counts>) -> Result<gst::Pipeline, Failure> {
    let picture =
        "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=320,height=240,framerate=15/1";
    let description = format!("whipsink name=sink {picture} ! {} ! sink. {AUDIO}", encoder(codec)?);
    let pipeline = gst::parse::launch(&description)?.downcast::<gst::Pipeline>().map_err(|_| "no pipeline")?;
    let sink = pipeline.by_name("sink").ok_or("no sink")?;
    sink.set_property("whip-endpoint", url);
    for (name, frames) in [("video_encoder", true), ("audio_encoder", false)] {
        let pad = pipeline.by_name(name).and_then(|encoder| encoder.static_pad("src")).ok_or("no encoder")?;
        count(&pad, counts, frames);
    }
    Ok(pipeline)
}

fn watch(url: &str, counts: &Arc<Counts>) -> Result<gst::Pipeline, Failure> {
    let pipeline = gst::Pipeline::new();
    let source = gst::ElementFactory::make("whepsrc").property("whep-endpoint", url).build()?;
    pipeline.add(&source)?;
    let counts = Arc::clone(counts);
    source.connect_pad_added(move |source, pad| {
        if let Err(error) = decode(source, pad, &counts) {
            eprintln!("{error}");
            std::process::exit(1);
        }
    });
    Ok(pipeline)
}

/// Decodes what comes from a pad of `whepsrc`.
fn decode(source: &gst::Element, pad: &gst::Pad, counts: &Arc<Counts>) -> Result<(), Failure> {
    let pipeline = source.parent().and_downcast::<gst::Pipeline>().ok_or("no pipeline")?;
    let decoder = gst::ElementFactory::make("decodebin").build()?;
    pipeline.add(&decoder)?;
    let counts = Arc::clone(counts);
    decoder.connect_pad_added(move |decoder, pad| {
        if let Err(error) = finish(decoder, pad, &counts) {
            eprintln!("{error}");
            std::process::exit(1);
        }
    });
    decoder.sync_state_with_parent()?;
    pad.link(&decoder.static_pad("sink").ok_or("no sink")?)?;
    Ok(())
}

/// Counts what a decoder puts out.
fn finish(decoder: &gst::Element, pad: &gst::Pad, counts: &Arc<Counts>) -> Result<(), Failure> {
    let pipeline = decoder.parent().and_downcast::<gst::Pipeline>().ok_or("no pipeline")?;
    let video =
        pad.current_caps().and_then(|caps| Some(caps.structure(0)?.name().starts_with("video/"))).ok_or("no caps")?;
    let tail = if video {
        "fakesink sync=false name=end"
    } else {
        "audioconvert ! audio/x-raw,format=S16LE,channels=1 ! fakesink sync=false name=end"
    };
    let tail = gst::parse::bin_from_description(tail, true)?;
    let end = tail.by_name("end").and_then(|end| end.static_pad("sink")).ok_or("no end")?;
    count(&end, counts, video);
    pipeline.add(&tail)?;
    tail.sync_state_with_parent()?;
    pad.link(&tail.static_pad("sink").ok_or("no sink")?)?;
    Ok(())
}

/// Counts the buffers that pass a pad.
fn count(pad: &gst::Pad, counts: &Arc<Counts>, frames: bool) {
    let counts = Arc::clone(counts);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if frames {
            counts.frames.fetch_add(1, Relaxed);
        } else {
            counts.audio_buffers.fetch_add(1, Relaxed);
            if let Some(samples) = info.buffer().and_then(|buffer| buffer.map_readable().ok()) {
                let squares = samples
                    .chunks_exact(2)
                    .map(|pair| (f64::from(i16::from_le_bytes([pair[0], pair[1]])) / 32768.0).powi(2));
                counts.energy.fetch_add((squares.sum::<f64>() * 1000.0) as u64, Relaxed);
            }
        }
        gst::PadProbeReturn::Ok
    });
}

fn figures(pipeline: &gst::Pipeline, counts: &Counts, publishing: bool) -> Value {
    let frames = counts.frames.load(Relaxed);
    if publishing {
        return json!({ "frames": frames, "audio": counts.audio_buffers.load(Relaxed) });
    }
    json!({ "frames": frames, "audio": counts.energy.load(Relaxed), "lost": { "RTP": lost(pipeline) } })
}

/// The packets that `webrtcbin`'s own statistics miss: of both media, for of a bundle 1.22 takes all for one.
fn lost(pipeline: &gst::Pipeline) -> i64 {
    let mut elements = pipeline.iterate_recurse().into_iter().flatten();
    let is_webrtcbin = |element: &gst::Element| element.factory().is_some_and(|factory| factory.name() == "webrtcbin");
    let Some(webrtcbin) = elements.find(is_webrtcbin) else { return 0 };
    let (sender, receiver) = std::sync::mpsc::channel();
    let promise = gst::Promise::with_change_func(move |reply| {
        if let Ok(Some(reply)) = reply {
            // Nobody listens any more to a reply that is late.
            let _ = sender.send(reply.to_owned());
        }
    });
    webrtcbin.emit_by_name::<()>("get-stats", &[&None::<gst::Pad>, &promise]);
    let Ok(reply) = receiver.recv_timeout(STATISTICS_WAIT) else { return 0 };
    let entries = reply.iter().filter_map(|(_, value)| value.get::<gst::Structure>().ok());
    entries.filter_map(|entry| entry.get::<i64>("packets-lost").ok()).map(|packets| packets.max(0)).sum()
}
