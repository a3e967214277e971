//! Line and point plots as inline SVG.

use std::error::Error;

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Width and height; the page scales it.
const SIZE: (u32, u32) = (760, 230);
/// About so many numbers stand at an axis.
const TICKS: usize = 6;
/// Pixels that the y axis takes from the width.
const LEFT: u32 = 60;

/// The colours as SVG attributes. The page's style names them too, and replaces them in the dark.
pub(super) const CURVES: [RGBColor; 4] =
    [RGBColor(0x1f, 0x6f, 0xeb), RGBColor(0xd9, 0x48, 0x0f), RGBColor(0x2b, 0x8a, 0x3e), RGBColor(0x86, 0x2e, 0x9c)];
const FAINT: RGBColor = RGBColor(0x8a, 0x93, 0xa3);
const GRID: RGBColor = RGBColor(0xdd, 0xe1, 0xe8);
const BAND: RGBColor = RGBColor(0xf1, 0xf4, 0xf8);

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// One curve.
pub(super) struct Curve {
    /// For the legend.
    pub(super) name: String,
    /// x and y; a missing y leaves a gap.
    pub(super) points: Vec<(f64, Option<f64>)>,
    /// Points instead of a line.
    pub(super) scattered: bool,
}

impl Curve {
    /// Runs of points without a gap.
    fn runs(&self) -> Vec<Vec<(f64, f64)>> {
        let runs = self.points.split(|(_, y)| y.is_none_or(|y| !y.is_finite()));
        let whole = |run: &[(f64, Option<f64>)]| run.iter().filter_map(|(x, y)| Some((*x, (*y)?))).collect();
        runs.filter(|run| !run.is_empty()).map(whole).collect()
    }
}

/// A plot with its axes, both from 0.
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    pub(super) curves: Vec<Curve>,
    /// Parts of the x axis with names: begin, end.
    pub(super) bands: Vec<(f64, f64, String)>,
}

impl Plot {
    /// The plot, or nothing if there is nothing to show.
    pub(super) fn to_svg(&self) -> Option<String> {
        let points = || self.curves.iter().flat_map(Curve::runs).flatten();
        let most = |of: fn((f64, f64)) -> f64| {
            Some(points().map(of).reduce(f64::max)?).map(|most| if most > 0.0 { most } else { 1.0 })
        };
        let (x_max, y_max) = (most(|point| point.0)?, most(|point| point.1)?);
        let mut svg = String::new();
        // A string takes everything, so that drawing does not fail.
        self.draw(&mut svg, x_max, 1.05 * y_max).ok()?;
        Some(svg)
    }

    fn draw(&self, svg: &mut String, x_max: f64, y_max: f64) -> Result<(), Box<dyn Error>> {
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(6)
            .x_label_area_size(34)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(0.0..x_max, 0.0..y_max)
            .map_err(|error| error.to_string())?;
        self.draw_bands(&mut chart, x_max, y_max)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .x_labels(TICKS)
            .y_labels(TICKS)
            .label_style(("sans-serif", 13, &FAINT))
            .x_label_formatter(&label)
            .y_label_formatter(&label)
            .x_desc(self.x)
            .y_desc(self.y)
            .draw()
            .map_err(|error| error.to_string())?;
        for (curve, color) in self.curves.iter().zip(CURVES.iter().cycle()) {
            for run in curve.runs() {
                let drawn = if curve.scattered {
                    chart.draw_series(run.into_iter().map(|point| Circle::new(point, 2, color.filled()))).map(|_| ())
                } else {
                    chart.draw_series(LineSeries::new(run, color.stroke_width(2))).map(|_| ())
                };
                drawn.map_err(|error| error.to_string())?;
            }
        }
        root.present().map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Every other band is filled; a name stands where it has room.
    fn draw_bands(&self, chart: &mut Chart<'_, '_>, x_max: f64, y_max: f64) -> Result<(), String> {
        let name_style = ("sans-serif", 13).into_font().color(&FAINT).pos(Pos::new(HPos::Left, VPos::Top));
        for (index, (from, to, name)) in self.bands.iter().enumerate() {
            let (from, to) = (from.clamp(0.0, x_max), to.clamp(0.0, x_max));
            let corners = [(from, 0.0), (to, y_max)];
            if index % 2 == 0 {
                let band = Rectangle::new(corners, BAND.filled());
                chart.draw_series([band]).map_err(|error| error.to_string())?;
            }
            let width = (to - from) / x_max * f64::from(SIZE.0 - LEFT);
            if width > name.len() as f64 * 5.5 {
                let text = Text::new(name.clone(), (from, y_max), name_style.clone());
                chart.draw_series([text]).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}

/// A number at an axis: at most three digits after the point, thousands and millions by their letters.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn label(value: &f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (*value, ""),
    };
    format!("{}{unit}", (value * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers() {
        let labels = [0.2 * 3.0, 4000.0, 15_000.0, 2_500_000.0, 0.0].map(|value| label(&value));
        assert_eq!(labels, ["0.6", "4000", "15k", "2.5M", "0"]);
        let curve = Curve { name: "a".into(), points: vec![(0.0, Some(137.0)), (10.0, Some(3.0))], scattered: true };
        let plot = Plot { title: "t".into(), x: "s", y: "ms", curves: vec![curve], bands: Vec::new() };
        let svg = plot.to_svg().unwrap();
        for number in ["0", "50", "100", "2", "4", "10"] {
            assert!(svg.contains(&format!(">\n{number}\n<")), "{number}: {svg}");
        }
    }

    #[test]
    fn a_gap_stays_a_gap_and_names_are_escaped() {
        let points = vec![(0.0, Some(1.0)), (1.0, None), (2.0, Some(2.0)), (3.0, Some(1.0))];
        let curve = Curve { name: "<b>".into(), points, scattered: false };
        assert_eq!(curve.runs(), [vec![(0.0, 1.0)], vec![(2.0, 2.0), (3.0, 1.0)]]);
        let plot =
            Plot { title: "t".into(), x: "s", y: "ms", curves: vec![curve], bands: vec![(0.0, 1.0, "a<b".into())] };
        let svg = plot.to_svg().unwrap();
        assert!(svg.contains("a&lt;b") && svg.contains("<polyline") && !svg.contains("NaN"), "{svg}");
        let empty = Plot { title: "t".into(), x: "s", y: "ms", curves: Vec::new(), bands: Vec::new() };
        assert_eq!(empty.to_svg(), None);
    }
}
