//! Choices of layers, in virtual time.

use super::*;

const LOW: u64 = 150_000;
const MIDDLE: u64 = 500_000;
const HIGH: u64 = 2_500_000;
const AUDIO: u64 = 60_000;
const TICK: Duration = Duration::from_millis(100);

fn point(encoding: u8, spatial: u8, temporal: u8) -> OperatingPoint {
    OperatingPoint { encoding, spatial, temporal }
}

fn layer(point: OperatingPoint, bitrate: u64, width: u16, frame_rate: f32) -> Layer {
    Layer { point, bitrate, width, height: width / 16 * 9, frame_rate, keyframe_bytes: 0 }
}

/// Three encodings, the highest first, with two temporal layers each.
fn simulcast() -> Vec<Layer> {
    let encodings = [(2, LOW, 320), (1, MIDDLE, 640), (0, HIGH, 1_280)];
    let layers = encodings.into_iter().flat_map(|(encoding, bitrate, width)| {
        let at = move |temporal, bitrate, frame_rate| layer(point(encoding, 0, temporal), bitrate, width, frame_rate);
        [at(0, bitrate * 6 / 10, 15.0), at(1, bitrate, 30.0)]
    });
    layers.collect()
}

/// One encoding of two spatial and three temporal layers.
fn scalable() -> Vec<Layer> {
    let at = |spatial, temporal, bitrate, frame_rate| {
        layer(point(0, spatial, temporal), bitrate, 640 << spatial, frame_rate)
    };
    vec![
        at(0, 0, 100_000, 7.5),
        at(0, 1, 150_000, 15.0),
        at(0, 2, 250_000, 30.0),
        at(1, 0, 600_000, 7.5),
        at(1, 1, 800_000, 15.0),
        at(1, 2, 1_000_000, 30.0),
    ]
}

/// A viewer that gets at once where it is to go.
struct Viewer {
    selector: Selector,
    now: Instant,
    layers: Vec<Layer>,
    rid: Option<u8>,
    present: OperatingPoint,
    waits: bool,
    nears_late_drop: bool,
    ready: u8,
    takes_spatial_layers: bool,
    last: Option<Choice>,
}

impl Viewer {
    fn new(layers: Vec<Layer>) -> Viewer {
        let present = OperatingPoint::all_of(0);
        Viewer {
            selector: Selector::default(),
            now: Instant::now(),
            layers,
            rid: None,
            present,
            waits: true,
            nears_late_drop: false,
            ready: u8::MAX,
            takes_spatial_layers: true,
            last: None,
        }
    }

    fn choose(&mut self, path: Path) -> Option<Choice> {
        let situation = Situation {
            now: self.now,
            path,
            carries: path.carries(),
            others: AUDIO,
            takes_spatial_layers: self.takes_spatial_layers,
            layers: &self.layers,
            rid: self.rid,
            present: self.present,
            ready: self.ready,
            waits: self.waits,
            nears_late_drop: self.nears_late_drop,
        };
        self.last = self.selector.choose(&situation);
        self.last
    }

    /// Where it is after some ticks on a path, or that it pauses.
    fn run(&mut self, ticks: u32, path: Path) -> Option<OperatingPoint> {
        for _ in 0..ticks {
            if let Some(choice) = self.choose(path) {
                self.present = choice.target;
            }
            self.waits = false;
            self.now += TICK;
        }
        let is_paused = self.last.is_some_and(|choice| choice.is_paused);
        (!is_paused).then_some(self.present)
    }

    fn wants(&mut self, selection: LayerSelection, rid: Option<u8>) {
        self.rid = rid;
        self.selector.set_selection(selection);
    }
}

fn probed(bits: u64) -> Path {
    Path::Probed(bits)
}

// RTCP-16, COD-16, SDP-45: whatever the order of the encodings.
#[test]
fn a_viewer_gets_the_highest_layer_that_its_path_carries() {
    for (path, expected) in [
        (20_000_000, point(0, 0, 1)),
        (3_000_000, point(0, 0, 1)),
        (2_000_000, point(0, 0, 0)),
        (1_000_000, point(1, 0, 1)),
        (500_000, point(1, 0, 0)),
        (300_000, point(2, 0, 1)),
        (160_000, point(2, 0, 0)),
    ] {
        assert_eq!(Viewer::new(simulcast()).run(1, probed(path)), Some(expected), "{path}");
    }
}

// RTCP-16: with a keyframe that takes longer than a second nothing comes in time that follows it.
#[test]
fn a_viewer_does_not_go_where_the_keyframe_takes_the_path_too_long() {
    let mut layers = scalable();
    layers[3..].iter_mut().for_each(|layer| layer.keyframe_bytes = 250_000);
    let highest_below = Some(point(0, 0, 2));
    assert_eq!(Viewer::new(layers.clone()).run(1, probed(1_500_000)), highest_below, "at first");
    let mut viewer = Viewer::new(layers.clone());
    assert_eq!(viewer.run(10, probed(300_000)), Some(point(0, 0, 1)));
    assert_eq!(viewer.run(20, probed(1_500_000)), highest_below, "on the way up");
    assert_eq!(viewer.last.unwrap().wanted, 2_200_000, "but it wants to, so that the path is probed");
    assert_eq!(viewer.run(10, probed(2_500_000)), Some(point(0, 1, 2)));
    assert_eq!(viewer.run(20, probed(1_300_000)), Some(point(0, 1, 2)), "once there, only what follows counts");
    assert_eq!(viewer.run(20, probed(1_000_000)), Some(point(0, 1, 1)), "and temporal layers need no keyframe");
    viewer.waits = true;
    assert_eq!(viewer.run(1, probed(1_000_000)), highest_below, "but where one is needed, it does");
}

// RTCP-16: temporal layers are thinned first, as far as movement stays smooth.
#[test]
fn half_the_frames_of_a_larger_picture_go_before_a_smaller_one_and_a_quarter_does_not() {
    for (path, expected) in [
        (5_000_000, point(0, 1, 2)),
        (1_000_000, point(0, 1, 1)),
        (800_000, point(0, 0, 2)),
        (300_000, point(0, 0, 1)),
        (200_000, point(0, 0, 0)),
    ] {
        assert_eq!(Viewer::new(scalable()).run(1, probed(path)), Some(expected), "{path}");
    }
}

// RTCP-16
#[test]
fn it_goes_down_at_once_where_the_path_breaks_and_after_a_while_where_it_is_a_little_too_narrow() {
    let mut viewer = Viewer::new(simulcast());
    viewer.run(20, probed(4_000_000));
    assert_eq!(viewer.run(1, probed(700_000)), Some(point(1, 0, 1)));
    assert!(viewer.last.unwrap().urgent.is_some());
    let mut viewer = Viewer::new(simulcast());
    viewer.run(20, probed(4_000_000));
    assert_eq!(viewer.run(9, probed(2_500_000)), Some(point(0, 0, 1)));
    assert_eq!(viewer.run(1, probed(4_000_000)), Some(point(0, 0, 1)), "it was over-use that passed");
    assert_eq!(viewer.run(12, probed(2_500_000)), Some(point(0, 0, 0)));
    let mut viewer = Viewer::new(simulcast());
    viewer.run(20, probed(4_000_000));
    viewer.nears_late_drop = true;
    assert_eq!(viewer.run(1, probed(4_000_000)), Some(point(0, 0, 1)), "a keyframe takes its time");
    assert_eq!(viewer.run(1, probed(2_500_000)), Some(point(0, 0, 0)), "before what waits is dropped");
}

// RTCP-16
#[test]
fn nobody_climbs_while_it_waits_for_a_keyframe() {
    let mut viewer = Viewer::new(simulcast());
    viewer.run(20, probed(4_000_000));
    (viewer.waits, viewer.ready) = (true, 0);
    assert_eq!(viewer.choose(probed(700_000)).unwrap().target, point(1, 0, 1));
    assert_eq!(viewer.choose(probed(4_000_000)).unwrap().target, point(1, 0, 1));
    assert_eq!(viewer.choose(probed(300_000)).unwrap().target, point(2, 0, 1));
}

// RTCP-16
#[test]
fn it_climbs_with_a_margin_and_after_a_moment() {
    let mut viewer = Viewer::new(simulcast());
    assert_eq!(viewer.run(10, probed(350_000)), Some(point(2, 0, 1)));
    // What the whole middle encoding needs, and not more; then more for a moment.
    assert_eq!(viewer.run(50, probed(612_000)), Some(point(1, 0, 0)));
    assert_eq!(viewer.run(2, probed(800_000)), Some(point(1, 0, 0)));
    assert_eq!(viewer.last.unwrap().wanted, HIGH * 11 / 10 + AUDIO);
    assert_eq!(viewer.run(50, probed(650_000)), Some(point(1, 0, 0)));
    assert_eq!(viewer.run(4, probed(800_000)), Some(point(1, 0, 1)));
    // As far as it may at once.
    assert_eq!(viewer.run(4, probed(9_000_000)), Some(point(0, 0, 1)));
    assert_eq!(viewer.last.unwrap().wanted, 0, "there is nothing to probe for");
}

// RTCP-16
#[test]
fn what_proved_too_high_is_tried_ever_more_rarely() {
    let mut viewer = Viewer::new(simulcast());
    viewer.run(10, probed(700_000));
    let mut climbed = Vec::new();
    for tick in 0..3_000_u32 {
        // The estimate says that it fits, until it is sent.
        let is_high = viewer.present.encoding == 0;
        viewer.run(1, probed(if is_high { 900_000 } else { 4_000_000 }));
        if viewer.present == point(0, 0, 1) && !is_high {
            climbed.push(tick / 10);
        }
    }
    let pauses: Vec<u32> = climbed.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] >= 5 && pauses.last().is_some_and(|&pause| pause >= 60), "{pauses:?}");
    assert!((6..=9).contains(&climbed.len()), "{climbed:?}");
}

// RTCP-16
#[test]
fn what_proved_too_high_is_tried_at_once_on_a_path_that_is_far_wider() {
    let mut viewer = Viewer::new(simulcast());
    viewer.run(10, probed(350_000));
    for _ in 0..4 {
        viewer.run(70, probed(900_000));
        assert_eq!(viewer.run(1, probed(200_000)).map(|point| point.encoding), Some(2));
    }
    assert_eq!(viewer.run(20, probed(900_000)), Some(point(2, 0, 1)), "blocked");
    assert_eq!(viewer.run(5, probed(9_000_000)), Some(point(0, 0, 1)));
}

// RTCP-16
#[test]
fn soon_after_a_fall_a_dip_of_the_encoders_rate_leads_nowhere() {
    let mut viewer = Viewer::new(simulcast());
    viewer.run(150, probed(4_000_000));
    assert_eq!(viewer.run(1, probed(700_000)), Some(point(1, 0, 1)));
    let dip = |viewer: &mut Viewer, path| {
        viewer.layers[4..].iter_mut().for_each(|layer| layer.bitrate /= 5);
        let reached = viewer.run(10, probed(path));
        viewer.layers[4..].iter_mut().for_each(|layer| layer.bitrate *= 5);
        reached
    };
    viewer.run(20, probed(700_000));
    assert_eq!(dip(&mut viewer, 700_000), Some(point(1, 0, 1)));
    viewer.run(20, probed(700_000));
    assert_eq!(dip(&mut viewer, 1_200_000), Some(point(0, 0, 1)), "the path is far wider");
}

// RTCP-16: audio is never starved.
#[test]
fn video_pauses_below_the_lowest_layer_and_comes_back() {
    let mut viewer = Viewer::new(simulcast());
    assert_eq!(viewer.run(10, probed(300_000)), Some(point(2, 0, 1)));
    assert_eq!(viewer.run(29, probed(100_000)), Some(point(2, 0, 0)));
    assert_eq!(viewer.run(3, probed(100_000)), None);
    assert_eq!(viewer.run(100, probed(120_000)), None);
    assert_eq!(viewer.run(8, probed(170_000)), Some(point(2, 0, 0)));
    // Of a stream without layers everything is sent, however late; and so is what the viewer insists on.
    let mut only = Viewer::new(simulcast()[5..].to_vec());
    assert_eq!(only.run(100, probed(100_000)), Some(OperatingPoint::all_of(0)));
    let mut chosen = Viewer::new(simulcast());
    chosen.wants(LayerSelection { rid: Some("q".into()), ..LayerSelection::default() }, Some(2));
    assert_eq!(chosen.run(100, probed(50_000)), Some(point(2, 0, 0)));
}

// EXT-H12
#[test]
fn a_viewer_that_cannot_tell_spatial_layers_apart_is_sent_the_lowest_one() {
    let mut viewer = Viewer::new(scalable());
    viewer.takes_spatial_layers = false;
    assert_eq!(viewer.run(50, probed(9_000_000)), Some(point(0, 0, 2)));
    assert_eq!(viewer.last.unwrap().wanted, 0, "there is nothing to probe for");
    viewer.wants(LayerSelection { spatial: Some(1), ..LayerSelection::default() }, None);
    assert_eq!(viewer.run(50, probed(9_000_000)), Some(point(0, 0, 2)));
    // Without temporal layers, too.
    let mut viewer = Viewer::new(vec![scalable()[2], scalable()[5]]);
    viewer.takes_spatial_layers = false;
    assert_eq!(viewer.run(50, probed(9_000_000)), Some(point(0, 0, 2)));
}

// EXT-H12: a publisher may name no lowest spatial layer.
#[test]
fn where_no_layer_is_one_that_the_viewer_can_tell_apart_it_is_sent_the_lowest_there_is() {
    for path in [probed(9_000_000), Path::Unknown { lost: 0.0, reports: 0, most: f64::INFINITY }] {
        let mut viewer = Viewer::new(scalable()[3..].to_vec());
        viewer.takes_spatial_layers = false;
        assert_eq!(viewer.run(50, path), Some(point(0, 1, 0)));
    }
}

// RTCP-16
#[test]
fn a_viewer_that_was_at_everything_of_an_encoding_leaves_it_at_once_where_that_does_not_fit() {
    let mut viewer = Viewer::new(simulcast());
    viewer.waits = false;
    assert_eq!(viewer.present, OperatingPoint::all_of(0));
    assert!(viewer.choose(probed(300_000)).unwrap().urgent.is_some());
    assert!(viewer.choose(probed(9_000_000)).unwrap().urgent.is_none());
}

// RTCP-16
#[test]
fn a_viewer_with_a_limit_that_tells_nothing_else_falls_by_loss_all_the_same() {
    let mut viewer = Viewer::new(simulcast());
    let path = |lost, reports| Path::Unknown { lost, reports, most: 700_000.0 };
    assert_eq!(viewer.run(10, path(0.0, 1)), Some(point(1, 0, 1)), "the best within its limit");
    assert_eq!(viewer.run(1, path(0.4, 2)), Some(point(1, 0, 0)));
    assert_eq!(viewer.run(1, path(0.4, 3)), Some(point(2, 0, 1)));
}

// EXT-12
#[test]
fn a_viewer_has_its_own_limits() {
    let all = LayerSelection::default;
    for (selection, rid, expected) in [
        (LayerSelection { rid: Some("h".into()), ..all() }, Some(1), point(1, 0, 1)),
        (LayerSelection { rid: Some("none".into()), ..all() }, None, point(0, 0, 1)),
        (LayerSelection { temporal: Some(0), ..all() }, None, point(0, 0, 0)),
        (LayerSelection { max_temporal: Some(0), ..all() }, None, point(0, 0, 0)),
        (LayerSelection { max_width: Some(700), ..all() }, None, point(1, 0, 1)),
        (LayerSelection { max_height: Some(180), ..all() }, None, point(2, 0, 1)),
        (LayerSelection { max_width: Some(10), ..all() }, None, point(2, 0, 0)),
        (LayerSelection { spatial: Some(3), ..all() }, None, point(0, 0, 1)),
    ] {
        let mut viewer = Viewer::new(simulcast());
        viewer.wants(selection.clone(), rid);
        assert_eq!(viewer.run(10, probed(9_000_000)), Some(expected), "{selection:?}");
        viewer.wants(all(), None);
        assert_eq!(viewer.run(10, probed(9_000_000)), Some(point(0, 0, 1)), "automatic again");
    }
    for (selection, expected) in [
        (LayerSelection { spatial: Some(0), ..all() }, point(0, 0, 2)),
        (LayerSelection { max_spatial: Some(0), max_temporal: Some(1), ..all() }, point(0, 0, 1)),
        (LayerSelection { spatial: Some(1), temporal: Some(0), ..all() }, point(0, 1, 0)),
        (LayerSelection { max_spatial: Some(7), ..all() }, point(0, 1, 2)),
    ] {
        let mut viewer = Viewer::new(scalable());
        viewer.wants(selection.clone(), None);
        assert_eq!(viewer.run(10, probed(9_000_000)), Some(expected), "{selection:?}");
    }
}

// RTCP-16
#[test]
fn a_viewer_begins_with_what_is_there_and_moves_up() {
    let mut viewer = Viewer::new(simulcast());
    viewer.ready = 1 << 2;
    assert_eq!(viewer.run(1, probed(3_000_000)), Some(point(2, 0, 1)));
    assert_eq!(viewer.run(5, probed(3_500_000)), Some(point(0, 0, 1)));
    // Nothing is there: it waits for the best.
    let mut viewer = Viewer::new(simulcast());
    viewer.ready = 0;
    assert_eq!(viewer.run(1, probed(3_000_000)), Some(point(0, 0, 1)));
}

// COD-16
#[test]
fn a_layer_that_goes_is_left_at_once_and_one_that_comes_is_climbed() {
    let mut viewer = Viewer::new(simulcast());
    assert_eq!(viewer.run(10, probed(9_000_000)), Some(point(0, 0, 1)));
    let high = viewer.layers.split_off(4);
    assert_eq!(viewer.run(1, probed(9_000_000)), Some(point(1, 0, 1)));
    viewer.layers.truncate(2);
    assert_eq!(viewer.run(1, probed(9_000_000)), Some(point(2, 0, 1)));
    viewer.layers.truncate(1);
    assert_eq!(viewer.run(1, probed(9_000_000)), Some(point(2, 0, 1)), "there is nothing to choose");
    viewer.layers = simulcast()[..2].to_vec();
    viewer.layers.extend(high);
    assert_eq!(viewer.run(5, probed(9_000_000)), Some(point(0, 0, 1)));
    viewer.layers = vec![simulcast()[3]];
    assert_eq!(viewer.run(1, probed(9_000_000)), Some(point(1, 0, 1)), "the only one");
}

// RTCP-16: until it gets to the other encoding, it is sent less of this one.
#[test]
fn the_wait_for_another_encoding_is_used() {
    let mut viewer = Viewer::new(simulcast());
    viewer.run(10, probed(9_000_000));
    let choice = viewer.choose(probed(700_000)).unwrap();
    assert_eq!((choice.target, choice.interim), (point(1, 0, 1), Some(point(0, 0, 0))));
    let mut viewer = Viewer::new(simulcast());
    viewer.run(10, probed(700_000));
    let choice = viewer.run(4, probed(9_000_000)).and(viewer.last).unwrap();
    assert_eq!(choice.target, point(0, 0, 1));
}

// RTCP-16: neither transport-wide feedback nor REMB.
#[test]
fn a_viewer_that_tells_nothing_gets_the_best_and_falls_by_the_loss_that_it_reports() {
    let mut viewer = Viewer::new(simulcast());
    let mut reports = 0;
    let mut run = |viewer: &mut Viewer, seconds: u32, lost: f64| {
        for _ in 0..seconds {
            reports += 1;
            viewer.run(10, Path::Unknown { lost, reports, most: f64::INFINITY });
        }
        viewer.present
    };
    assert_eq!(run(&mut viewer, 30, 0.0), point(0, 0, 1));
    assert_eq!(run(&mut viewer, 1, 0.15), point(0, 0, 1), "one bad second");
    assert_eq!(run(&mut viewer, 5, 0.01), point(0, 0, 1));
    assert_eq!(run(&mut viewer, 2, 0.15), point(0, 0, 0));
    assert_eq!(run(&mut viewer, 2, 0.4), point(1, 0, 0));
    assert_eq!(run(&mut viewer, 20, 0.05), point(1, 0, 0), "neither much nor little");
    assert_eq!(run(&mut viewer, 10, 0.0), point(1, 0, 1));
    assert_eq!(run(&mut viewer, 60, 0.0), point(0, 0, 1));
}

// RTCP-16: a REMB never says more than half as much again as what is sent.
#[test]
fn a_viewer_that_sends_remb_alone_is_tried_on_the_next_layer() {
    let mut viewer = Viewer::new(simulcast());
    viewer.run(1, Path::Estimated(300_000));
    let capacity = 1_000_000;
    for _ in 0..600 {
        let rate = viewer.layers.iter().find(|layer| layer.point == viewer.present).map_or(0, |layer| layer.bitrate);
        viewer.run(1, Path::Estimated(((rate + AUDIO) * 3 / 2).min(capacity)));
    }
    assert_eq!(viewer.present, point(1, 0, 1));
}
