//! The figures drawn: SVG and PNG, one file each a question.
//!
//! | file | question |
//! |---|---|
//! | `fanout` | deliveries a second by number of subscribers |
//! | `latency` | latency by percentile, paced |
//! | `publish` | cost of a publish at the publisher by number of subscribers |
//! | `lanes` | CPU time of a delivery by number of lanes |

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;

use crate::contenders::{OURS, PATTERN};
use crate::report::{Row, median};

const SIZE: (u32, u32) = (1000, 600);
/// Pixels of it for the names of the lines.
const NAMES: u32 = 270;
/// Told apart also by those who do not see all colours; ours is black.
const COLORS: [RGBColor; 9] = [
    RGBColor(0, 0, 0),
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(110, 110, 110),
    RGBColor(150, 90, 40),
];

type Points = Vec<(f64, f64)>;

/// A drawing: lines over a logarithmic x axis.
struct Plot {
    file: &'static str,
    title: &'static str,
    x: &'static str,
    y: &'static str,
    /// Text of the ticks.
    x_label: fn(&f64) -> String,
    lines: Vec<(String, Points)>,
}

/// Where systems keep a plain font; the variable `PERF_FONT` names another.
const FONTS: [&str; 4] = [
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/dejavu-sans-fonts/DejaVuSans.ttf",
    "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf",
    "/System/Library/Fonts/Supplemental/Arial.ttf",
];

/// Reads a font for the whole process.
fn load_font() -> Result<(), Box<dyn Error>> {
    let named = std::env::var_os("PERF_FONT").map(std::path::PathBuf::from);
    let bytes = named.into_iter().chain(FONTS.map(Into::into)).find_map(|path| std::fs::read(path).ok());
    let bytes = bytes.ok_or("no font found: name a .ttf file in PERF_FONT")?;
    register_font("sans-serif", FontStyle::Normal, bytes.leak()).map_err(|_| "not a font: see PERF_FONT".into())
}

/// Draws what there are figures for.
///
/// # Errors
/// What plotters says: a file that cannot be written. That there is no font.
pub(crate) fn draw(directory: &Path, rows: &[Row]) -> Result<(), Box<dyn Error>> {
    load_font()?;
    std::fs::create_dir_all(directory)?;
    for plot in [fanout(rows), latency(rows), publish(rows), lanes(rows)] {
        if plot.lines.is_empty() {
            continue;
        }
        let path = |ending: &str| directory.join(format!("{}.{ending}", plot.file));
        plot.draw(SVGBackend::new(&path("svg"), SIZE).into_drawing_area())?;
        plot.draw(BitMapBackend::new(&path("png"), SIZE).into_drawing_area())?;
    }
    Ok(())
}

/// The rows of these scenarios as lines: a point for each scenario, at its x; contenders with fewer than two
/// points are left out.
fn by_scenario(rows: &[Row], at: &[(&str, f64)], figure: impl Fn(&Row) -> f64) -> Vec<(String, Points)> {
    let mut lines: Vec<(String, Points)> = Vec::new();
    for row in rows {
        let Some(&(_, x)) = at.iter().find(|(name, _)| *name == row.scenario) else { continue };
        // The layouts of more than eight subscribers go on with the lines of the same contender.
        let name = row.contender.trim_end_matches(", a queue each");
        let is_pattern = row.contender.ends_with(", a queue each");
        let name = if is_pattern && name != PATTERN { continue } else { name.to_owned() };
        if !shown(&name)
            || (name == PATTERN
                && !is_pattern
                && x > 8.0
                && rows.iter().any(|r| r.scenario == row.scenario && r.contender.ends_with(", a queue each")))
        {
            continue;
        }
        match lines.iter_mut().find(|(other, _)| *other == name) {
            Some((_, points)) => points.push((x, figure(row))),
            None => lines.push((name, vec![(x, figure(row))])),
        }
    }
    lines.retain(|(_, points)| points.len() > 1);
    lines
}

/// Lines that a plot has room for.
fn shown(contender: &str) -> bool {
    let shown = [OURS, PATTERN, "arc-swap + crossbeam-channel", "arc-swap + kanal", "bus", "async-broadcast"];
    shown.contains(&contender)
        || ["disruptor multi yield", "disruptor single yield", "disruptor single yield in place"].contains(&contender)
}

fn count(x: &f64) -> String {
    format!("{x:.0}")
}

fn fanout(rows: &[Row]) -> Plot {
    let at = [("1->1", 1.0), ("1->8", 8.0), ("1->1000", 1e3), ("1->10000", 1e4)];
    let lines = by_scenario(rows, &at, |row| median(&row.deliveries_per_second) / 1e6);
    Plot {
        file: "fanout",
        title: "Deliveries, one publisher (mutex: a queue each beyond 8)",
        x: "subscribers",
        y: "million deliveries a second",
        x_label: count,
        lines,
    }
}

fn publish(rows: &[Row]) -> Plot {
    let at = [("burst to 1", 1.0), ("burst to 8", 8.0), ("burst to 1000", 1e3), ("burst to 10000", 1e4)];
    let lines = by_scenario(rows, &at, |row| row.burst(|burst| burst.publish));
    Plot {
        file: "publish",
        title: "Making and publishing a message, at the publisher (consumers stalled)",
        x: "subscribers",
        y: "ns a message",
        x_label: count,
        lines,
    }
}

fn latency(rows: &[Row]) -> Plot {
    // Nines: 1 is 90 %, 2 is 99 %; as 1 / (1 - share), so that the axis is logarithmic.
    let lines = rows
        .iter()
        .filter(|row| row.scenario == "20k/s" && shown(&row.contender))
        .map(|row| {
            let share = [
                (2.0, row.latency(|l| l.p50)),
                (10.0, row.latency(|l| l.p90)),
                (100.0, row.latency(|l| l.p99)),
                (1000.0, row.latency(|l| l.p999)),
            ];
            (row.contender.clone(), share.map(|(x, y)| (x, y / 1000.0)).to_vec())
        })
        .collect();
    Plot {
        file: "latency",
        title: "Latency, 20,000 messages a second to one parked consumer",
        x: "percentile",
        y: "microseconds",
        x_label: |x| format!("{}", 100.0 - 100.0 / x),
        lines,
    }
}

fn lanes(rows: &[Row]) -> Plot {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let of = |contender: &str| match contender.strip_prefix(OURS)? {
        "" => Some(cores),
        rest => rest.strip_prefix(", ")?.split(' ').next()?.parse().ok(),
    };
    let mut points: Points = rows
        .iter()
        .filter(|row| row.scenario == "4->64")
        .filter_map(|row| Some((of(&row.contender)?, median(&row.cpu_ns_per_delivery))))
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Plot {
        file: "lanes",
        title: "CPU time of a delivery, four publishers to 64 subscribers",
        x: "lanes",
        y: "ns of CPU time a delivery",
        x_label: count,
        lines: if points.len() > 1 { vec![(OURS.into(), points)] } else { Vec::new() },
    }
}

impl Plot {
    fn draw<B: DrawingBackend>(&self, area: DrawingArea<B, Shift>) -> Result<(), Box<dyn Error>>
    where
        B::ErrorType: 'static,
    {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let edge = |at: fn(&(f64, f64)) -> f64, pick: fn(f64, f64) -> f64, start| points().map(at).fold(start, pick);
        let (left, right) = (edge(|p| p.0, f64::min, f64::MAX), edge(|p| p.0, f64::max, 0.0));
        let (low, high) = (edge(|p| p.1, f64::min, f64::MAX), edge(|p| p.1, f64::max, 0.0));
        // Whole decades: each has its label.
        let bottom = 10f64.powf(low.log10().floor());
        let top = 10f64.powf(high.log10().ceil()).max(10.0 * bottom);
        area.fill(&WHITE)?;
        let (drawing, names) = area.split_horizontally(SIZE.0 - NAMES);
        let mut chart = ChartBuilder::on(&drawing)
            .caption(self.title, ("sans-serif", 22))
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d((left * 0.9..right * 1.1).log_scale(), (bottom..top).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&self.x_label)
            .y_label_formatter(&|y| format!("{}", (y * 1000.0).round() / 1000.0))
            .label_style(("sans-serif", 16))
            .draw()?;
        for (n, (name, points)) in self.lines.iter().enumerate() {
            let color = COLORS[n % COLORS.len()];
            let width = if name == OURS { 4 } else { 2 };
            chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(width)))?;
            chart.draw_series(points.iter().map(|&at| Circle::new(at, 4, color.filled())))?;
            // Beside the drawing, where no line is.
            let y = 60 + 24 * n as i32;
            names.draw(&PathElement::new([(0, y), (22, y)], color.stroke_width(width)))?;
            names.draw(&Text::new(name.as_str(), (30, y - 8), ("sans-serif", 15)))?;
        }
        area.present()?;
        Ok(())
    }
}
