//! How late a line comes, and what waiting costs: at rates from none to full.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

use super::beside::Tool;
use super::kernel;
use super::load::Churn;
use super::spread::Spread;
use super::table::{Bound, Table, Target, Unit};
use super::{Lab, Results, of_rounds};

/// Connections per second.
const RATES: [u32; 3] = [10, 1_000, 20_000];
const DAY_NS: u64 = 86_400_000_000_000;

/// Delay of lines and processor time at each rate.
pub(crate) fn delay(lab: &Lab, results: &mut Results) -> Result<()> {
    let rounds = lab.rounds(3);
    let mut idle = Vec::new();
    let mut rows: Vec<(String, Vec<Vec<f64>>)> = RATES
        .iter()
        .map(|rate| (format!("{rate} connections/s"), vec![Vec::new(); 4]))
        .collect();
    for round in 0..rounds {
        lab.progress(&format!("round {} of {rounds}", round + 1));
        idle.push(own_share(lab, None)?);
        for (rate, (_, figures)) in RATES.iter().zip(&mut rows) {
            figures[0].push(own_share(lab, Some(*rate))?);
            let mut late = late_us(lab, *rate)?;
            late.sort_by(f64::total_cmp);
            let at = |part: f64| late.get(((late.len().max(1) - 1) as f64 * part) as usize);
            for (figure, part) in figures[1..].iter_mut().zip([0.5, 0.99, 1.0]) {
                figure.extend(at(part).map(|us| us / 1000.0));
            }
        }
    }
    let mut shown = vec![(
        "none".to_owned(),
        vec![Spread::of(idle.iter().copied()), None, None, None],
    )];
    shown.extend(rows.into_iter().map(|(name, figures)| {
        let figures = figures.into_iter().map(Spread::of);
        (name, figures.collect())
    }));
    results.tables.push(Table {
        title: format!(
            "Delay of `watch --state close_wait --min-age 0`, {}",
            of_rounds(rounds)
        ),
        subject: "load",
        columns: vec![
            ("of a core, without output", Unit::Percent),
            ("delay p50", Unit::Millis),
            ("p99", Unit::Millis),
            ("max", Unit::Millis),
        ],
        rows: shown,
    });
    results.targets.push(Target {
        measure: "idle `watch`, of a core".to_owned(),
        bound: Bound::AtMost(0.1),
        unit: Unit::Percent,
        found: Spread::of(idle),
    });
    Ok(())
}

fn churn(lab: &Lab, rate: u32) -> Churn {
    Churn::new(
        &lab.workload,
        lab.steady_seconds(),
        &[&format!("rate={rate}")],
    )
}

/// Processor time that `watch` takes of one core while connections come at this rate, of a hundred.
fn own_share(lab: &Lab, rate: Option<u32>) -> Result<f64> {
    let tool = Tool::ours(&lab.binary, "watch --state close_wait");
    let running = tool.start(File::create("/dev/null")?)?;
    let pid = running.pid();
    // What it does at its start is over.
    thread::sleep(Duration::from_secs(1));
    let (begin, before) = (Instant::now(), kernel::cpu_ns(pid));
    let share = || {
        let cpu = kernel::cpu_ns(pid).zip(before);
        let (after, before) = cpu.context("watch has ended by itself")?;
        let elapsed = begin.elapsed().as_nanos() as f64;
        Ok((after - before) as f64 / elapsed * 100.0)
    };
    let share = match rate {
        Some(rate) => churn(lab, rate).run(|_| share())?,
        None => {
            // A dump of all sockets comes every 10 s.
            thread::sleep(Duration::from_secs_f64(2.5 * lab.steady_seconds()));
            share()?
        }
    };
    running.stop()?;
    Ok(share)
}

/// How long after a socket has left CLOSE_WAIT the line about it can be read, µs.
fn late_us(lab: &Lab, rate: u32) -> Result<Vec<f64>> {
    let tool = Tool::ours(&lab.binary, "watch --state close_wait --min-age 0 --json");
    let mut running = tool.start(Stdio::piped())?;
    let out = running.child.0.stdout.take().context("stdout is piped")?;
    let reader = thread::spawn(move || {
        let lines = BufReader::new(out).lines().map_while(Result::ok);
        let resolved = lines.filter(|line| line.starts_with(r#"{"type":"resolved""#));
        let late =
            resolved.filter_map(|line| Some(late_ns(time_of_day(&line)?, now_of_day()) as f64));
        late.map(|ns| ns / 1000.0).collect::<Vec<_>>()
    });
    churn(lab, rate).run(|_| {
        thread::sleep(Duration::from_millis(300));
        Ok(())
    })?;
    running.stop()?;
    Ok(reader.join().unwrap_or_default())
}

/// What has passed since, where it is not a day.
fn late_ns(then: u64, now: u64) -> u64 {
    (now + DAY_NS - then) % DAY_NS
}

/// Of `"ts":"2026-11-22T02:58:31.000000000Z"`, ns since midnight.
fn time_of_day(line: &str) -> Option<u64> {
    let (_, at) = line.split_once(r#""ts":""#)?;
    let (at, _) = at.split_once('Z')?;
    let (_, time) = at.split_once('T')?;
    let (time, ns) = time.split_once('.')?;
    let mut seconds = 0;
    for part in time.split(':') {
        seconds = seconds * 60 + part.parse::<u64>().ok()?;
    }
    Some(seconds * 1_000_000_000 + ns.parse::<u64>().ok()?)
}

fn now_of_day() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| (now.as_nanos() % u128::from(DAY_NS)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_late_by_the_time_of_day() {
        let line = r#"{"type":"resolved","ts":"2026-11-22T23:59:59.999999000Z","id":"7"}"#;
        let then = time_of_day(line).expect("a time");
        assert_eq!(then, DAY_NS - 1_000);
        assert_eq!(late_ns(then, then + 500), 500);
        // Midnight came between.
        assert_eq!(late_ns(then, 1_000), 2_000);
        assert_eq!(time_of_day("{}"), None);
    }
}
