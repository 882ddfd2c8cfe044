//! What stacks would tell of the processes that hold TCP sockets now.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tcptrace_core::state::StateSet;
use tcptrace_python::{FindError, Interpreter};
use tcptrace_stacks::{Program, Runtime};

use super::super::page::{Grade, Page};
use crate::netns;
use crate::proc;

/// Processes that are looked at.
const MAX_PROCESSES: usize = 256;

/// Processes of a kind that are named.
const NAMES: usize = 3;

/// The processes that hold TCP sockets.
#[derive(Debug, Default)]
pub(super) struct Runtimes {
    processes: Vec<Process>,
    /// There are so many more.
    more: usize,
}

#[derive(Debug)]
struct Process {
    pid: u32,
    comm: String,
    kind: Kind,
}

/// What its frames are found and named by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// With frames of the very moment, or read some time after.
    Python {
        version: String,
        exact: bool,
    },
    /// A Python whose frames are not found; why.
    UnknownPython(String),
    Node {
        perf_map: bool,
    },
    Java {
        perf_map: bool,
    },
    Go,
    Native {
        unwind_tables: bool,
    },
    /// It could not be looked at.
    Unreadable,
}

impl Runtimes {
    /// Looks at them.
    pub(super) fn look() -> Runtimes {
        let holders = holders();
        let more = holders.len().saturating_sub(MAX_PROCESSES);
        let looked_at = holders.into_iter().take(MAX_PROCESSES);
        Runtimes {
            processes: looked_at
                .map(|(pid, comm)| Process {
                    pid,
                    comm,
                    kind: Kind::of(pid),
                })
                .collect(),
            more,
        }
    }

    pub(super) fn json(&self) -> Value {
        let processes = self.processes.iter().map(Process::json);
        json!({
            "processes": processes.collect::<Vec<_>>(),
            "not_looked_at": self.more,
        })
    }

    /// A line for each kind.
    pub(super) fn text(&self, page: &mut Page) {
        let mut kinds: BTreeMap<&Kind, Vec<&Process>> = BTreeMap::new();
        for process in &self.processes {
            kinds.entry(&process.kind).or_default().push(process);
        }
        for (kind, processes) in kinds {
            let names = processes.iter().take(NAMES);
            let names: Vec<String> = names.map(|p| format!("{}[{}]", p.comm, p.pid)).collect();
            let mut names = names.join(", ");
            if let Some(more) = processes.len().checked_sub(NAMES).filter(|more| *more > 0) {
                names.push_str(&format!(" and {more} more"));
            }
            let what = kind.what();
            let text = match kind.advice() {
                Some(advice) => format!("stacks of {names}: {what}; {advice}"),
                None => format!("stacks of {names}: {what}"),
            };
            page.line(kind.grade(), &text);
        }
        if self.more > 0 {
            let text = format!(
                "{} more processes with TCP sockets were not looked at",
                self.more
            );
            page.line(Grade::Info, &text);
        }
    }
}

/// The processes that hold TCP sockets, in the order of their ids. What may not be seen is left out.
fn holders() -> BTreeMap<u32, String> {
    let owners = proc::holders().unwrap_or_default();
    let mut inodes = BTreeSet::new();
    for namespace in netns::all()
        .map(|found| found.namespaces)
        .unwrap_or_default()
    {
        if let Ok(mut inside) = namespace.look_inside() {
            // A dump that fails in its midst leaves what it has told.
            let _ = inside.diag.dump(StateSet::all(), &mut |socket| {
                inodes.insert(socket.inode);
            });
        }
    }
    let holders = inodes.into_iter().flat_map(|inode| owners.of(inode));
    holders
        .map(|holder| (holder.pid, holder.comm.to_text()))
        .collect()
}

impl Kind {
    fn of(pid: u32) -> Kind {
        let Some(Program { runtime, perf_map }) = Program::of(pid) else {
            return Kind::Unreadable;
        };
        match runtime {
            Runtime::Java => Kind::Java { perf_map },
            Runtime::Node => Kind::Node { perf_map },
            Runtime::Go => Kind::Go,
            Runtime::Native { unwind_tables } => match Interpreter::open(pid) {
                Ok(interpreter) => Kind::Python {
                    version: interpreter.version().to_string(),
                    exact: interpreter.kernel_walk().is_ok(),
                },
                Err(FindError::NotPython) => Kind::Native { unwind_tables },
                Err(FindError::Denied | FindError::Gone) => Kind::Unreadable,
                Err(why) => Kind::UnknownPython(why.to_string()),
            },
        }
    }

    fn grade(&self) -> Grade {
        match self {
            Kind::Python { exact: true, .. }
            | Kind::Node { perf_map: true }
            | Kind::Java { perf_map: true }
            | Kind::Go
            | Kind::Native {
                unwind_tables: true,
            } => Grade::Ok,
            Kind::Unreadable => Grade::Info,
            _ => Grade::Warn,
        }
    }

    fn what(&self) -> String {
        match self {
            Kind::Python {
                version,
                exact: true,
            } => format!("CPython {version}, with its functions and lines"),
            Kind::Python {
                version,
                exact: false,
            } => format!("CPython {version}, with its functions as they are some time after (~)"),
            Kind::UnknownPython(why) => format!("no functions of Python: {why}"),
            Kind::Node { perf_map: true } => "Node.js with a perf map".to_owned(),
            Kind::Node { perf_map: false } => {
                "Node.js without a perf map: no functions of JavaScript".to_owned()
            }
            Kind::Java { perf_map: true } => "Java with a perf map".to_owned(),
            Kind::Java { perf_map: false } => {
                "Java without a perf map: no functions of Java".to_owned()
            }
            Kind::Go => "Go, with its functions and lines".to_owned(),
            Kind::Native {
                unwind_tables: true,
            } => "by unwind tables".to_owned(),
            Kind::Native {
                unwind_tables: false,
            } => "no unwind tables: by frame pointers, frames may be missing".to_owned(),
            Kind::Unreadable => "gone, not readable, or not of x86-64".to_owned(),
        }
    }

    fn advice(&self) -> Option<&'static str> {
        match self {
            Kind::Node { perf_map: false } => Some("start it with --perf-basic-prof"),
            Kind::Java { perf_map: false } => {
                Some("`jcmd PID Compiler.perfmap` writes one (JDK 17 or later)")
            }
            _ => None,
        }
    }

    fn name(&self) -> Option<&'static str> {
        match self {
            Kind::Python { .. } | Kind::UnknownPython(_) => Some("python"),
            Kind::Node { .. } => Some("node"),
            Kind::Java { .. } => Some("java"),
            Kind::Go => Some("go"),
            Kind::Native { .. } => Some("native"),
            Kind::Unreadable => None,
        }
    }
}

impl Process {
    fn json(&self) -> Value {
        let (version, exact) = match &self.kind {
            Kind::Python { version, exact } => (Some(version), Some(exact)),
            _ => (None, None),
        };
        let perf_map = match &self.kind {
            Kind::Node { perf_map } | Kind::Java { perf_map } => Some(perf_map),
            _ => None,
        };
        let unwind_tables = match &self.kind {
            Kind::Native { unwind_tables } => Some(unwind_tables),
            _ => None,
        };
        json!({
            "pid": self.pid,
            "comm": self.comm,
            "runtime": self.kind.name(),
            "version": version,
            "exact": exact,
            "perf_map": perf_map,
            "unwind_tables": unwind_tables,
            "what": self.kind.what(),
            "advice": self.kind.advice(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtimes() -> Runtimes {
        let python = |minor, exact| Kind::Python {
            version: format!("3.{minor}.2"),
            exact,
        };
        let refused = "CPython before 3.8 is not supported".to_owned();
        let kinds = [
            ("python3", python(11, true)),
            ("gunicorn", python(11, true)),
            ("gunicorn", python(11, true)),
            ("gunicorn", python(11, true)),
            ("celery", python(9, false)),
            ("old", Kind::UnknownPython(refused)),
            ("node", Kind::Node { perf_map: false }),
            ("java", Kind::Java { perf_map: false }),
            ("etcd", Kind::Go),
            (
                "nginx",
                Kind::Native {
                    unwind_tables: true,
                },
            ),
            (
                "odd\u{1b}[31m",
                Kind::Native {
                    unwind_tables: false,
                },
            ),
            ("left", Kind::Unreadable),
        ];
        let process = |(pid, (comm, kind)): (u32, (&str, Kind))| Process {
            pid,
            comm: comm.to_owned(),
            kind,
        };
        Runtimes {
            processes: (4711..).zip(kinds).map(process).collect(),
            more: 12,
        }
    }

    #[test]
    fn each_kind_has_a_line() {
        let mut page = Page::new(Some(80));
        runtimes().text(&mut page);
        insta::assert_snapshot!(page.text);
    }

    #[test]
    fn json_has_each_process() {
        let json = runtimes().json();
        assert_eq!(json["not_looked_at"], 12);
        let process = |number: usize| &json["processes"][number];
        assert_eq!(process(0)["runtime"], "python");
        assert_eq!(process(0)["version"], "3.11.2");
        assert_eq!(process(0)["exact"], true);
        assert_eq!(process(6)["perf_map"], false);
        assert_eq!(process(6)["advice"], "start it with --perf-basic-prof");
        assert_eq!(process(9)["unwind_tables"], true);
        assert_eq!(process(11)["runtime"], Value::Null);
    }

    #[test]
    fn we_are_native() {
        let kind = Kind::of(std::process::id());
        let native = Kind::Native {
            unwind_tables: true,
        };
        assert_eq!(kind, native);
    }
}
