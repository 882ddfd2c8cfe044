//! Whatever mechanisms the kernel is watched with, they tell the same story.

use std::collections::BTreeMap;

use tcptrace_tests::kernel::jiffy_ns;
use tcptrace_tests::lab::Lab;
use tcptrace_tests::oracle::ss;
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::{Run, Tracer, chosen, doctor_of};

/// Mechanisms, and by which of them minisockets must come for the chain to be what it says.
const CHAINS: [(&str, &str); 4] = [
    ("fentry,tp_btf,raw_tp,iter,proc", "fentry"),
    ("kprobe,raw_tp,iter,proc,accept=kprobe", "kprobe"),
    ("tp_btf,raw_tp,tracepoint,iter,proc", "tp_btf"),
    ("state=raw_tp,accept=raw_tp,minisocket=tp_btf", "tp_btf"),
];

#[test]
fn all_chains_of_this_kernel_tell_the_same_of_the_same_sockets() {
    require!(root, tracer, ss);
    let there = CHAINS.iter().filter(|(hooks, minisocket)| {
        let doctor = doctor_of(hooks);
        doctor["can_run"] == true && chosen(&doctor, "minisocket") == *minisocket
    });
    let there: Vec<&str> = there.map(|(hooks, _)| *hooks).collect();
    assert!(there.len() >= 2, "only {there:?} can run here");

    let lab = Lab::new();
    let netns = lab.ns.inode().to_string();
    let args = ["--netns", &netns, "--state", "all", "--transitions"];
    let watches: Vec<Tracer> = there
        .iter()
        .map(|hooks| Tracer::watch(&[&args[..], &["--hooks", hooks]].concat()))
        .collect();
    let last = sockets_of_all_kinds(&lab);
    let runs: Vec<Run> = watches
        .into_iter()
        .map(|watch| {
            watch.left(&last, "fin_wait2");
            watch.stop()
        })
        .collect();

    let first = story(&runs[0]);
    assert!(first.len() >= 12, "{first:#?}");
    for (run, hooks) in runs.iter().zip(&there) {
        assert!(run.complete(), "{hooks}: {}", run.summary);
        let told = story(run);
        let causes = |story: &Story| -> Vec<_> {
            let steps = story.iter().map(|(id, steps)| {
                let steps = steps.iter().map(|(step, _)| step.clone());
                (id.clone(), steps.collect::<Vec<_>>())
            });
            steps.collect()
        };
        assert_eq!(causes(&told), causes(&first), "{hooks}");
        for (id, steps) in &told {
            for ((step, duration), (_, other)) in steps.iter().zip(&first[id]) {
                let (Some(duration), Some(other)) = (duration, other) else {
                    continue;
                };
                let apart = duration.abs_diff(*other);
                assert!(apart <= jiffy_ns(), "{hooks}: {id} {step}: {apart} ns");
            }
        }
    }
}

/// Every kind of life and death that takes no waiting. The id of a socket whose end is the last
/// that happens.
fn sockets_of_all_kinds(lab: &Lab) -> String {
    // Both close, the client first.
    let mut plain = lab.connect();
    plain.client.act("close C");
    plain.server.act("wait S 8");
    plain.server.act("close S");
    // Both close at once.
    lab.connect().cross_fins();
    // Half-closed, then reset by the peer.
    let mut half = lab.connect();
    half.client.act("shutdown C wr");
    half.client.act("wait C 5");
    half.server.act("linger S 0");
    half.server.act("close S");
    half.client.act("wait C 7");
    half.client.act("close C");
    // Destroyed from outside, in ESTABLISHED.
    let mut destroyed = lab.connect();
    ss::destroy(&lab.ns, &destroyed.c);
    destroyed.client.act("wait C 7");
    destroyed.client.act("close C");
    // Never accepted: the listener takes it along.
    let (mut client, mut server) = (lab.peer(), lab.peer());
    let to = server.act(&format!("listen L {}:0", lab.ip)).local();
    client.act(&format!("connect C {to}"));
    server.act("close L");
    client.act("wait C 7");
    // An orphan's minisocket in FIN_WAIT_2, reset.
    let mut orphan = lab.connect();
    let close = orphan.client.act("close C");
    ss::wait(&lab.ns, &close, "fin_wait2");
    orphan.server.act("linger S 0");
    orphan.server.act("close S");
    ss::wait_gone(&lab.ns, &close);
    close.id().to_owned()
}

/// By connection: its steps with their causes, and how long each state lasted where that was seen.
type Story = BTreeMap<String, Vec<(String, Option<u64>)>>;

fn story(run: &Run) -> Story {
    let mut story = Story::new();
    for event in run.events.iter().filter(|e| e.is_transition()) {
        let step = format!(
            "{} -> {} by {}",
            event.text("old_state"),
            event.text("new_state"),
            event.text("cause")
        );
        let exact = event.value["estimated"] == false;
        let duration = event.value["duration_ns"].as_u64().filter(|_| exact);
        story
            .entry(event.id().to_owned())
            .or_default()
            .push((step, duration));
    }
    story
}
