//! Curves of memory, rates and broken promises over time, as SVG.

use super::report::{Report, rate};
use super::sample::Sample;
use plotters::prelude::*;

const SIZE: (u32, u32) = (960, 1000);

/// All curves, one above the other, over the minutes of the run. A run without samples gives an empty picture.
pub(crate) fn svg(report: &Report) -> String {
    let minutes = |at: std::time::Duration| at.as_secs_f64() / 60.0;
    let value = |of: fn(&Sample) -> f64| -> Vec<(f64, f64)> {
        report.samples.iter().map(|sample| (minutes(sample.at), of(sample))).collect()
    };
    let (rss, heap) = (value(|sample| sample.rss as f64 / 1e6), value(|sample| sample.heap as f64 / 1e6));
    let violations = value(|sample| sample.violations as f64);
    let speed = |count: fn(&Sample) -> u64| -> Vec<(f64, f64)> {
        // Over several samples, or it is noise.
        let apart = (report.samples.len() / 100).max(1);
        let pairs = report.samples.iter().zip(report.samples.iter().skip(apart));
        pairs.map(|(before, now)| (minutes(now.at), rate(before, now, count) / 1e3)).collect()
    };
    let (published, delivered) = (speed(|sample| sample.published), speed(|sample| sample.delivered));
    let thousands = "thousand a second";
    let broken = format!("broken promises so far ({} at the end)", violations.last().map_or(0.0, |last| last.1));
    let parts: [(&str, &str, &[Line<'_>]); 4] = [
        ("memory", "MB", &[("of the process (RSS)", &rss, BLUE), ("allocated", &heap, MAGENTA)]),
        ("deliveries", thousands, &[("delivered", &delivered, RED)]),
        ("publishes", thousands, &[("published", &published, GREEN)]),
        (&broken, "number", &[("violations", &violations, BLACK)]),
    ];
    let mut text = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        let places = area.split_evenly((parts.len(), 1));
        area.fill(&WHITE)
            .and_then(|()| {
                places.iter().zip(parts).try_for_each(|(place, (title, unit, lines))| curves(place, title, unit, lines))
            })
            .and_then(|()| area.present())
    };
    // Into a string nothing can fail; and a report without a picture is still a report.
    drawn
        .map_or_else(|error| format!("<svg xmlns=\"http://www.w3.org/2000/svg\"><desc>{error}</desc></svg>"), |()| text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

/// Name, points and colour of a curve.
type Line<'a> = (&'a str, &'a [(f64, f64)], RGBColor);

fn curves<'a>(area: &Area<'a>, title: &str, unit: &str, lines: &[Line<'_>]) -> Drawn<'a> {
    let points = || lines.iter().flat_map(|(_, points, _)| points.iter());
    let end = points().map(|point| point.0).fold(1e-3, f64::max);
    // A curve of nothing lies on the ground.
    let top = points().map(|point| point.1).fold(1.0, f64::max) * if lines.len() > 1 { 1.6 } else { 1.1 };
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart.configure_mesh().x_desc("minutes").y_desc(unit).light_line_style(TRANSPARENT).draw()?;
    for (name, points, colour) in lines {
        let colour = *colour;
        chart
            .draw_series(LineSeries::new(points.iter().copied(), &colour))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
    }
    // What there is one of is named by the title.
    if lines.len() > 1 {
        chart.configure_series_labels().position(SeriesLabelPosition::UpperRight).border_style(BLACK).draw()?;
    }
    Ok(())
}
