//! The report as one page that needs nothing else: no script, no style and no picture from elsewhere.

use std::fmt::Write;

use crate::monitor::Sample;
use crate::plot::{Curve, Plot, escape};
use crate::report::{PHASE_HEADER, Report, phase_row};

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c2330; --paper: #fff; --faint: #8a93a3; --line: #dde1e8; --band: #f1f4f8;
  --c0: #1f6feb; --c1: #d9480f; --c2: #2b8a3e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --paper: #14181f; --faint: #8a93a3; --line: #333b47;
  --band: #1b212b; --c0: #6ea8fe; --c1: #ff9457; --c2: #69db7c; } }
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
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: var(--faint); }
svg .x { text-anchor: middle; } svg .y { text-anchor: end; } svg .grid { stroke: var(--line); }
svg path { fill: none; stroke-width: 1.6; } .band { fill: var(--band); } .band.odd { fill: none; }
span.c0 { color: var(--c0); } span.c1 { color: var(--c1); } span.c2 { color: var(--c2); }
path.c0 { stroke: var(--c0); } path.c1 { stroke: var(--c1); } path.c2 { stroke: var(--c2); }
circle.c0 { fill: var(--c0); } circle.c1 { fill: var(--c1); } circle.c2 { fill: var(--c2); }
";

impl Report {
    /// The report as a page.
    pub fn to_html(&self) -> String {
        let title = format!("sluice-loadtest {}", self.scenario);
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\
             <body>\n<h1>{title}</h1>\n",
        );
        let verdict = |good: bool, text: &str| {
            format!("<p class=\"verdict {}\">{}</p>\n", if good { "good" } else { "bad" }, escape(text))
        };
        page += &verdict(self.passed, if self.passed { "Passed." } else { "Failed." });
        let kept_up = self.bottlenecks.is_empty();
        page += &verdict(
            kept_up,
            if kept_up {
                "No bottleneck was found beside the server."
            } else {
                "There was a bottleneck beside the server; see below."
            },
        );
        // Writing to a String never fails, here and below.
        let _ = write!(
            page,
            "<p>Publishers {} of {}, viewers {} of {}, intact {}; {:.1} s, {:.1} Mbit/s received.</p>\n<ul>",
            self.publishers_connected,
            self.publishers,
            self.viewers_connected,
            self.viewers,
            self.viewers_intact,
            self.seconds,
            self.received_mbit_per_second,
        );
        for line in self.findings() {
            let _ = write!(page, "<li>{}</li>", escape(&line));
        }
        page += "</ul>\n<h2>Times, ms</h2>\n";
        let times = self.times().into_iter().map(|(name, p)| {
            let values = [p.min, p.p50, p.p95, p.p99, p.p999, p.max].map(|value| format!("{value:.2}"));
            [name.to_owned(), p.count.to_string()].into_iter().chain(values).collect()
        });
        page += &table(&["", "count", "min", "p50", "p95", "p99", "p99.9", "max"], times);
        page += &self.plots();
        if self.phases.len() > 1 {
            page += "<h2>Phases</h2>\n";
            page += &table(&PHASE_HEADER, self.phases.iter().map(phase_row));
        }
        page += "<h2>Packets</h2>\n";
        let packets = self.packets().into_iter().map(|(name, values)| {
            std::iter::once(name.to_owned()).chain(values.map(|value| value.to_string())).collect()
        });
        page += &table(&["", "audio", "video", "all"], packets);
        page += "<h2>Configuration</h2>\n";
        page += &table(&[], self.configuration_rows().into_iter());
        page + "</body></html>\n"
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

    fn plots(&self) -> String {
        let bands: Vec<(f64, f64, String)> =
            self.phases.iter().map(|phase| (phase.from, phase.from + phase.seconds, phase.name.clone())).collect();
        let curve = |name, value: fn(&Sample) -> Option<f64>| Curve {
            name,
            points: self.series.iter().map(|sample| (sample.at, value(sample))).collect(),
            scattered: false,
        };
        let over_time = |title, y, curves| Plot { title, x: "s", y, curves, bands: bands.clone() };
        let mut plots = vec![
            over_time(
                "One-way latency",
                "ms",
                vec![curve("p50", |sample| sample.latency_p50_ms), curve("p99", |sample| sample.latency_p99_ms)],
            ),
            over_time("Received", "packets/s", vec![curve("packets/s", |sample| Some(sample.packets_per_second))]),
            over_time("Lost", "packets", vec![curve("lost", |sample| Some(sample.lost.max(0) as f64))]),
            over_time("Viewers", "viewers", vec![curve("viewers", |sample| Some(sample.viewers as f64))]),
            over_time(
                "CPU",
                "cores",
                vec![
                    curve("server", |sample| sample.server_cores),
                    curve("load test", |sample| Some(sample.generator_cores)),
                ],
            ),
        ];
        if self.series.iter().any(|sample| sample.server_resident_bytes.is_some()) {
            let memory = curve("resident", |sample| sample.server_resident_bytes.map(|bytes| bytes as f64 / 1e6));
            plots.push(over_time("Memory of the server", "MB", vec![memory]));
        }
        let joins = |name, value: fn(&crate::fleet::Join) -> Option<f64>| Curve {
            name,
            points: self.joins.iter().map(|join| (join.at, value(join))).collect(),
            scattered: true,
        };
        plots.push(over_time(
            "Joins",
            "ms",
            vec![
                joins("POST to connected", |join| join.connected_ms),
                joins("POST to first RTP", |join| join.first_rtp_ms),
            ],
        ));
        plots.push(Plot {
            title: "Join times, share of the viewers",
            x: "ms",
            y: "% of viewers",
            curves: vec![
                distribution("POST to connected", self.joins.iter().filter_map(|join| join.connected_ms).collect()),
                distribution("POST to first RTP", self.joins.iter().filter_map(|join| join.first_rtp_ms).collect()),
            ],
            bands: Vec::new(),
        });
        "<h2>Over time</h2>\n".to_owned() + &plots.iter().map(Plot::to_html).collect::<String>()
    }
}

/// The share of the values that are no greater than x.
fn distribution(name: &str, mut values: Vec<f64>) -> Curve<'_> {
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    let points = values.into_iter().enumerate().map(|(index, value)| (value, Some((index + 1) as f64 / count * 100.0)));
    Curve { name, points: points.collect(), scattered: false }
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let row = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        let cells: String = cells.map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let mut html = String::from("<div class=\"wide\"><table>\n");
    if !header.is_empty() {
        html += &row("th", &mut header.iter().copied());
    }
    for cells in rows {
        html += &row("td", &mut cells.iter().map(String::as_str));
    }
    html + "</table></div>\n"
}
