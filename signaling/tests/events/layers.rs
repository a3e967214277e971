//! The layers of a stream's video: what viewers are told of them, and how they choose.

use media_core::layers::{Layer, LayerReport, LayerSelection, OperatingPoint};
use media_core::media::TrackId;
use media_core::{CoreEvent, SessionId};
use serde_json::json;
use signaling::SignalingConfig;

use super::support::{App, golden, now};
use super::{Events, JSON, end, links, listen, publish, sse, watch};

/// Three encodings of two temporal layers each, the lowest quality first; the highest is not sent at present.
fn reports() -> Vec<LayerReport> {
    let report = |rid: &str, encoding, temporal, bitrate, width, height| LayerReport {
        rid: Some(rid.to_owned()),
        layer: Layer {
            point: OperatingPoint { encoding, spatial: 0, temporal },
            bitrate,
            width,
            height,
            frame_rate: if temporal == 0 { 15.04 } else { 30.0 },
            keyframe_bytes: 0,
        },
    };
    vec![
        report("q", 2, 0, 67_464, 320, 180),
        report("q", 2, 1, 116_352, 320, 180),
        report("h", 1, 0, 343_592, 640, 360),
        report("h", 1, 1, 557_112, 640, 360),
        report("f", 0, 0, 0, 0, 0),
    ]
}

fn report(app: &App, publisher: SessionId, layers: Vec<LayerReport>) {
    app.signaling.registry().apply(now(), CoreEvent::Layers { session: publisher, track: TrackId::VIDEO, layers });
}

/// A viewer of a stream with these layers: its session, and where it chooses.
async fn viewer(app: &App) -> (SessionId, String) {
    let (_, publisher) = publish(app).await;
    report(app, publisher, reports());
    let reply = watch(app).await;
    (app.core.last().id, links(&reply).remove("layer").unwrap().0)
}

async fn choose(app: &App, layer: &str, body: &str) -> (u16, String) {
    let reply = app.send("POST", layer, &[JSON], body.to_owned()).await;
    let code = if reply.status == 200 { reply.body.clone() } else { reply.code() };
    (reply.status.as_u16(), code)
}

// EXT-09
#[tokio::test]
async fn viewers_are_told_the_layers_by_the_m_line_of_their_own_video() {
    let app = App::new(SignalingConfig::default());
    let (_, publisher) = publish(&app).await;
    let reply = watch(&app).await;
    let path = listen(&app, &sse(&reply), Some("[\"layers\"]")).await;
    report(&app, publisher, Vec::new());
    report(&app, publisher, reports());
    // Others' reports are not this stream's.
    report(&app, SessionId(7), Vec::new());
    let mut events = Events::of(&app, &path).await;
    let (name, data) = events.next().await;
    let offer = golden("chromium-watch");
    let line = usize::from(offer.find("m=audio").unwrap() < offer.find("m=video").unwrap()).to_string();
    assert_eq!(name, "layers");
    assert_eq!(data.as_object().unwrap().keys().collect::<Vec<_>>(), [&line]);
    let layers = data[&line].as_array().unwrap();
    assert_eq!(layers.len(), 5);
    assert_eq!(
        layers[0],
        json!({"rid": "f", "spatialLayerId": 0, "temporalLayerId": 0, "bitrate": 0, "frameRate": 15.0})
    );
    let expected = json!({
        "rid": "h", "spatialLayerId": 0, "temporalLayerId": 1, "bitrate": 557_112, "width": 640, "height": 360, "frameRate": 30.0
    });
    assert_eq!(layers[1], expected);
    // Who comes later is told, too.
    let later = listen(&app, &sse(&watch(&app).await), Some("[\"layers\"]")).await;
    assert_eq!(Events::of(&app, &later).await.next().await.1, data);
    let tracks = app.stream("s").unwrap().tracks;
    let video = tracks.iter().find(|track| track.kind == media_core::media::MediaKind::Video).unwrap();
    assert_eq!(video.layers, reports(), "the operator, too");

    // They go with their publisher, and the next one has others.
    end(&app, publisher).await;
    assert!(app.stream("s").unwrap().tracks.iter().all(|track| track.layers.is_empty()));
    let (_, next) = publish(&app).await;
    report(&app, next, reports()[..2].to_vec());
    assert_eq!(events.next().await.1[&line].as_array().unwrap().len(), 2);
}

// EXT-09
#[tokio::test]
async fn layers_are_told_again_when_they_change_and_not_when_a_rate_fluctuates() {
    let app = App::new(SignalingConfig::default());
    let (_, publisher) = publish(&app).await;
    report(&app, publisher, reports());
    let path = listen(&app, &sse(&watch(&app).await), Some("[\"layers\",\"inactive\"]")).await;
    let mut events = Events::of(&app, &path).await;
    let rates = async |events: &mut Events| {
        let (_, data) = events.next().await;
        let layers = data.as_object().unwrap().values().next().unwrap().clone();
        layers.as_array().unwrap().iter().map(|layer| layer["bitrate"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let with = |factor: f64| {
        let mut layers = reports();
        layers.iter_mut().for_each(|report| report.layer.bitrate = (report.layer.bitrate as f64 * factor) as u64);
        layers
    };
    let told = rates(&mut events).await;
    for factor in [1.0, 1.1, 0.9, 1.2, 2.0, 1.9] {
        report(&app, publisher, with(factor));
    }
    let doubled: Vec<u64> = told.iter().map(|rate| 2 * rate).collect();
    assert_eq!(rates(&mut events).await, doubled);
    // One that was paused comes.
    let mut layers = with(2.0);
    layers.last_mut().unwrap().layer.bitrate = 2_000_000;
    report(&app, publisher, layers);
    assert_eq!(rates(&mut events).await[0], 2_000_000);
    // Another publisher takes the place, without video.
    let replacing = app.post("/whip/s", &golden("firefox-publish").replace("m=video", "m=application")).await;
    assert_eq!(replacing.status, 201, "{}", replacing.body);
    assert_eq!(rates(&mut events).await, [0; 0]);
}

// EXT-09
#[tokio::test]
async fn a_viewer_without_video_is_told_of_no_layers() {
    let app = App::new(SignalingConfig::default());
    let (_, publisher) = publish(&app).await;
    let offer = golden("firefox-watch").replace("m=video", "m=application");
    let reply = app.post("/whep/s", &offer).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    let path = listen(&app, &sse(&reply), None).await;
    report(&app, publisher, reports());
    assert_eq!(Events::of(&app, &path).await.names(2).await, ["active", "viewercount"]);
    let layer = links(&reply).remove("layer").unwrap().0;
    assert_eq!(choose(&app, &layer, "{}").await.0, 200);
    assert_eq!(choose(&app, &layer, "{\"maxHeight\":360}").await, (422, "unknown-layer".into()));
    assert!(app.core.recorded().selections.is_empty());
}

// EXT-11, WHEP-12
#[tokio::test]
async fn who_is_told_where_to_choose_a_layer_is_told_where_the_layers_are_listed() {
    let app = App::new(SignalingConfig::default());
    publish(&app).await;
    let reply = watch(&app).await;
    let links = links(&reply);
    assert_eq!(links["layer"], (format!("{}/layer", reply.header("location")), String::new()));
    assert!(links["server-sent-events"].1.contains("layers"));
    let layer = &links["layer"].0;
    let options = app.send("OPTIONS", layer, &[], "").await;
    assert_eq!((options.status.as_u16(), options.header("allow")), (200, "OPTIONS, POST"));
    assert_eq!(options.header("accept-post"), "application/json");
    assert_eq!(app.send("GET", layer, &[], "").await.code(), "method-not-allowed");

    let app = App::new(SignalingConfig { whep_extensions: false, ..SignalingConfig::default() });
    publish(&app).await;
    let reply = watch(&app).await;
    assert!(self::links(&reply).is_empty());
    let layer = format!("{}/layer", reply.header("location"));
    assert_eq!(app.send("POST", &layer, &[JSON], "{}").await.code(), "not-found");
}

// EXT-12
#[tokio::test]
async fn each_member_chooses_or_limits_and_what_is_left_out_is_automatic() {
    let app = App::new(SignalingConfig::default());
    let (id, layer) = viewer(&app).await;
    let none = LayerSelection::default();
    for (body, selection) in [
        ("{\"rid\":\"h\"}", LayerSelection { rid: Some("h".into()), ..none.clone() }),
        ("{\"encodingId\":\"q\"}", LayerSelection { rid: Some("q".into()), ..none.clone() }),
        (
            "{\"rid\":\"f\",\"spatialLayerId\":0}",
            LayerSelection { rid: Some("f".into()), spatial: Some(0), ..none.clone() },
        ),
        ("{\"spatialLayerId\":0}", LayerSelection { spatial: Some(0), ..none.clone() }),
        ("{\"temporalLayerId\":1}", LayerSelection { temporal: Some(1), ..none.clone() }),
        ("{\"maxSpatialLayerId\":1}", LayerSelection { max_spatial: Some(1), ..none.clone() }),
        ("{\"maxTemporalLayerId\":300}", LayerSelection { max_temporal: Some(255), ..none.clone() }),
        ("{\"maxWidth\":640}", LayerSelection { max_width: Some(640), ..none.clone() }),
        ("{\"maxHeight\":100000}", LayerSelection { max_height: Some(u16::MAX), ..none.clone() }),
        ("{\"rid\":null,\"unknown\":[1],\"maxHeight\":360}", LayerSelection { max_height: Some(360), ..none.clone() }),
        ("{}", none.clone()),
    ] {
        assert_eq!(choose(&app, &layer, body).await, (200, String::new()), "{body}");
        assert_eq!(app.core.recorded().selections.pop(), Some((id, TrackId::VIDEO, selection)), "{body}");
    }
}

// EXT-12
#[tokio::test]
async fn a_choice_for_an_m_line_counts_for_that_one_and_its_index_alone_resets_it() {
    let app = App::new(SignalingConfig::default());
    let (_, layer) = viewer(&app).await;
    let offer = golden("chromium-watch");
    let video = usize::from(offer.find("m=audio").unwrap() < offer.find("m=video").unwrap());
    for (body, told) in [
        (format!("{{\"mediaId\":\"{video}\",\"rid\":\"h\"}}"), Some(Some("h".to_owned()))),
        (format!("{{\"mediaId\":\"{video}\"}}"), Some(None)),
        // There is nothing to reset in the audio.
        (format!("{{\"mediaId\":\"{}\"}}", 1 - video), None),
    ] {
        assert_eq!(choose(&app, &layer, &body).await.0, 200, "{body}");
        assert_eq!(app.core.recorded().selections.pop().map(|(_, _, selection)| selection.rid), told, "{body}");
    }
    // As the draft's examples have it.
    let misspelt = ("content-type", "application/sjon");
    assert_eq!(app.send("POST", &layer, &[misspelt], "{\"rid\":\"h\"}").await.status, 200);
    for media_id in ["2", "-1", "video", "", "1.0", "18446744073709551616"] {
        let body = format!("{{\"mediaId\":\"{media_id}\"}}");
        assert_eq!(choose(&app, &layer, &body).await, (422, "unknown-layer".into()), "{body}");
    }
    let audio = format!("{{\"mediaId\":\"{}\",\"rid\":\"h\"}}", 1 - video);
    assert_eq!(choose(&app, &layer, &audio).await, (422, "unknown-layer".into()));
}

// EXT-12
#[tokio::test]
async fn a_choice_that_cannot_be_is_refused_and_changes_nothing() {
    let app = App::new(SignalingConfig::default());
    let (_, layer) = viewer(&app).await;
    for (body, status, code) in [
        ("", 400, "empty-body"),
        ("{", 400, "json-syntax"),
        ("{mediaId:\"0\"}", 400, "json-syntax"),
        ("[\"1\",\"h\"]", 400, "json-syntax"),
        ("\"h\"", 400, "json-syntax"),
        ("null", 400, "json-syntax"),
        ("{\"mediaId\":0}", 400, "json-syntax"),
        ("{\"rid\":1}", 400, "json-syntax"),
        ("{\"spatialLayerId\":\"0\"}", 400, "json-syntax"),
        ("{\"temporalLayerId\":-1}", 400, "json-syntax"),
        ("{\"maxSpatialLayerId\":1.5}", 400, "json-syntax"),
        ("{\"maxWidth\":true}", 400, "json-syntax"),
        ("{\"maxHeight\":4294967296}", 400, "json-syntax"),
        ("{\"rid\":\"hd\"}", 422, "unknown-layer"),
        ("{\"rid\":\"\"}", 422, "unknown-layer"),
        ("{\"spatialLayerId\":1}", 422, "unknown-layer"),
        ("{\"temporalLayerId\":2}", 422, "unknown-layer"),
        ("{\"rid\":\"f\",\"temporalLayerId\":1}", 422, "unknown-layer"),
        ("{\"maxWidth\":0}", 422, "unknown-layer"),
    ] {
        assert_eq!(choose(&app, &layer, body).await, (status, code.to_owned()), "{body}");
    }
    let reply = app.send("POST", &layer, &[("content-type", "text/plain")], "{}").await;
    assert_eq!(reply.code(), "unsupported-media-type");
    let reply = app.send("POST", &layer, &[JSON], format!("{{\"rid\":\"{}\"}}", "x".repeat(5000))).await;
    assert_eq!(reply.code(), "body-too-large");
    assert!(app.core.recorded().selections.is_empty());
}

// EXT-12, EXT-13
#[tokio::test(start_paused = true)]
async fn choosing_takes_the_session_and_is_not_done_too_fast() {
    let app = App::new(SignalingConfig::default());
    let (id, layer) = viewer(&app).await;
    let mut last = 0;
    for _ in 0..250 {
        last = app.send("POST", &layer, &[JSON], "{}").await.status.as_u16();
    }
    assert_eq!(last, 429, "as PATCH and DELETE");
    end(&app, id).await;
    assert_eq!(app.send("POST", &layer, &[JSON], "{}").await.code(), "not-found");
    let whip = layer.replace("/whep/", "/whip/");
    assert_eq!(app.send("POST", &whip, &[JSON], "{}").await.code(), "not-found");
}
