//! Reports of whatever comes: their parts agree, they fit the terminal, and no name breaks out of a
//! page.

#[path = "recording/arbitrary.rs"]
mod arbitrary;

use proptest::prelude::*;
use tcptrace_core::filter::Filter;
use tcptrace_core::input::Input;
use tcptrace_core::report::full::{Report, ReportLine};
use tcptrace_core::report::full_text::{self, Style};
use tcptrace_core::report::series::Series;
use tcptrace_core::report::summary::Key;
use tcptrace_core::report::table::width;
use tcptrace_core::report::{diff::Diff, html, svg};
use tcptrace_core::state::{StateSet, TcpState};
use tcptrace_core::time::WallAnchor;
use tcptrace_core::tracker::{Minisockets, Options, Tracker};

const STATES: [TcpState; 5] = [
    TcpState::Established,
    TcpState::SynSent,
    TcpState::CloseWait,
    TcpState::FinWait2,
    TcpState::TimeWait,
];

fn report(inputs: &[Input]) -> Report {
    let mut tracker = Tracker::new(Options {
        filter: Filter {
            states: StateSet::of(&STATES),
            ..Filter::default()
        },
        by: vec![Key::Comm, Key::Container],
        minisockets: Minisockets::Seen,
        overflows_seen: true,
        ..Options::default()
    });
    let mut series = Series::new(StateSet::of(&STATES));
    for input in inputs {
        series.input(input, &tracker);
        tracker.apply(input, &mut Vec::new());
    }
    series.end(&tracker);
    Report {
        summary: tracker.summary(),
        histograms: tracker.histograms(StateSet::all()),
        series,
        anchor: WallAnchor::default(),
    }
}

proptest! {
    #[test]
    fn the_parts_of_a_report_agree(inputs in prop::collection::vec(arbitrary::input(), 0..60)) {
        let report = report(&inputs);
        for (line, histogram) in report.summary.states.iter().zip(&report.histograms) {
            prop_assert_eq!(line.state, histogram.state);
            prop_assert_eq!(line.open, histogram.open);
            prop_assert!(histogram.left <= line.left);
            let last = report.series.open(line.state).last().copied();
            prop_assert_eq!(last, Some(line.open), "{:?}", line.state);
        }
        let lost = report.series.lost();
        let completeness = &report.summary.completeness;
        let total = [
            completeness.ring_full,
            completeness.recursion_missed,
            completeness.map_full,
            completeness.read_faults,
            completeness.undecodable,
        ];
        let total = total.into_iter().fold(0, u64::saturating_add);
        // Totals that go back are no totals; what was taken once stays.
        prop_assert!(lost >= total, "{lost} of {total}");
        prop_assert!(serde_json::to_string(&ReportLine::new(&report)).is_ok());
    }

    #[test]
    fn a_report_fits_the_terminal(
        inputs in prop::collection::vec(arbitrary::input(), 0..60),
        terminal in 1usize..160,
    ) {
        let report = report(&inputs);
        let style = Style { terminal: Some(terminal), color: false, percentiles: true, top: 5 };
        let text = full_text::to_text(&report, style);
        let diff = Diff::new(&report.summary, &report.summary);
        for line in text.lines().chain(diff.to_text(true, Some(terminal)).lines()) {
            prop_assert!(width(line) <= terminal, "{line:?}");
            prop_assert!(!line.chars().any(char::is_control), "{line:?}");
        }
        prop_assert!(diff.rows.iter().all(|row| row.before == row.after));
    }

    #[test]
    fn no_name_breaks_out_of_a_page(inputs in prop::collection::vec(arbitrary::input(), 0..60)) {
        let report = report(&inputs);
        for document in [html::to_html(&report, usize::MAX), svg::to_svg(&report)] {
            let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
            let parsed = roxmltree::Document::parse_with_options(&document, options);
            prop_assert!(parsed.is_ok(), "{:?}\n{}", parsed.err(), document);
        }
    }
}
