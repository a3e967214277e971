//! Line and point plots as inline SVG.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;
/// About so many numbers stand at an axis.
const TICKS: f64 = 6.0;

/// One curve.
pub(crate) struct Curve<'a> {
    /// For the legend.
    pub(crate) name: &'a str,
    /// x and y; a missing y leaves a gap.
    pub(crate) points: Vec<(f64, Option<f64>)>,
    /// Points instead of a line.
    pub(crate) scattered: bool,
}

/// A plot with its axes.
pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    pub(crate) curves: Vec<Curve<'a>>,
    /// Parts of the x axis with names: begin, end.
    pub(crate) bands: Vec<(f64, f64, String)>,
}

impl Plot<'_> {
    /// A `<figure>`, or nothing if there is nothing to show.
    pub(crate) fn to_html(&self) -> String {
        let points = || self.curves.iter().flat_map(|curve| &curve.points).filter_map(|(x, y)| Some((*x, (*y)?)));
        let points = || points().filter(|(x, y)| x.is_finite() && y.is_finite());
        let (Some(x_max), Some(y_max)) =
            (points().map(|point| point.0).reduce(f64::max), points().map(|point| point.1).reduce(f64::max))
        else {
            return String::new();
        };
        let (x_step, y_step) = (step(x_max), step(y_max));
        let (x_max, y_max) = (x_max.max(x_step), ((y_max / y_step).ceil() * y_step).max(y_step));
        let at_x = |x: f64| LEFT + x / x_max * (WIDTH - LEFT - RIGHT);
        let at_y = |y: f64| HEIGHT - BOTTOM - y / y_max * (HEIGHT - TOP - BOTTOM);

        let mut svg = format!("<figure><figcaption>{}", escape(self.title));
        for (index, curve) in self.curves.iter().enumerate() {
            // Writing to a String never fails, here and below.
            let _ = write!(svg, " <span class=\"c{index}\">{}</span>", escape(curve.name));
        }
        let _ = write!(svg, "</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        for (index, (from, to, name)) in self.bands.iter().enumerate() {
            let (from, to) = (at_x(from.clamp(0.0, x_max)), at_x(to.clamp(0.0, x_max)));
            let class = if index % 2 == 0 { "band" } else { "band odd" };
            let (top, height) = (TOP, HEIGHT - TOP - BOTTOM);
            let width = to - from;
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{height}\"><title>{}</title></rect>",
                escape(name)
            );
            if width > name.len() as f64 * 5.5 {
                let _ = write!(
                    svg,
                    "<text class=\"name\" x=\"{:.1}\" y=\"{}\">{}</text>",
                    from + 3.0,
                    TOP + 10.0,
                    escape(name)
                );
            }
        }
        for tick in ticks(x_max, x_step) {
            let (x, y) = (at_x(tick), HEIGHT - BOTTOM);
            let _ = write!(svg, "<text class=\"x\" x=\"{x:.1}\" y=\"{}\">{}</text>", y + 14.0, label(tick, x_step));
        }
        for tick in ticks(y_max, y_step) {
            let y = at_y(tick);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
                WIDTH - RIGHT
            );
            let _ = write!(
                svg,
                "<text class=\"y\" x=\"{}\" y=\"{:.1}\">{}</text>",
                LEFT - 6.0,
                y + 3.5,
                label(tick, y_step)
            );
        }
        let (middle, foot) = ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 4.0);
        let _ = write!(svg, "<text class=\"x\" x=\"{middle}\" y=\"{foot}\">{}</text>", escape(self.x));
        let up = (TOP + HEIGHT - BOTTOM) / 2.0;
        let _ = write!(svg, "<text class=\"x\" transform=\"translate(11 {up}) rotate(-90)\">{}</text>", escape(self.y));
        for (index, curve) in self.curves.iter().enumerate() {
            if curve.scattered {
                for (x, y) in curve.points.iter().filter_map(|(x, y)| Some((*x, (*y)?))) {
                    let _ =
                        write!(svg, "<circle class=\"c{index}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2\"/>", at_x(x), at_y(y));
                }
                continue;
            }
            let mut path = String::new();
            let mut pen = 'M';
            for (x, y) in &curve.points {
                match y {
                    Some(y) => {
                        let _ = write!(path, "{pen}{:.1} {:.1}", at_x(*x), at_y(*y));
                        pen = 'L';
                    }
                    None => pen = 'M',
                }
            }
            let _ = write!(svg, "<path class=\"c{index}\" d=\"{path}\"/>");
        }
        svg + "</svg></figure>\n"
    }
}

/// 1, 2 or 5 times a power of ten, so that about [`TICKS`] of them make `max`; 1 if all values are 0.
fn step(max: f64) -> f64 {
    if max <= 0.0 {
        return 1.0;
    }
    let rough = (max / TICKS).max(1e-6);
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|factor| factor * power).find(|step| *step >= rough).unwrap_or(10.0 * power)
}

fn ticks(max: f64, step: f64) -> impl Iterator<Item = f64> {
    (0..=(max / step + 1e-9) as u32).map(move |index| f64::from(index) * step)
}

fn label(value: f64, step: f64) -> String {
    let (value, step, unit) = match step {
        _ if step >= 1e6 => (value / 1e6, step / 1e6, "M"),
        _ if step >= 1e3 => (value / 1e3, step / 1e3, "k"),
        _ => (value, step, ""),
    };
    let digits = (-step.log10().floor()).max(0.0) as usize;
    format!("{value:.digits$}{unit}")
}

/// Text in HTML.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers() {
        for (max, expected) in [(10.0, 2.0), (0.9, 0.2), (137.0, 50.0), (30_000.0, 5000.0), (0.0, 1.0)] {
            let found = step(max);
            assert!((found / expected - 1.0).abs() < 1e-6, "{max}: {found}");
        }
        assert_eq!(
            ticks(1.0, 0.2).map(|tick| label(tick, 0.2)).collect::<Vec<_>>().join(" "),
            "0.0 0.2 0.4 0.6 0.8 1.0"
        );
        assert_eq!((label(4000.0, 500.0), label(15_000.0, 5000.0)), ("4000".into(), "15k".into()));
    }

    #[test]
    fn a_gap_stays_a_gap_and_names_are_escaped() {
        let points = vec![(0.0, Some(1.0)), (1.0, None), (2.0, Some(2.0)), (3.0, Some(1.0))];
        let curve = Curve { name: "<b>", points, scattered: false };
        let plot = Plot { title: "t", x: "s", y: "ms", curves: vec![curve], bands: vec![(0.0, 1.0, "a\"b".into())] };
        let html = plot.to_html();
        let path = html.split("d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1), "{path}");
        assert!(html.contains("&lt;b&gt;") && html.contains("a&quot;b") && !html.contains("NaN"), "{html}");
        let empty = Plot { title: "t", x: "s", y: "ms", curves: Vec::new(), bands: Vec::new() };
        assert_eq!(empty.to_html(), "");
    }
}
