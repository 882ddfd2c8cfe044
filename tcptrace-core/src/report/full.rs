//! A whole report: the summary, how long sockets stayed in each state, and how many were open when.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::histogram::{Histogram, PERCENTILES};
use super::series::Series;
use super::summary::{Summary, SummaryObject};
use crate::time::WallAnchor;

/// The report.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The totals.
    pub summary: Summary,
    /// Stays by length, of the states that were asked for.
    pub histograms: Vec<Histogram>,
    /// Open sockets and losses over time.
    pub series: Series,
    /// Gives instants their date.
    pub anchor: WallAnchor,
}

impl Report {
    /// Where it begins and where it ends, for people.
    pub(super) fn period(&self) -> [String; 2] {
        [self.series.began, self.series.ended].map(|at| self.anchor.rfc3339_ms(at))
    }

    /// Histograms that have something in them.
    pub(super) fn full_histograms(&self) -> impl Iterator<Item = &Histogram> {
        self.histograms.iter().filter(|h| !h.is_empty())
    }
}

/// The report as one object.
#[derive(Clone, Debug, Serialize)]
pub struct ReportLine<'a> {
    r#type: &'static str,
    from: String,
    to: String,
    #[serde(flatten)]
    summary: SummaryObject<'a>,
    histograms: Vec<Value>,
    series: Value,
}

impl<'a> ReportLine<'a> {
    /// Of this report.
    pub fn new(report: &'a Report) -> ReportLine<'a> {
        ReportLine {
            r#type: "report",
            from: report.anchor.rfc3339(report.series.began),
            to: report.anchor.rfc3339(report.series.ended),
            summary: SummaryObject::new(&report.summary, report.anchor),
            histograms: report.histograms.iter().map(histogram).collect(),
            series: series(&report.series),
        }
    }
}

fn histogram(histogram: &Histogram) -> Value {
    let at = |index: usize| histogram.percentiles.map(|all| all[index]);
    let percentiles = PERCENTILES.iter().enumerate();
    let percentiles: Map<String, Value> = percentiles
        .map(|(index, percentile)| (format!("p{percentile}_ns"), json!(at(index))))
        .collect();
    json!({
        "state": histogram.state.name(),
        "left": histogram.left,
        "open": histogram.open,
        "open_unknown": histogram.open_unknown,
        "estimated": histogram.estimated,
        "min_ns": histogram.extremes.map(|(min, _)| min),
        "max_ns": histogram.extremes.map(|(_, max)| max),
        "percentiles": percentiles,
        "buckets": histogram.buckets,
    })
}

fn series(series: &Series) -> Value {
    let points = 0..series.points.len();
    let open = series.states.iter();
    let open: Map<String, Value> = open
        .map(|state| (state.name().to_owned(), json!(series.open(*state))))
        .collect();
    let each = |of: fn(&super::series::Point) -> u64| -> Vec<u64> {
        series.points.iter().map(of).collect()
    };
    json!({
        "step_ns": series.step_ns,
        "offsets_ns": points.map(|i| series.offset_ns(i)).collect::<Vec<u64>>(),
        "open": open,
        "lost": each(|point| point.lost),
        "gaps": each(|point| point.gaps),
    })
}
