//! `tcptrace doctor`: can it run here, how true is the result, and which settings matter.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use self::runtimes::Runtimes;
use super::page::{Grade, Page};
use crate::error::EXIT_CANNOT_RUN;
use crate::kernel::capability::{Capability, Grant, PRIVILEGES, Privilege, grant};
use crate::kernel::facts::Facts;
use crate::kernel::inspect::Kernel;
use crate::kernel::layout::Absence;
use crate::kernel::plan::{CannotRun, Decision, Event, EventPlan, Mechanism, Mode, Plan, plan};
use crate::kernel::sysctl::{self, Sysctl};
use crate::options::Doctor;
use crate::privileges;
use crate::source::cost::{Cost, measure};
use crate::source::self_check::{self, Checked};

mod cost;
mod runtimes;

/// Looks, judges, prints. The exit code is 0 when `watch` can run and 3 when it cannot.
///
/// # Errors
/// When the output cannot be written.
pub(crate) fn run(options: &Doctor) -> anyhow::Result<ExitCode> {
    let asked = super::plan_options(&options.hooks)?;
    let mut kernel = Kernel::inspect(options.btf.as_deref())?;
    kernel.look_for_timer();
    let mut plan = plan(&kernel.facts, &asked);
    let self_check = plan
        .as_mut()
        .ok()
        .filter(|plan| plan.mode != Mode::Netlink)
        .map(|plan| self_check::run(&mut kernel, plan, &asked));
    let cost = options
        .cost
        .map(|(states, span)| match (&plan, &self_check) {
            (Ok(plan), Some(Ok(_))) => measure(&mut kernel, plan, &asked, states, span),
            _ => Err("not measured, since no program is attached here".to_owned()),
        });
    let diagnosis = Diagnosis {
        runtimes: Runtimes::look(),
        sysctls: sysctl::read(Path::new("/proc")),
        btf_types: kernel.btf_types,
        btf_file: kernel.btf_file,
        absences: kernel.absences,
        facts: kernel.facts,
        plan,
        self_check,
        cost,
    };
    let text = match options.json {
        true => format!("{}\n", diagnosis.json()),
        false => diagnosis.text(options.terminal.width),
    };
    super::print(text.as_bytes())?;
    Ok(if diagnosis.can_run() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_CANNOT_RUN)
    })
}

/// All that is known, before it is put into words.
struct Diagnosis {
    facts: Facts,
    btf_types: usize,
    btf_file: Option<PathBuf>,
    absences: Vec<Absence>,
    plan: Result<Plan, CannotRun>,
    self_check: Option<Result<Checked, String>>,
    /// Where it was asked for.
    cost: Option<Result<Cost, String>>,
    sysctls: Vec<Sysctl>,
    runtimes: Runtimes,
}

impl Diagnosis {
    fn can_run(&self) -> bool {
        // As `watch` has it: nobody gives a BTF to have none.
        let foreign = self.btf_file.is_some() && !self.facts.offsets.is_yes();
        self.plan.is_ok() && !foreign && !matches!(self.self_check, Some(Err(_)))
    }

    fn mode(&self) -> Mode {
        match &self.plan {
            Ok(plan) if self.can_run() => plan.mode,
            _ => Mode::None,
        }
    }

    /// What `watch` has left of its privileges once everything is attached.
    fn kept(&self) -> Vec<Capability> {
        let owners = self
            .plan
            .as_ref()
            .ok()
            .and_then(|p| p.chosen(Event::Owners));
        let by_proc = owners.is_none_or(|c| c.mechanism == Mechanism::Proc);
        privileges::kept(&self.facts.capabilities, by_proc)
    }

    fn grant(&self) -> Grant {
        let state = self.plan.as_ref().ok().and_then(|p| p.chosen(Event::State));
        let traced = state.is_some_and(|c| c.mechanism != Mechanism::TpBtf);
        grant(&self.facts, traced || self.facts.memory_by_cgroup.is_no())
    }

    fn json(&self) -> serde_json::Value {
        let (plan, refusal) = match &self.plan {
            Ok(plan) => (json!(plan), None),
            Err(refusal) => (json!({ "events": refusal.events }), Some(refusal)),
        };
        let missing: Vec<_> = missing(&self.facts).collect();
        let Grant { least, all } = self.grant();
        json!({
            "type": "doctor",
            "mode": self.mode(),
            "can_run": self.can_run(),
            "why_not": refusal.map(|r| &r.why),
            "fix": refusal.map(|r| &r.fix),
            "facts": self.facts,
            "absent_fields": self.absences,
            "plan": plan,
            "self_check": self.self_check.as_ref().map(|result| match result {
                Ok(checked) => json!({ "ok": true, "what": checked.what }),
                Err(what) => json!({ "ok": false, "what": what }),
            }),
            "programs": match &self.self_check {
                Some(Ok(checked)) => json!(checked.programs),
                _ => json!(null),
            },
            "cost": self.cost.as_ref().map(|result| match result {
                Ok(cost) => cost.json(),
                Err(why) => json!({ "why_not": why }),
            }),
            "sysctls": self.sysctls,
            "runtimes": self.runtimes.json(),
            "privileges": {
                "missing": missing,
                "least": least,
                "setcap": all,
                "kept": self.kept(),
            },
        })
    }

    fn text(&self, width: Option<usize>) -> String {
        let Facts { release, hz, .. } = &self.facts;
        let hz = hz.map(|hz| format!(" · HZ {hz}")).unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION");
        let mut page = Page::new(width);
        page.plain(&format!(
            "tcptrace {version} · kernel {release}{hz} · mode {}",
            self.mode()
        ));
        self.facts_text(&mut page);
        self.plan_text(&mut page);
        match &self.self_check {
            Some(Ok(checked)) => page.line(Grade::Ok, &checked.what),
            Some(Err(what)) => page.line(Grade::Miss, what),
            None => {}
        }
        for privilege in missing(&self.facts) {
            let grade = if privilege.required {
                Grade::Miss
            } else {
                Grade::Warn
            };
            page.line(
                grade,
                &format!("no {}: {}", privilege.capability.name(), privilege.purpose),
            );
        }
        if missing(&self.facts).next().is_some() {
            let Grant { least, all } = self.grant();
            let grant = format!(
                "sudo setcap {all} \"$(command -v tcptrace)\" grants all; {least} is \
                 the least for exact durations"
            );
            page.line(Grade::Info, &grant);
        }
        if self.can_run() {
            let kept: Vec<_> = self.kept().into_iter().map(Capability::name).collect();
            let kept = match kept.is_empty() {
                true => "no capability".to_owned(),
                false => format!("only {}", kept.join(", ")),
            };
            page.line(
                Grade::Info,
                &format!(
                    "once attached, watch keeps {kept}, and CAP_BPF if the kernel asks for it"
                ),
            );
        }
        for Sysctl { name, value, note } in &self.sysctls {
            let name = name.rsplit('.').next().unwrap_or(name);
            page.line(
                Grade::Sysctl,
                &match value {
                    Some(value) => format!("{name} = {value}: {note}"),
                    None => format!("{name}: {note}"),
                },
            );
        }
        self.runtimes.text(&mut page);
        match &self.cost {
            Some(Ok(cost)) => cost::text(cost, &mut page),
            Some(Err(why)) => page.line(Grade::Miss, &format!("cost: {why}")),
            None => {}
        }
        match &self.plan {
            Ok(_) if self.can_run() => page.plain("tcptrace watch can run here."),
            Ok(_) => page.plain(
                "tcptrace watch cannot run here: what the programs read is not what the kernel \
                 has. Please report this kernel. `tcptrace watch --hooks netlink` and `tcptrace \
                 snapshot` work without BPF.",
            ),
            Err(refusal) => page.plain(&format!(
                "tcptrace watch cannot run here: {}. {}",
                refusal.why, refusal.fix
            )),
        }
        page.text
    }

    fn facts_text(&self, page: &mut Page) {
        let facts = &self.facts;
        let types = self.btf_types;
        let of = match &self.btf_file {
            Some(file) => format!("BTF of {}", file.display()),
            None => "BTF".to_owned(),
        };
        match facts.offsets.why_not() {
            None => page.line(
                Grade::Ok,
                &format!("{of}: {types} types, all offsets found"),
            ),
            Some(why) => page.line(Grade::Miss, &format!("{of}: {why}")),
        }
        if let (Some(_), Some(why)) = (&self.btf_file, facts.btf.why_not()) {
            let text = format!("the kernel has no BTF of its own, and so no tp_btf: {why}");
            page.line(Grade::Miss, &text);
        }
        let parts = [
            ("tp_btf", &facts.tp_btf, Grade::Miss),
            ("ring buffer", &facts.ring_buffer, Grade::Miss),
            ("socket cookies", &facts.socket_cookie, Grade::Miss),
            ("raw_tp", &facts.raw_tp, Grade::Warn),
            ("tracepoint", &facts.tracepoint, Grade::Warn),
            ("tracefs", &facts.tracefs, Grade::Warn),
            ("task_file iterator", &facts.iter_task_file, Grade::Warn),
            (
                "address of tw_timer_handler",
                &facts.timer_address,
                Grade::Warn,
            ),
            ("sock_diag", &facts.sock_diag, Grade::Miss),
        ];
        let works: Vec<_> = parts.iter().filter(|p| p.1.is_yes()).map(|p| p.0).collect();
        if !works.is_empty() {
            page.line(Grade::Ok, &works.join(", "));
        }
        // One reason is told once, however much it forbids.
        let mut refusals: Vec<(&str, Grade, Vec<&str>)> = Vec::new();
        for (name, fact, grade) in parts {
            let Some(why) = fact.why_not() else { continue };
            match refusals.iter_mut().find(|r| r.0 == why) {
                Some((_, _, names)) => names.push(name),
                None => refusals.push((why, grade, vec![name])),
            }
        }
        for (why, grade, names) in refusals {
            page.line(grade, &format!("no {}: {why}", names.join(", ")));
        }
        for (name, fact) in [("fentry", &facts.fentry), ("kprobes", &facts.kprobe)] {
            if let Some(why) = fact.why_not() {
                page.line(Grade::Info, &format!("no {name}: {why}; not needed"));
            }
        }
        let settings = &facts.settings;
        if settings.kptr_restrict == Some(2) {
            page.line(
                Grade::Warn,
                "kernel.kptr_restrict = 2 hides addresses even from root: set it to 1",
            );
        }
        if let Some(lockdown) = settings.lockdown.as_deref().filter(|l| *l != "none") {
            page.line(
                Grade::Info,
                &format!("the kernel is locked down ({lockdown})"),
            );
        }
    }

    /// Nothing without a plan: then the last line says why.
    fn plan_text(&self, page: &mut Page) {
        let Ok(plan) = &self.plan else { return };
        // Where all is polled, the other events have one reason, which is told below.
        let polls = plan.mode == Mode::Netlink;
        let told = plan
            .events
            .iter()
            .filter(|e| !polls || e.chosen().is_some());
        for event in told {
            plan_line(event, page);
        }
        for estimated in &plan.estimated {
            page.line(Grade::Warn, &format!("~ {estimated}"));
        }
    }
}

/// The choice for one event, and what the refusal of better ones costs.
fn plan_line(event: &EventPlan, page: &mut Page) {
    let name = event.event;
    let Some(chosen) = event.chosen() else {
        let mut reasons: Vec<&str> = Vec::new();
        for candidate in &event.candidates {
            match &candidate.decision {
                Decision::Rejected(why) if !reasons.contains(&why.as_str()) => reasons.push(why),
                _ => {}
            }
        }
        let text = format!("{name}: {}", reasons.join("; "));
        page.line(Grade::Miss, &text);
        return;
    };
    let hooks = chosen.hooks.join(", ");
    page.line(
        Grade::Plan,
        &match chosen.mechanism {
            Mechanism::Derived => format!("{name}: told by {hooks}"),
            mechanism => format!("{name}: {mechanism} {hooks}"),
        },
    );
    let better = event.candidates.iter().take_while(|c| *c != chosen);
    let refused: Vec<String> = better
        .filter_map(|c| match &c.decision {
            Decision::Rejected(why) => Some(format!("not by {}: {why}", c.mechanism)),
            _ => None,
        })
        .collect();
    if refused.is_empty() {
        return;
    }
    let (grade, cost) = match chosen.cost {
        Some(cost) => (Grade::Warn, cost),
        None => (Grade::Info, "nothing is lost"),
    };
    let refused = refused.join("; ");
    page.line(grade, &format!("{name}, {refused}; {cost}"));
}

/// The privileges that are not held, of those that would change something.
fn missing(facts: &Facts) -> impl Iterator<Item = Privilege> {
    let held = |cap| match cap {
        // Before 5.8 CAP_SYS_ADMIN was all of these, and it still includes them.
        Capability::CapBpf | Capability::CapPerfmon => facts.may_load() || facts.has(cap),
        Capability::CapSyslog => facts.has(cap) || facts.timer_address.is_yes(),
        Capability::CapNetAdmin => {
            facts.has(cap) || !facts.may_load() || facts.socket_cookie.is_yes()
        }
        Capability::CapSysResource => facts.has(cap) || !facts.memory_by_cgroup.is_no(),
        cap => facts.has(cap),
    };
    PRIVILEGES.into_iter().filter(move |p| !held(p.capability))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::facts::Fact;
    use crate::kernel::known::HOST;

    fn diagnosis(change: impl FnOnce(&mut Facts)) -> Diagnosis {
        let mut facts = HOST.facts();
        change(&mut facts);
        let note = "ends FIN_WAIT_2 of closed sockets only".to_owned();
        Diagnosis {
            plan: plan(&facts, &crate::kernel::plan::PlanOptions::default()),
            facts,
            btf_types: 126_689,
            btf_file: None,
            absences: vec![],
            self_check: Some(Ok(Checked {
                what: "self-check: 127.0.0.1 was seen as it is".into(),
                programs: vec![],
            })),
            sysctls: vec![Sysctl {
                name: "net.ipv4.tcp_fin_timeout",
                value: Some("60".into()),
                note,
            }],
            cost: None,
            runtimes: Runtimes::default(),
        }
    }

    /// A user's process, with nothing granted.
    fn unprivileged(facts: &mut Facts) {
        let refused = || Fact::No("not permitted without CAP_BPF and CAP_PERFMON".into());
        facts.capabilities = vec![];
        facts.tp_btf = refused();
        facts.raw_tp = refused();
        facts.tracepoint = refused();
        facts.ring_buffer = refused();
        facts.socket_cookie = refused();
        facts.iter_task_file = refused();
        facts.timer_address = Fact::No("kernel addresses are hidden".into());
    }

    #[test]
    fn a_good_kernel_takes_a_screen() {
        insta::assert_snapshot!(diagnosis(|_| ()).text(Some(80)));
    }

    #[test]
    fn an_unprivileged_user_reads_what_to_do_even_in_forty_columns() {
        let diagnosis = diagnosis(unprivileged);
        assert!(!diagnosis.can_run());
        insta::assert_snapshot!(diagnosis.text(Some(40)));
    }

    #[test]
    fn a_step_down_says_what_it_costs() {
        let text = diagnosis(|facts| {
            facts.timer_address = Fact::No("kernel addresses are hidden".into());
            facts.accept_tracepoints = Fact::No("tracefs is closed to us".into());
            facts.capabilities.retain(|c| *c != Capability::CapSyslog);
        });
        insta::assert_snapshot!(text.text(Some(80)));
    }

    #[test]
    fn without_bpf_it_polls_and_says_so() {
        let mut diagnosis = diagnosis(|facts| {
            let no = || Fact::No("no /sys/kernel/btf/vmlinux".into());
            (facts.btf, facts.offsets) = (no(), no());
            facts.tp_btf = Fact::Unknown("not tried, without BTF".into());
            facts.iter_task_file = Fact::Unknown("not tried, without BTF".into());
        });
        diagnosis.self_check = None;
        assert!(diagnosis.can_run());
        assert_eq!(diagnosis.json()["mode"], "netlink");
        insta::assert_snapshot!(diagnosis.text(Some(80)));
    }

    #[test]
    fn a_failed_self_check_is_a_refusal() {
        let mut diagnosis = diagnosis(|_| ());
        diagnosis.self_check = Some(Err("self-check: port 0 was seen instead of 4242".into()));
        assert!(!diagnosis.can_run());
        let text = diagnosis.text(None);
        assert!(text.contains("MISS   self-check: port 0"), "{text}");
        assert_eq!(diagnosis.json()["mode"], "none");
    }

    #[test]
    fn json_is_one_object_with_the_documented_fields() {
        let json = diagnosis(unprivileged).json();
        assert_eq!(json["type"], "doctor");
        assert_eq!(json["mode"], "none");
        assert_eq!(json["can_run"], false);
        assert_eq!(json["facts"]["tp_btf"]["answer"], "no");
        assert_eq!(
            json["plan"]["events"][0]["candidates"][0]["decision"],
            "rejected"
        );
        assert_eq!(json["privileges"]["missing"][0]["capability"], "CAP_BPF");
        assert_eq!(json["sysctls"][0]["name"], "net.ipv4.tcp_fin_timeout");
        assert!(!json.to_string().contains('\n'));
    }

    #[test]
    fn nothing_is_wider_than_the_terminal_but_a_long_word() {
        let text = diagnosis(unprivileged).text(Some(40));
        let long = |line: &&str| line.chars().count() > 40 && line.trim().contains(' ');
        assert_eq!(text.lines().find(long), None);
    }
}
