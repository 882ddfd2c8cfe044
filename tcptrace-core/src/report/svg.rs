//! The report's charts as SVG, one below the other, or one by one for a page.

use std::fmt::Write as _;

use super::full::Report;
use super::histogram::{Bucket, Histogram};
use super::series::{Point, Series};
use super::snapshot::thousands;
use crate::state::TcpState;
use crate::text::escape;
use crate::time::duration_text;

/// Width of every chart, in its own units.
const WIDTH: f64 = 900.0;
/// Where the plot stands in it.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 24.0;

/// What all charts look like, light or dark as the reader has it.
pub(super) const STYLE: &str = "\
.chart text{font:12px system-ui,sans-serif;fill:#333}\
.chart .title{font-size:14px;font-weight:600}\
.chart .note{font-size:11px;fill:#777}\
.chart .grid{stroke:#ddd;stroke-width:1}\
.chart .left,.chart .area{fill:#3b78c3}\
.chart .area{fill-opacity:.35;stroke:#3b78c3;stroke-width:1.5}\
.chart .open{fill:#e8850c;fill-opacity:.55}\
.chart .lost{stroke:#c92a2a;stroke-width:2}\
@media(prefers-color-scheme:dark){\
.chart text{fill:#ddd}.chart .note{fill:#999}.chart .grid{stroke:#444}}";

/// A chart without its frame.
struct Chart {
    height: f64,
    body: String,
}

/// All charts of a report as one picture.
pub fn to_svg(report: &Report) -> String {
    let charts = charts(report);
    let height: f64 = charts.iter().map(|chart| chart.height).sum();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\">\n<style>{STYLE}</style>\n"
    );
    let mut y = 0.0;
    for chart in &charts {
        // A String takes whatever it is given.
        let _ = writeln!(
            svg,
            "<g transform=\"translate(0,{y})\">\n{}</g>",
            chart.body
        );
        y += chart.height;
    }
    svg.push_str("</svg>\n");
    svg
}

/// Open sockets over time, a picture for each state that had any.
pub(super) fn curves(report: &Report) -> Vec<String> {
    framed(curve_charts(report))
}

/// How long stays were, a picture for each state that had any.
pub(super) fn histograms(report: &Report) -> Vec<String> {
    framed(report.full_histograms().map(bars).collect())
}

fn framed(charts: Vec<Chart>) -> Vec<String> {
    let frame = |chart: Chart| {
        format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\">\n{}</svg>\n",
            chart.height, chart.body
        )
    };
    charts.into_iter().map(frame).collect()
}

fn charts(report: &Report) -> Vec<Chart> {
    let mut charts = curve_charts(report);
    charts.extend(report.full_histograms().map(bars));
    if charts.is_empty() {
        let body = text(LEFT, TOP, "title", "no sockets in these states");
        charts.push(Chart { height: 60.0, body });
    }
    charts
}

fn curve_charts(report: &Report) -> Vec<Chart> {
    let series = &report.series;
    let any = |state: &&TcpState| series.open(**state).iter().any(|n| *n > 0);
    let states = series.states.iter().filter(any);
    states.map(|state| curve(series, *state)).collect()
}

/// The open sockets of one state.
fn curve(series: &Series, state: TcpState) -> Chart {
    const PLOT: f64 = 110.0;
    let open = series.open(state);
    let most = open.iter().max().copied().unwrap_or(0);
    let last = open.last().copied().unwrap_or(0);
    let title = format!(
        "{}: open over time, at most {}, at the end {}",
        state.name(),
        thousands(most),
        thousands(last)
    );
    let mut body = text(LEFT, 18.0, "title", &title);
    let top = nice(most);
    grid(&mut body, top, PLOT);
    let span = series.ended.since(series.began).max(1) as f64;
    let x = |index: usize| LEFT + plot_width() * (series.offset_ns(index) as f64 / span);
    let y = |n: u64| TOP + PLOT * (1.0 - n as f64 / top as f64);
    let mut path = format!("M{LEFT:.1},{:.1}", TOP + PLOT);
    let first = open.first().copied().unwrap_or(0);
    // Before its first point nothing was counted: it is drawn as it was then.
    let _ = write!(path, "L{LEFT:.1},{:.1}", y(first));
    for (index, n) in open.iter().enumerate() {
        let _ = write!(path, "L{:.1},{:.1}", x(index), y(*n));
    }
    let _ = write!(path, "L{:.1},{:.1}Z", LEFT + plot_width(), TOP + PLOT);
    let _ = writeln!(body, "<path class=\"area\" d=\"{path}\"/>");
    for (index, point) in series.points.iter().enumerate() {
        if let Some(what) = missing(point) {
            let at = x(index);
            let _ = writeln!(
                body,
                "<line class=\"lost\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\">\
                 <title>{what}</title></line>",
                TOP + PLOT
            );
        }
    }
    for quarter in 0..=4 {
        let at = LEFT + plot_width() * f64::from(quarter) / 4.0;
        let ns = span * f64::from(quarter) / 4.0;
        let label = format!("+{}", duration_text(ns as u64));
        let anchor = match quarter {
            0 => "start",
            4 => "end",
            _ => "middle",
        };
        body.push_str(&anchored(at, TOP + PLOT + 15.0, anchor, &label));
    }
    Chart {
        height: TOP + PLOT + BOTTOM + 8.0,
        body,
    }
}

/// What was lost at a point, in words.
fn missing(point: &Point) -> Option<String> {
    let mut parts = Vec::new();
    if point.lost > 0 {
        parts.push(format!("{} events lost", thousands(point.lost)));
    }
    if point.gaps > 0 {
        parts.push(format!("{} gaps in the recording", point.gaps));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// The stays in one state.
fn bars(histogram: &Histogram) -> Chart {
    const PLOT: f64 = 150.0;
    let tilde = if histogram.estimated { "~" } else { "" };
    let mut title = format!(
        "{}: how long, {} have left, {} are open",
        histogram.state.name(),
        thousands(histogram.left),
        thousands(histogram.open)
    );
    if histogram.open_unknown > 0 {
        let _ = write!(
            title,
            " ({} of unknown age, not shown)",
            thousands(histogram.open_unknown)
        );
    }
    let mut body = text(LEFT, 18.0, "title", &title);
    let buckets = &histogram.buckets;
    let most = buckets.iter().map(|b| b.left + b.open).max().unwrap_or(0);
    let top = nice(most);
    grid(&mut body, top, PLOT);
    let wide = plot_width() / buckets.len().max(1) as f64;
    // Labels that would touch are left out.
    let every = (46.0 / wide).ceil().max(1.0) as usize;
    for (index, bucket) in buckets.iter().enumerate() {
        let x = LEFT + wide * index as f64;
        body.push_str(&bar(bucket, (x, wide.min(80.0)), top, PLOT));
        if index % every == 0 {
            let label = format!("{tilde}{}", Bucket::bound_text(bucket.from_ns));
            body.push_str(&anchored(x, TOP + PLOT + 15.0, "start", &label));
        }
    }
    Chart {
        height: TOP + PLOT + BOTTOM + 8.0,
        body,
    }
}

fn bar(bucket: &Bucket, (x, wide): (f64, f64), top: u64, plot: f64) -> String {
    let Bucket {
        from_ns,
        to_ns,
        left,
        open,
    } = *bucket;
    if left + open == 0 {
        return String::new();
    }
    // What is there is seen.
    let height = |n: u64| match n {
        0 => 0.0,
        n => (plot * n as f64 / top as f64).max(1.5),
    };
    let (solid, hatched) = (height(left), height(open));
    let base = TOP + plot;
    let width = (wide - 3.0).max(1.0);
    let to = to_ns.map_or("more".to_owned(), Bucket::bound_text);
    let what = format!(
        "{} to {to}: {} have left, {} are open",
        Bucket::bound_text(from_ns),
        thousands(left),
        thousands(open)
    );
    let mut body = format!("<g><title>{what}</title>");
    for (class, y, height) in [
        ("left", base - solid, solid),
        ("open", base - solid - hatched, hatched),
    ] {
        if height > 0.0 {
            let _ = write!(
                body,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
                 height=\"{height:.1}\"/>"
            );
        }
    }
    body.push_str("</g>\n");
    if wide > 40.0 {
        let at = x + width / 2.0;
        let above = (base - solid - hatched - 4.0).max(TOP + 10.0);
        body.push_str(&anchored(at, above, "middle", &thousands(left + open)));
    }
    body
}

/// Lines at nothing, half and all.
fn grid(body: &mut String, top: u64, plot: f64) {
    let mut values = vec![0, top];
    if top.is_multiple_of(2) {
        values.push(top / 2);
    }
    for value in values {
        let y = TOP + plot * (1.0 - value as f64 / top as f64);
        let _ = writeln!(
            body,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
            LEFT + plot_width()
        );
        body.push_str(&anchored(LEFT - 6.0, y + 4.0, "end", &thousands(value)));
    }
}

fn plot_width() -> f64 {
    WIDTH - LEFT - RIGHT
}

/// The least of 1, 2, 4, 6, 8, 10, 20, 40… that is not less.
fn nice(n: u64) -> u64 {
    let mut power = 1u64;
    loop {
        for step in [1, 2, 4, 6, 8] {
            let bound = power.saturating_mul(step);
            if bound >= n || bound == u64::MAX {
                return bound;
            }
        }
        power = power.saturating_mul(10);
    }
}

fn text(x: f64, y: f64, class: &str, content: &str) -> String {
    let content = xml(content);
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{content}</text>\n")
}

fn anchored(x: f64, y: f64, anchor: &str, content: &str) -> String {
    let content = xml(content);
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"note\">{content}</text>\n"
    )
}

/// Text that is no markup, and cannot drive a terminal either.
pub(super) fn xml(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in escape(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Not allowed in XML, even as a reference.
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        let of = |n| nice(n);
        assert_eq!([of(0), of(1), of(3), of(6), of(9)], [1, 1, 4, 6, 10]);
        assert_eq!(of(27_352), 40_000);
        assert_eq!(of(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_hostile_name_is_no_markup() {
        assert_eq!(
            xml("<script>'\"&\x1b"),
            "&lt;script&gt;&#39;&quot;&amp;\\x1b"
        );
    }
}
