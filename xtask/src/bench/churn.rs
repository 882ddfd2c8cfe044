//! What tracing costs connections that come and go as fast as they can.

use anyhow::Result;
use serde_json::Value;

use super::beside::Tool;
use super::load::Churned;
use super::rounds::{Beside, Measured, measure};
use super::spread::{Rounds, Spread, paired};
use super::table::{Bound, Table, Target, Unit};
use super::{Lab, Results, of_rounds, output_of};

/// A connection of which both ends are here changes its state so often.
const EVENTS: f64 = 10.0;

/// What users run. The order is that of the table.
const EVERYTHING: &str = "record --stacks none";
const HEALTHY: &str = "watch --state close_wait";
const PRINTED: &str = "watch --state all --transitions";
const STACKS: &str = "record --stacks auto";

/// Mechanisms by which all states can be followed, and the one that shows that a chain is what it
/// says: by it minisockets must come.
const CHAINS: [(&str, &str); 4] = [
    ("fentry,tp_btf,raw_tp,iter,proc", "fentry"),
    ("kprobe,raw_tp,iter,proc,accept=kprobe", "kprobe"),
    ("tp_btf,raw_tp,tracepoint,iter,proc", "tp_btf"),
    ("state=raw_tp,accept=raw_tp,minisocket=tp_btf", "tp_btf"),
];

/// Ways in which connections come and go.
const SHAPES: [(&str, &[&str]); 6] = [
    ("client closes first", &[]),
    ("server closes first", &["server-first"]),
    ("reset", &["reset"]),
    ("IPv6", &["v6"]),
    ("512 bytes there and back", &["payload=512"]),
    ("2 threads", &["threads=2"]),
];

/// All tools beside the plain load.
pub(crate) fn churn(lab: &Lab, results: &mut Results) -> Result<()> {
    let recording = lab.directory.join("churn.rec");
    let record = |arguments: &str| Tool::ours(&lab.binary, arguments).writing(&recording);
    let tools = [
        Tool::ours(&lab.binary, HEALTHY),
        record(EVERYTHING),
        record(STACKS),
        Tool::ours(&lab.binary, PRINTED),
        Tool::peer("tcpstates"),
        Tool::peer("tcplife"),
        Tool::perf(&lab.directory.join("perf.data")),
    ];
    let rounds = lab.rounds(7);
    let measured = measure(lab, &tools, &[], rounds)?;
    results.tables.push(costs(
        format!("Connections that come and go, {}", of_rounds(rounds)),
        &tools,
        &measured,
    ));
    results.tables.push(weights(&tools, &measured));
    results
        .tables
        .push(programs(&tools[1], measured.counted(1)));
    results.tables.push(stacks(&measured));
    targets(&measured, results);
    Ok(())
}

/// Recording by every chain of mechanisms that the host has.
pub(crate) fn chains(lab: &Lab, results: &mut Results) -> Result<()> {
    let recording = lab.directory.join("chain.rec");
    let mut tools = Vec::new();
    for (hooks, minisocket) in CHAINS {
        let doctor = output_of(&lab.binary, &["doctor", "--json", "--hooks", hooks]);
        let doctor: Option<Value> = doctor
            .ok()
            .and_then(|out| serde_json::from_slice(&out).ok());
        if doctor.is_some_and(|doctor| is_chain(&doctor, minisocket)) {
            let tool = Tool::ours(&lab.binary, &format!("{EVERYTHING} --hooks {hooks}"));
            tools.push(
                tool.called(format!("`--hooks {hooks}`"))
                    .writing(&recording),
            );
        }
    }
    let rounds = lab.rounds(3);
    let measured = measure(lab, &tools, &[], rounds)?;
    let title = format!(
        "`record --stacks none` by the chains of this kernel, {}",
        of_rounds(rounds)
    );
    results.tables.push(costs(title, &tools, &measured));
    Ok(())
}

/// Whether the tracer can run with these mechanisms and they are those that it takes.
fn is_chain(doctor: &Value, minisocket: &str) -> bool {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let events = list(&doctor["plan"]["events"]);
    let chosen = events
        .iter()
        .filter(|event| event["event"] == "minisocket")
        .flat_map(|event| list(&event["candidates"]))
        .find(|candidate| candidate["decision"] == "chosen");
    doctor["can_run"] == true && chosen.is_some_and(|chosen| chosen["mechanism"] == minisocket)
}

/// Recording, and `tcpstates`, beside connections of other kinds.
pub(crate) fn shapes(lab: &Lab, results: &mut Results) -> Result<()> {
    let recording = lab.directory.join("shape.rec");
    let tools = [
        Tool::ours(&lab.binary, EVERYTHING).writing(&recording),
        Tool::peer("tcpstates"),
    ];
    let rounds = lab.rounds(3);
    let mut rows = Vec::new();
    for (name, shape) in SHAPES {
        lab.progress(name);
        let measured = measure(lab, &tools, shape, rounds)?;
        let alone = measured.alone(rate);
        rows.push((
            name.to_owned(),
            vec![
                spread(&alone),
                loss(&measured, 0),
                loss(&measured, 1),
                spread(&measured.of(0, |beside| beside.lost)),
            ],
        ));
    }
    results.tables.push(Table {
        title: format!("Connections of other kinds, {}", of_rounds(rounds)),
        subject: "connections",
        columns: vec![
            ("per second, alone", Unit::Count),
            ("loss with `record`", Unit::Percent),
            ("loss with `tcpstates`", Unit::Percent),
            ("events lost by `record`", Unit::Count),
        ],
        rows,
    });
    Ok(())
}

fn rate(churned: &Churned) -> f64 {
    churned.connections / churned.seconds
}

fn cpu_per_connection(churned: &Churned) -> f64 {
    churned.cpu_ns / churned.connections
}

/// What the load lost of its rate, of a hundred.
fn loss(measured: &Measured, tool: usize) -> Option<Spread> {
    let with = measured.of(tool, |beside| Some(rate(&beside.churned)));
    paired(&with, &measured.alone(rate), |with, alone| {
        (1.0 - with / alone) * 100.0
    })
}

fn spread(rounds: &Rounds) -> Option<Spread> {
    Spread::of(rounds.iter().flatten().copied())
}

/// Seconds of a tool's processor time per million events.
fn agent(beside: &Beside) -> Option<f64> {
    Some(beside.cpu_ns? / (beside.churned.connections * EVENTS) / 1000.0)
}

/// ns of all of a tool's programs per event.
fn ns_per_event(beside: &Beside) -> Option<f64> {
    Some(beside.ran?.0 / (beside.churned.connections * EVENTS))
}

fn costs(title: String, tools: &[Tool], measured: &Measured) -> Table {
    let alone = measured.alone(rate);
    let cpu_alone = measured.alone(cpu_per_connection);
    let row = |figures: [Option<Spread>; 9]| figures.to_vec();
    let nothing = row([
        spread(&alone),
        None,
        Spread::one(1.0),
        None,
        None,
        None,
        None,
        spread(&measured.alone(|c| c.p50_ns / 1000.0)),
        spread(&measured.alone(|c| c.p99_ns / 1000.0)),
    ]);
    let mut rows = vec![("nothing".to_owned(), nothing)];
    for (index, tool) in tools.iter().enumerate() {
        let of = |figure: fn(&Beside) -> Option<f64>| measured.of(index, figure);
        let lost = spread(&of(|beside| beside.lost));
        let cpu = of(|beside| Some(cpu_per_connection(&beside.churned)));
        let counted = measured.counted(index);
        let figures = row([
            spread(&of(|beside| Some(rate(&beside.churned)))),
            loss(measured, index),
            paired(&cpu, &cpu_alone, |with, alone| with / alone),
            paired(&cpu, &cpu_alone, |with, alone| (with - alone) / 1000.0),
            spread(&of(agent)),
            counted.and_then(ns_per_event).and_then(Spread::one),
            lost.or_else(|| counted?.lost.and_then(Spread::one)),
            spread(&of(|beside| Some(beside.churned.p50_ns / 1000.0))),
            spread(&of(|beside| Some(beside.churned.p99_ns / 1000.0))),
        ]);
        rows.push((tool.name.clone(), figures));
    }
    Table {
        title,
        subject: "beside",
        columns: vec![
            ("connections/s", Unit::Count),
            ("loss", Unit::Percent),
            ("CPU per connection", Unit::Ratio),
            ("more of it", Unit::Micros),
            ("own CPU per million events", Unit::Seconds),
            ("BPF ns per event", Unit::Nanos),
            ("events lost", Unit::Count),
            ("p50", Unit::Micros),
            ("p99", Unit::Micros),
        ],
        rows,
    }
}

fn weights(tools: &[Tool], measured: &Measured) -> Table {
    const MEBIBYTE: f64 = 1_048_576.0;
    let rows = tools.iter().enumerate().map(|(index, tool)| {
        let resident = measured.of(index, |beside| Some(beside.resident? / MEBIBYTE));
        let maps = measured.of(index, |beside| Some(beside.map_bytes / MEBIBYTE));
        (tool.name.clone(), vec![spread(&resident), spread(&maps)])
    });
    Table {
        title: "Memory after it".to_owned(),
        subject: "tool",
        columns: vec![
            ("resident", Unit::Mebibytes),
            ("maps in the kernel", Unit::Mebibytes),
        ],
        rows: rows.collect(),
    }
}

fn programs(tool: &Tool, counted: Option<&Beside>) -> Table {
    let rows = counted.into_iter().flat_map(|beside| {
        beside.programs.iter().map(|(name, ns, runs)| {
            let figures = [runs / beside.churned.connections, ns / runs];
            (format!("`{name}`"), figures.map(Spread::one).to_vec())
        })
    });
    Table {
        title: format!("Programs of {}", tool.name),
        subject: "program",
        columns: vec![
            ("runs per connection", Unit::Tenths),
            ("ns per run", Unit::Nanos),
        ],
        rows: rows.collect(),
    }
}

/// What stacks cost, against the same without: tools 2 and 1.
fn stacks(measured: &Measured) -> Table {
    let compared = |figure: fn(&Beside) -> Option<f64>| {
        let (with, without) = (measured.of(2, figure), measured.of(1, figure));
        paired(&with, &without, |with, without| with / without)
    };
    let figures = vec![
        compared(|beside| Some(cpu_per_connection(&beside.churned))),
        compared(|beside| Some(beside.cpu_ns? / beside.churned.connections)),
    ];
    Table {
        title: "Stacks".to_owned(),
        subject: "ratio",
        columns: vec![
            ("CPU per connection", Unit::Ratio),
            ("own CPU per connection", Unit::Ratio),
        ],
        rows: vec![(format!("`{STACKS}` to `{EVERYTHING}`"), figures)],
    }
}

fn targets(measured: &Measured, results: &mut Results) {
    let (watch, record, tcpstates) = (0, 1, 4);
    let mut target = |measure: &str, most, unit, found| {
        results.targets.push(Target {
            measure: measure.to_owned(),
            bound: Bound::AtMost(most),
            unit,
            found,
        });
    };
    let all = loss(measured, record);
    target(
        "churn loss, every transition recorded",
        5.0,
        Unit::Percent,
        all,
    );
    let peer = loss(measured, tcpstates);
    let part = all
        .zip(peer)
        .map(|(ours, peer)| ours.median.max(0.0) / peer.median);
    let part = part.and_then(Spread::one);
    target(
        "the same, of the loss with `tcpstates`",
        0.1,
        Unit::Ratio,
        part,
    );
    let healthy = loss(measured, watch);
    target(
        "churn loss, `watch --state close_wait`",
        2.0,
        Unit::Percent,
        healthy,
    );
    let state = measured.counted(record).and_then(|beside| {
        let is_state = |name: &str| name.starts_with("state") && !name.contains("shadow");
        let all = beside.programs.iter();
        let (_, ns, runs) = all.into_iter().find(|(name, ..)| is_state(name))?;
        Spread::one(ns / runs)
    });
    target(
        "BPF time of a state event, without a stack",
        200.0,
        Unit::Nanos,
        state,
    );
    let cpu = |tool| spread(&measured.of(tool, agent));
    target(
        "own CPU per million events, `watch`",
        0.08,
        Unit::Seconds,
        cpu(watch),
    );
    target(
        "own CPU per million events, `record`",
        0.10,
        Unit::Seconds,
        cpu(record),
    );
    let lost = spread(&measured.of(record, |beside| beside.lost));
    target("events lost by `record`", 0.0, Unit::Count, lost);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_one_by_what_is_chosen() {
        let doctor = serde_json::json!({"can_run": true, "plan": {"events": [
            {"event": "state", "candidates": [{"mechanism": "kprobe", "decision": "chosen"}]},
            {"event": "minisocket", "candidates": [
                {"mechanism": "fentry", "decision": "rejected"},
                {"mechanism": "tp_btf", "decision": "chosen"},
            ]},
        ]}});
        assert!(is_chain(&doctor, "tp_btf"));
        assert!(!is_chain(&doctor, "fentry") && !is_chain(&doctor, "kprobe"));
    }
}
