//! Facts in, plans out.

use super::*;
use crate::kernel::capability::{Capability, grant};
use crate::kernel::known::{HOST, KNOWN};

fn host() -> Facts {
    HOST.facts()
}

fn no(why: &str) -> Fact {
    Fact::No(why.into())
}

/// The plan as few lines, or the refusal.
fn told(facts: &Facts, hooks: Option<&[Mechanism]>) -> String {
    let hooks = hooks.map(|hooks| hooks.iter().copied().collect());
    let (mut text, events) = match plan(
        facts,
        &PlanOptions {
            hooks,
            ..PlanOptions::default()
        },
    ) {
        Ok(plan) => {
            let estimated: Vec<_> = plan.estimated.iter().map(|e| format!("~ {e}\n")).collect();
            (
                format!("mode {}\n{}", plan.mode, estimated.concat()),
                plan.events,
            )
        }
        Err(refusal) => (format!("{refusal}\n"), refusal.events),
    };
    for event in events {
        for c in event.candidates {
            let hooks = c.hooks.join(" ");
            let (event, mechanism) = (event.event, c.mechanism);
            text += &match c.decision {
                Decision::Chosen => format!("+ {event:10} {mechanism:10} {hooks}\n"),
                Decision::Spare => format!("  {event:10} {mechanism:10} {hooks}\n"),
                Decision::Rejected(why) => format!("- {event:10} {mechanism:10} {hooks}: {why}\n"),
            };
        }
    }
    text
}

#[test]
fn each_known_kernel_has_its_plan() {
    for kernel in &KNOWN {
        let facts = kernel.facts();
        let chosen = |hooks: &str| {
            let options = match hooks {
                "" => PlanOptions::default(),
                hooks => PlanOptions::parse(hooks.split(',')).unwrap(),
            };
            let plan = plan(&facts, &options);
            let mut text = format!("{hooks}\n");
            match plan {
                Ok(plan) => {
                    text += &format!("    mode {}\n", plan.mode);
                    for event in &plan.events {
                        let chosen = event.chosen();
                        let by = chosen.map_or("nothing".to_owned(), |c| c.mechanism.to_string());
                        let hooks = chosen.map_or(String::new(), |c| c.hooks.join(", "));
                        text += &format!("    {:10} {by:10} {hooks}\n", event.event);
                    }
                }
                Err(refusal) => text += &format!("    {refusal}\n"),
            }
            text
        };
        let plans = [
            "",
            "kprobe,raw_tp,iter,proc,accept=kprobe",
            "tp_btf,raw_tp,tracepoint,iter,proc",
        ];
        insta::assert_snapshot!(kernel.snapshot(), plans.map(chosen).concat());
    }
}

#[test]
fn the_host_is_traced_in_full() {
    insta::assert_snapshot!(told(&host(), None));
}

#[test]
fn without_tracefs_accept_comes_from_every_system_call() {
    let tracefs = no("/sys/kernel/tracing/events cannot be read");
    let accept_tracepoints = Fact::Unknown("not looked for, without tracefs".into());
    insta::assert_snapshot!(told(
        &Facts {
            tracefs,
            accept_tracepoints,
            ..host()
        },
        None
    ));
}

#[test]
fn without_addresses_minisockets_are_sampled() {
    let facts = Facts {
        timer_address: no("kernel addresses are hidden"),
        ..host()
    };
    insta::assert_snapshot!(told(&facts, None));
}

#[test]
fn without_btf_sockets_are_polled() {
    let unknown = || Fact::Unknown("not tried, without BTF".into());
    let mut facts = Facts {
        btf: no("no /sys/kernel/btf/vmlinux: kernel without CONFIG_DEBUG_INFO_BTF"),
        offsets: no("no /sys/kernel/btf/vmlinux: kernel without CONFIG_DEBUG_INFO_BTF"),
        tp_btf: unknown(),
        socket_cookie: unknown(),
        skc_to_tcp_sock: unknown(),
        iter_task_file: unknown(),
        ..host()
    };
    for fact in facts.tracepoints.values_mut() {
        *fact = unknown();
    }
    insta::assert_snapshot!(told(&facts, None));
}

/// What a kernel has no use for is not asked of the administrator.
#[test]
fn only_kernels_that_lock_memory_take_the_right_to() {
    let granted = grant(&host(), false);
    assert_eq!(granted.least, "cap_bpf,cap_perfmon,cap_syslog+ep");
    assert!(!granted.all.contains("cap_sys_resource"));
    let old = grant(&KNOWN[0].facts(), true);
    let least = "cap_bpf,cap_perfmon,cap_syslog,cap_net_admin,cap_sys_resource+ep";
    assert_eq!(old.least, least);
    assert!(old.all.contains("cap_sys_resource"));
}

#[test]
fn without_privileges_the_fix_is_named() {
    let refused = || no("not permitted without CAP_BPF and CAP_PERFMON");
    let facts = Facts {
        capabilities: vec![],
        tp_btf: refused(),
        raw_tp: refused(),
        tracepoint: refused(),
        ring_buffer: refused(),
        socket_cookie: refused(),
        skc_to_tcp_sock: refused(),
        iter_task_file: refused(),
        cgroup_cookie: refused(),
        tracefs: no("tracefs is not mounted"),
        accept_tracepoints: Fact::Unknown("not looked for, without tracefs".into()),
        timer_address: no("kernel addresses are hidden"),
        ..host()
    };
    insta::assert_snapshot!(told(&facts, None));
}

#[test]
fn an_older_kernel_lacks_the_socket_of_a_drop_and_the_read() {
    let mut facts = Facts {
        drop_socket: no("kfree_skb passes 3 values, and no struct sock * as 4."),
        ..host()
    };
    let absent = no("this kernel has no tracepoint sock_recv_length");
    facts.tracepoints.insert("sock_recv_length".into(), absent);
    insta::assert_snapshot!(told(&facts, None));
}

#[test]
fn hooks_restrict_the_choice() {
    use Mechanism::{Proc, RawTp, TpBtf};
    insta::assert_snapshot!(told(&host(), Some(&[TpBtf, RawTp, Proc])));
}

#[test]
fn polling_may_be_asked_for() {
    insta::assert_snapshot!(told(&host(), Some(&[Mechanism::Netlink, Mechanism::Proc])));
}

#[test]
fn polling_is_no_way_around_missing_privileges() {
    let unprivileged = |offsets| Facts {
        capabilities: vec![],
        tp_btf: no("not permitted without CAP_BPF and CAP_PERFMON"),
        cgroup_cookie: no("not permitted without CAP_BPF and CAP_PERFMON"),
        offsets,
        ..host()
    };
    let options = PlanOptions::default();
    let refusal = plan(&unprivileged(Fact::Yes), &options).unwrap_err();
    assert!(refusal.why.contains("not permitted"), "{}", refusal.why);
    assert!(refusal.fix.contains("--hooks netlink"), "{}", refusal.fix);
    // No privilege would help here.
    let polled = plan(&unprivileged(no("no BTF")), &options).unwrap();
    assert_eq!(polled.mode, Mode::Netlink);
    // Nor does it have any more where lockdown forbids BPF.
    let locked = Facts {
        tp_btf: no("refused (EPERM), although we have the privileges"),
        cgroup_cookie: no("refused (EPERM), although we have the privileges"),
        ..host()
    };
    assert_eq!(plan(&locked, &options).unwrap().mode, Mode::Netlink);
    let blind = Facts {
        sock_diag: no("kernel without tcp_diag"),
        ..locked
    };
    assert!(plan(&blind, &options).is_err());
}

#[test]
fn hooks_without_the_state_event_are_refused_with_the_reason() {
    let refusal = plan(
        &host(),
        &PlanOptions {
            hooks: Some([Mechanism::Proc].into()),
            ..PlanOptions::default()
        },
    );
    let refusal = refusal.unwrap_err();
    assert_eq!(refusal.why, "tp_btf is not in --hooks");
    assert!(
        refusal
            .fix
            .starts_with("Add tp_btf, raw_tp or tracepoint to --hooks."),
        "{}",
        refusal.fix
    );
}

#[test]
fn the_loader_asks_by_event_and_by_hook() {
    let plan = plan(&host(), &PlanOptions::default()).unwrap();
    assert_eq!(
        plan.chosen(Event::Accept).unwrap().mechanism,
        Mechanism::Tracepoint
    );
    let hooks = |event| plan.chosen(event).map_or(&[][..], |c| c.hooks);
    assert!(hooks(Event::Minisocket).contains(&"kfree_skb"));
    assert!(!hooks(Event::Accept).contains(&"sys_exit"));
}

#[test]
fn mechanisms_are_read_as_they_are_written() {
    assert_eq!("raw_tp".parse(), Ok(Mechanism::RawTp));
    assert!("derived".parse::<Mechanism>().is_err());
}

#[test]
fn hooks_may_be_of_one_event() {
    let options = PlanOptions::parse(["state=raw_tp", "accept=raw_tp"]).unwrap();
    let plan = plan(&host(), &options).unwrap();
    let by = |event| plan.chosen(event).unwrap().mechanism;
    assert_eq!(by(Event::State), Mechanism::RawTp);
    assert_eq!(by(Event::Accept), Mechanism::RawTp);
    assert_eq!(by(Event::Minisocket), Mechanism::TpBtf);
    assert!(PlanOptions::parse(["sate=raw_tp"]).is_err());
    assert!(PlanOptions::parse(["state=raw"]).is_err());
}

#[test]
fn capabilities_allow_loading_in_two_ways() {
    let may = |capabilities| {
        Facts {
            capabilities,
            ..host()
        }
        .may_load()
    };
    assert!(may(vec![Capability::CapSysAdmin]));
    assert!(may(vec![Capability::CapBpf, Capability::CapPerfmon]));
    assert!(!may(vec![Capability::CapBpf]));
}
