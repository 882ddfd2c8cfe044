//! What `doctor --cost` says.

use tcptrace_core::report::snapshot::thousands;

use crate::command::page::{Grade, Page};
use crate::kernel::probes::Spent;
use crate::source::cost::Cost;
use crate::status::size_text;

/// Programs that take less of a processor are told together.
const LEAST_SHARE: f64 = 0.000_1;

/// One line for all, one for each program that takes anything.
pub(super) fn text(cost: &Cost, page: &mut Page) {
    let states: Vec<&str> = cost.states.iter().map(|state| state.name()).collect();
    let lost = match cost.ring_full {
        0 => String::new(),
        lost => format!("; {} events found the ring full", thousands(lost)),
    };
    let events = cost.of(cost.events as f64);
    let line = format!(
        "{:.1} s of {}: the programs took {} of one processor; {} events/s, {}/s{lost}",
        cost.span.as_secs_f64(),
        states.join(","),
        percent(cost.share()),
        rate(events),
        size_text(cost.of(cost.bytes as f64) as u64),
    );
    page.line(Grade::Cost, &line);
    let share = |spent: &Spent| cost.of(spent.time.as_secs_f64());
    let (told, rest): (Vec<_>, Vec<_>) =
        cost.programs.iter().partition(|p| share(p) >= LEAST_SHARE);
    for spent in told {
        let each = spent.time.as_nanos() as f64 / spent.runs.max(1) as f64;
        let runs = rate(cost.of(spent.runs as f64));
        let share = percent(share(spent));
        let name = &spent.name;
        page.line(
            Grade::Cost,
            &format!("{name}: {share}; {runs} runs/s of {each:.0} ns"),
        );
    }
    let (idle, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|spent| spent.runs == 0);
    for (names, what) in [(rest, "less than 0.01 % each"), (idle, "not run")] {
        let names: Vec<&str> = names.iter().map(|spent| &*spent.name).collect();
        if !names.is_empty() {
            page.line(Grade::Cost, &format!("{}: {what}", names.join(", ")));
        }
    }
    page.line(
        Grade::Cost,
        "a run's time has two readings of the clock in it, 20 to 40 ns; what tcptrace itself takes to \
         read the events comes on top",
    );
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate > 0.0 && rate < 10.0 => format!("{rate:.1}"),
        rate => thousands(rate.round() as u64),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tcptrace_core::state::lingering;

    use super::*;

    fn spent(name: &str, runs: u64, ns: u64) -> Spent {
        let name = name.to_owned();
        let time = Duration::from_nanos(ns);
        Spent { name, runs, time }
    }

    #[test]
    fn the_dearest_program_comes_first_and_idle_ones_together() {
        let cost = Cost {
            span: Duration::from_secs(5),
            states: lingering(),
            programs: vec![
                spent("state", 2_000_000, 250_000_000),
                spent("mini_start", 1_000, 50_000),
                spent("eof", 0, 0),
                spent("mini_cancel", 0, 0),
            ],
            events: 1_300_000,
            bytes: 160_000_000,
            ring_full: 7,
        };
        let mut page = Page::new(Some(80));
        text(&cost, &mut page);
        insta::assert_snapshot!(page.text);
    }
}
