//! The report as one page that needs nothing else: no script, no style and no picture from elsewhere.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::attack::{ATTACK_HEADER, attack_row};
use super::outcome::Outcome;
use super::plot::{CURVES, Curve, Plot};
use super::summary::{PHASE_HEADER, Report, TIMES_HEADER, phase_row};
use crate::measure::figures::Sample;
use crate::measure::join::Join;

/// The attributes in brackets are the plots' colours.
const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c2330; --paper: #fff; --faint: #8a93a3; --line: #dde1e8; --band: #f1f4f8;
  --c0: #1f6feb; --c1: #d9480f; --c2: #2b8a3e; --c3: #862e9c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --paper: #14181f; --faint: #8a93a3; --line: #333b47;
  --band: #1b212b; --c0: #6ea8fe; --c1: #ff9457; --c2: #69db7c; --c3: #da77f2; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1000px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p.verdict { font-weight: 600; margin: .25rem 0; } .good { color: var(--c2); } .bad { color: var(--c1); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; } th { font-weight: 600; color: var(--faint); }
div.wide { overflow-x: auto; } ul { padding-left: 1.2rem; margin: .5rem 0; }
figure { margin: 1rem 0; } figcaption { font-weight: 600; margin-bottom: .25rem; }
figcaption span { font-weight: 400; margin-left: .9rem; } figcaption span::before { content: '\u{25cf} '; }
svg { width: 100%; height: auto; } svg text { font-family: system-ui, sans-serif; }
span.c0 { color: var(--c0); } span.c1 { color: var(--c1); } span.c2 { color: var(--c2); } span.c3 { color: var(--c3); }
svg [stroke='#1F6FEB'] { stroke: var(--c0); } svg [stroke='#D9480F'] { stroke: var(--c1); } svg [stroke='#2B8A3E'] { stroke: var(--c2); }
svg [stroke='#862E9C'] { stroke: var(--c3); } svg [fill='#862E9C'] { fill: var(--c3); }
svg [fill='#1F6FEB'] { fill: var(--c0); } svg [fill='#D9480F'] { fill: var(--c1); } svg [fill='#2B8A3E'] { fill: var(--c2); }
svg [stroke='#DDE1E8'] { stroke: var(--line); } svg [fill='#F1F4F8'] { fill: var(--band); }
";

impl Report {
    /// The report as a page.
    pub fn to_html(&self) -> String {
        let title = format!("sluice-loadtest {}", self.scenario);
        let bottleneck = if self.bottlenecks.is_empty() {
            "No bottleneck was found beside the server."
        } else {
            "There was a bottleneck beside the server; see below."
        };
        let times = self.times().into_iter().map(|(name, count, values)| {
            [name.to_owned(), count.to_string()].into_iter().chain(values).collect::<Vec<_>>()
        });
        let packets = self.packets().into_iter().map(|(name, values)| {
            std::iter::once(name.to_owned()).chain(values.map(|value| value.to_string())).collect::<Vec<_>>()
        });
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width";
                    title { (title) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    h1 { (title) }
                    (verdict(self.passed, if self.passed { "Passed." } else { "Failed." }))
                    (verdict(self.bottlenecks.is_empty(), bottleneck))
                    p {
                        "Publishers " (self.publishers_connected) " of " (self.publishers)
                        ", viewers " (self.viewers_connected) " of " (self.viewers) ", intact " (self.viewers_intact)
                        (format!("; {:.1} s, {:.1} Mbit/s received.", self.seconds, self.received_mbit_per_second))
                    }
                    ul { @for line in self.findings() { li { (line) } } }
                    h2 { "Times, ms" }
                    (table(&[&["", "count"], &TIMES_HEADER[..]].concat(), times))
                    h2 { "Over time" }
                    @for plot in self.plots() { (figure(&plot)) }
                    @if self.phases.len() > 1 {
                        h2 { "Phases" }
                        (table(&PHASE_HEADER, self.phases.iter().map(phase_row)))
                    }
                    @if let Outcome::Attack(figures) = &self.outcome {
                        h2 { "Attacks" }
                        (table(&ATTACK_HEADER, figures.attacks.iter().map(attack_row)))
                    }
                    @if let Outcome::Layers(figures) = &self.outcome {
                        h2 { "Layers" }
                        (table(&figures.header().iter().map(String::as_str).collect::<Vec<_>>(), figures.rows().into_iter()))
                        @for plot in figures.plots() { (figure(&plot)) }
                    }
                    h2 { "Packets" }
                    (table(&["", "audio", "video", "all"], packets))
                    h2 { "Configuration" }
                    (table(&[], self.configuration_rows().into_iter()))
                }
            }
        };
        page.into_string()
    }

    fn configuration_rows(&self) -> Vec<Vec<String>> {
        // Numbers, strings and lists of them are all it holds, and JSON can say these.
        let configuration = serde_json::to_value(&self.configuration).unwrap_or_default();
        let rows = configuration.as_object().into_iter().flatten();
        rows.map(|(name, value)| {
            let value = match value {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Array(list) => {
                    list.iter().map(|item| item.as_str().unwrap_or_default()).collect::<Vec<_>>().join(" | ")
                }
                serde_json::Value::Null => "-".into(),
                other => other.to_string(),
            };
            vec![name.replace('_', " "), value]
        })
        .collect()
    }

    fn plots(&self) -> Vec<Plot> {
        let bands: Vec<(f64, f64, String)> =
            self.phases.iter().map(|phase| (phase.from, phase.from + phase.seconds, phase.name.clone())).collect();
        let over_time = |title: &str, y, curves| Plot { title: title.into(), x: "s", y, curves, bands: bands.clone() };
        let series = |name: &str, value: fn(&Sample) -> Option<f64>| Curve {
            name: name.into(),
            points: self.series.iter().map(|sample| (sample.at, value(sample))).collect(),
            scattered: false,
        };
        let (p50, p99) = (series("p50", |sample| sample.latency_p50_ms), series("p99", |sample| sample.latency_p99_ms));
        let received = series("packets/s", |sample| Some(sample.packets_per_second));
        let lost = series("lost", |sample| Some(sample.lost.max(0) as f64));
        let viewers = series("viewers", |sample| Some(sample.viewers as f64));
        let server = series("server", |sample| sample.server_cores);
        let generator = series("load test", |sample| Some(sample.generator_cores));
        let memory = series("resident", |sample| sample.server_resident_bytes.map(|bytes| bytes as f64 / 1e6));
        vec![
            over_time("One-way latency", "ms", vec![p50, p99]),
            over_time("Received", "packets/s", vec![received]),
            over_time("Lost", "packets", vec![lost]),
            over_time("Viewers", "viewers", vec![viewers]),
            over_time("CPU", "cores", vec![server, generator]),
            over_time("Memory of the server", "MB", vec![memory]),
            over_time(
                "Joins",
                "ms",
                self.join_curves(|name, value, joins| Curve {
                    name: name.into(),
                    points: joins.iter().map(|join| (join.at, value(join))).collect(),
                    scattered: true,
                }),
            ),
            Plot {
                title: "Join times, share of the viewers".into(),
                x: "ms",
                y: "% of viewers",
                curves: self
                    .join_curves(|name, value, joins| distribution(name, joins.iter().filter_map(value).collect())),
                bands: Vec::new(),
            },
        ]
    }

    fn join_curves(&self, curve: fn(&'static str, JoinTime, &[Join]) -> Curve) -> Vec<Curve> {
        vec![
            curve("POST to connected", |join| join.connected_ms, &self.joins),
            curve("POST to first RTP", |join| join.first_rtp_ms, &self.joins),
        ]
    }
}

/// One time of a join.
type JoinTime = fn(&Join) -> Option<f64>;

/// The share of the values that are no greater than x.
fn distribution(name: &str, mut values: Vec<f64>) -> Curve {
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    let points = values.into_iter().enumerate().map(|(index, value)| (value, Some((index + 1) as f64 / count * 100.0)));
    Curve { name: name.into(), points: points.collect(), scattered: false }
}

fn verdict(good: bool, text: &str) -> Markup {
    html! { p.verdict.good[good].bad[!good] { (text) } }
}

/// A plot with its legend, or nothing if there is nothing to show.
fn figure(plot: &Plot) -> Markup {
    html! {
        @if let Some(svg) = plot.to_svg() {
            figure {
                figcaption {
                    (plot.title)
                    @for (index, curve) in plot.curves.iter().enumerate() { " " span class={ "c" (index % CURVES.len()) } { (curve.name) } }
                }
                (PreEscaped(svg))
            }
        }
    }
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Markup {
    html! {
        div.wide {
            table {
                @if !header.is_empty() { tr { @for name in header { th { (name) } } } }
                @for row in rows { tr { @for cell in row { td { (cell) } } } }
            }
        }
    }
}
