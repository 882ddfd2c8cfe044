//! The report as a page: one file, no network, no script.

use std::fmt::Write as _;

use super::cells;
use super::full::Report;
use super::histogram::{Histogram, PERCENTILES};
use super::snapshot::thousands;
use super::summary_text::{self, NUMBERS, numbers};
use super::svg::{self, xml};
use crate::time::duration_text;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em;color:#222;\
background:#fff}\
h1{font-size:1.5em;margin-bottom:0}h2{font-size:1.15em;margin:2em 0 .5em}\
.period{color:#666;margin-top:.2em}\
.data{padding:.5em .8em;border-left:4px solid #2b8a3e;background:#ebfbee}\
.data.incomplete{border-color:#c92a2a;background:#fff5f5}\
.wide{overflow-x:auto}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13px}\
th,td{padding:.25em .7em;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}\
th:first-child,td:first-child,.name{text-align:left}\
.legend span{display:inline-block;width:.9em;height:.9em;margin:0 .3em 0 1em;vertical-align:-1px}\
.chart{width:100%;height:auto;display:block;margin:.5em 0}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}.period{color:#999}\
th,td{border-color:#444}.data{background:#1c2b1f}.data.incomplete{background:#331c1c}}";

/// The page; `top`: so many groups are shown at most.
pub fn to_html(report: &Report, top: usize) -> String {
    let summary = &report.summary;
    let completeness = &summary.completeness;
    let [from, to] = report.period();
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/>\n\
         <title>TCP connection states, {from}</title>\n<style>{STYLE}{chart}</style>\n</head>\n\
         <body>\n<h1>TCP connection states</h1>\n\
         <p class=\"period\">{span}, {from} to {to}</p>\n\
         <p class=\"data{incomplete}\">{data}</p>\n",
        from = xml(&from),
        to = xml(&to),
        chart = svg::STYLE,
        span = duration_text(summary.span_ns),
        incomplete = if completeness.complete() {
            ""
        } else {
            " incomplete"
        },
        data = xml(&summary_text::completeness(completeness)),
    );
    states(&mut page, report);
    section(&mut page, "Open sockets over time", &svg::curves(report));
    let histograms = svg::histograms(report);
    if !histograms.is_empty() {
        page.push_str("<h2>How long sockets stayed</h2>\n");
        page.push_str(
            "<p class=\"legend\"><span style=\"background:#3b78c3\"></span>stays that have ended \
             <span style=\"background:#e8850c\"></span>stays that go on, by their age; ~ marks \
             times that are not exact</p>\n",
        );
        page.extend(histograms);
        percentiles(&mut page, report);
    }
    groups(&mut page, report, top);
    overflows(&mut page, report);
    if !completeness.notes.is_empty() {
        page.push_str("<h2>Notes</h2>\n<ul>\n");
        for note in &completeness.notes {
            // A String takes whatever it is given.
            let _ = writeln!(page, "<li>{}</li>", xml(note));
        }
        page.push_str("</ul>\n");
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn section(page: &mut String, title: &str, pictures: &[String]) {
    if !pictures.is_empty() {
        let _ = writeln!(page, "<h2>{title}</h2>");
        pictures.iter().for_each(|picture| page.push_str(picture));
    }
}

fn states(page: &mut String, report: &Report) {
    page.push_str("<h2>States</h2>\n");
    let rows = report.summary.states.iter();
    let rows = rows.map(|line| {
        (
            vec![line.state.name().to_owned()],
            numbers(line, thousands).to_vec(),
        )
    });
    table(page, &["state"], &NUMBERS, rows.collect());
}

fn groups(page: &mut String, report: &Report, top: usize) {
    let summary = &report.summary;
    let shown = &summary.groups[..top.min(summary.groups.len())];
    if shown.is_empty() {
        return;
    }
    page.push_str("<h2>Whose they are</h2>\n");
    let rows = shown.iter().flat_map(|group| {
        let key = group.key.iter();
        let key: Vec<String> = key
            .map(|value| value.clone().unwrap_or("?".to_owned()))
            .collect();
        let lines = group.lines.iter();
        lines.map(move |line| {
            let mut names = key.clone();
            names.push(line.state.name().to_owned());
            (names, numbers(line, thousands).to_vec())
        })
    });
    let mut names: Vec<&str> = summary.by.iter().map(|key| key.name()).collect();
    names.push("state");
    table(page, &names, &NUMBERS, rows.collect());
    if summary.groups.len() > shown.len() {
        let more = summary.groups.len() - shown.len();
        let _ = writeln!(page, "<p>and {} more groups</p>", thousands(more as u64));
    }
}

fn percentiles(page: &mut String, report: &Report) {
    let with = |h: &&Histogram| h.percentiles.is_some();
    let rows = report.full_histograms().filter(with).map(|histogram| {
        let tilde = if histogram.estimated { "~" } else { "" };
        let time = |ns: u64| format!("{tilde}{}", duration_text(ns));
        let mut numbers = vec![thousands(histogram.left)];
        numbers.extend(histogram.percentiles.iter().flatten().map(|ns| time(*ns)));
        (vec![histogram.state.name().to_owned()], numbers)
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return;
    }
    let titles: Vec<String> = PERCENTILES.iter().map(|p| format!("p{p}")).collect();
    let mut columns = vec!["stays"];
    columns.extend(titles.iter().map(String::as_str));
    table(page, &["state"], &columns, rows);
}

fn overflows(page: &mut String, report: &Report) {
    let lines = &report.summary.overflows;
    if lines.is_empty() {
        return;
    }
    page.push_str("<h2>Listeners whose accept queue was full</h2>\n");
    let rows = lines.iter().map(|line| {
        let names = vec![
            line.view.tuple.local.to_string(),
            cells::comm(&line.view),
            cells::pid(&line.view),
            cells::queue(&line.view),
        ];
        (names, vec![cells::dropped(line.dropped, line.estimated)])
    });
    table(
        page,
        &["listener", "comm", "pid", "queue"],
        &["dropped"],
        rows.collect(),
    );
}

/// Names on the left, numbers on the right.
fn table(
    page: &mut String,
    names: &[&str],
    numbers: &[&str],
    rows: Vec<(Vec<String>, Vec<String>)>,
) {
    page.push_str("<div class=\"wide\"><table>\n<tr>");
    for name in names {
        let _ = write!(page, "<th class=\"name\">{}</th>", xml(name));
    }
    for number in numbers {
        let _ = write!(page, "<th>{}</th>", xml(&number.to_lowercase()));
    }
    page.push_str("</tr>\n");
    for (names, numbers) in rows {
        page.push_str("<tr>");
        for name in names {
            let _ = write!(page, "<td class=\"name\">{}</td>", xml(&name));
        }
        for number in numbers {
            let _ = write!(page, "<td>{}</td>", xml(&number));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}
