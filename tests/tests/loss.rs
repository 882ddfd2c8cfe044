//! Nothing is lost in silence: bursts, and leaks by the ten thousand.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tcptrace_tests::kernel::jiffy_ns;
use tcptrace_tests::lab::Lab;
use tcptrace_tests::pace::scaled;
use tcptrace_tests::peer::Crowd;
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::{Event, Run};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_burst_is_accounted_for() {
    require!(root, tracer);
    burst(scaled(200_000), &[]);
}

#[test]
fn a_burst_is_accounted_for_with_every_transition_printed() {
    require!(root, tracer);
    burst(scaled(50_000), &["--state", "all", "--transitions"]);
}

/// Every connection of the burst is once in each of the three states: the summary counts them
/// all, or says how many events it missed.
#[track_caller]
fn burst(count: u64, args: &[&str]) {
    let lab = Lab::new();
    lab.ns.sysctl("tcp_max_tw_buckets", "1000000");
    let watch = lab.watch(args);
    let ip = lab.ip.to_string();
    let mut crowd = Crowd::start(&lab.ns, &["burst", &ip, &count.to_string(), "4"]);
    let truth = crowd.truth(3 * MINUTE);
    assert_eq!(truth["count"], count);
    let run = watch.stop_within(MINUTE);
    crowd.exit();

    for state in ["close_wait", "fin_wait2", "time_wait"] {
        let entered = run.count(state, "before") + run.count(state, "entered");
        assert!(entered <= count, "{state}: {}", run.summary);
        assert_missing(&run, count - entered, state);
        let balance = run.count(state, "left") + run.count(state, "open");
        assert_eq!(entered, balance, "{state}: {}", run.summary);
    }
    if run.complete() {
        // Nothing was there when the tracer said that it watches.
        assert_eq!(run.count("close_wait", "before"), 0, "{}", run.summary);
        assert_eq!(run.count("close_wait", "left"), count);
        assert_eq!(run.count("fin_wait2", "left"), count);
        if run.events.iter().any(Event::is_transition) {
            let left = |e: &&Event| e.is_transition() && e.value["old_state"] == "close_wait";
            assert_eq!(run.events.iter().filter(left).count() as u64, count);
        }
    }
}

/// So many are missing only if the summary says so.
#[track_caller]
fn assert_missing(run: &Run, missing: u64, what: &str) {
    match run.complete() {
        true => assert_eq!(missing, 0, "{what}, yet complete: {}", run.summary),
        false => {
            let said = run.missed() + run.completeness("reconciled");
            assert!(missing <= said, "{what}: {}", run.summary);
        }
    }
}

#[test]
fn leaks_of_before_and_after_the_start_are_all_listed() {
    require!(root, tracer);
    let each = scaled(15_000);
    let lab = Lab::new();
    let ip = lab.ip.to_string();
    let leak = || {
        let crowds = [(); 2].map(|()| Crowd::start(&lab.ns, &["leak", &ip, &each.to_string()]));
        for crowd in &crowds {
            crowd.wait_for("done", 2 * MINUTE);
        }
        crowds
    };
    let old = leak();
    let watch = lab.watch(&["--state", "close_wait", "--min-age", "500ms"]);
    let new = leak();

    let truths: Vec<Value> = old.iter().chain(&new).flat_map(Crowd::truths).collect();
    assert_eq!(truths.len() as u64, 4 * each);
    let mut begins: BTreeMap<(String, String), (u64, u64)> = truths.iter().map(read).collect();
    for crowd in &new {
        let last = crowd.truths().last().map(read).expect("leaks").0;
        watch.wait_long_for("the last leak", MINUTE, |e| {
            e.kind() == "stuck" && (e.text("local"), e.text("remote")) == last
        });
    }
    let run = watch.stop_within(MINUTE);

    // No socket is older, when its line is read, than it can be, and none has no age.
    let slack = 2_000_000 + 2 * jiffy_ns();
    let mut ownerless = 0;
    for event in run.events.iter().filter(|e| e.kind() == "stuck") {
        let ends = (event.text("local"), event.text("remote"));
        let begin = begins.remove(&ends).expect("a leak, listed once");
        let age = event.number("age_ns");
        assert!(age > 0 && age <= event.at - begin.0 + slack, "{event:?}");
        ownerless += u64::from(event.value["fd"].is_null());
    }
    assert_missing(&run, begins.len() as u64, "leaks");
    assert_eq!(
        run.count("close_wait", "open"),
        4 * each - begins.len() as u64
    );
    assert_eq!(run.count("close_wait", "left"), 0);
    assert_eq!(ownerless, 0, "of {} sockets nobody knew whose", 4 * each);
}

/// The ends of a leaked socket, and when it came into CLOSE_WAIT.
fn read(truth: &Value) -> ((String, String), (u64, u64)) {
    let text = |key: &str| truth[key].as_str().expect("an end").to_owned();
    let time = |n: usize| truth["begin"][n].as_u64().expect("ns");
    ((text("local"), text("remote")), (time(0), time(1)))
}
