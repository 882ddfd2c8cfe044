//! `tcptrace diagnose`, live and of what it recorded.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::lab::Lab;
use crate::recording::{Run, run, text};
use crate::tcptrace::{hooks, tracer_path};

/// `tcptrace diagnose --json` in a lab's namespace, recorded.
#[derive(Debug)]
pub struct Diagnosing {
    run: Run,
    args: Vec<String>,
    directory: TempDir,
}

impl Diagnosing {
    /// Starts it and waits until it has listed what was there.
    #[track_caller]
    pub fn start(lab: &Lab, args: &[&str]) -> Diagnosing {
        let directory = tempfile::tempdir().expect("a directory");
        let netns = lab.ns.inode().to_string();
        let mut command = Command::new(tracer_path());
        command.args(["diagnose", "--json", "--netns", &netns, "-d", "10m"]);
        command.arg("--record").arg(directory.path().join("it.rec"));
        command.args(hooks()).args(args);
        Diagnosing {
            run: Run::start(&mut command),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            directory,
        }
    }

    /// What it found, which is what it finds in the recording.
    #[track_caller]
    pub fn stop(mut self) -> Diagnosis {
        let said = self.run.stop();
        let file = self.directory.path().join("it.rec");
        let mut again = vec!["diagnose", "--json", "-I", text(&file)];
        again.extend(self.args.iter().map(String::as_str));
        let [live, replayed] = [said, run(&again)].map(|output| Diagnosis::read(&output));
        assert_eq!(live.findings(), replayed.findings());
        assert_eq!(live.0["completeness"], replayed.0["completeness"]);
        live
    }
}

/// What was found.
#[derive(Debug)]
pub struct Diagnosis(Value);

impl Diagnosis {
    #[track_caller]
    fn read(output: &[u8]) -> Diagnosis {
        Diagnosis(serde_json::from_slice(output).expect("one object"))
    }

    /// All findings, the gravest first.
    #[track_caller]
    pub fn findings(&self) -> &[Value] {
        self.0["findings"].as_array().expect("findings")
    }

    /// Whether nothing is missing.
    pub fn complete(&self) -> bool {
        self.0["completeness"]["complete"] == true
    }

    /// The names of the findings, in their order.
    pub fn ids(&self) -> Vec<&str> {
        let ids = self.findings().iter();
        ids.filter_map(|finding| finding["id"].as_str()).collect()
    }

    /// The one with this name.
    #[track_caller]
    pub fn one(&self, id: &str) -> &Value {
        let mut all = self.findings().iter().filter(|f| f["id"] == id);
        match (all.next(), all.next()) {
            (Some(finding), None) => finding,
            _ => panic!("not one {id}: {:#}", self.0),
        }
    }

    /// The one with this name about CLOSE_WAIT of this process, if there is one.
    pub fn close_wait_of(&self, id: &str, pid: u32) -> Option<&Value> {
        let of_it = |finding: &&Value| {
            let process = &finding["evidence"]["processes"][0];
            finding["id"] == id && process["pid"] == pid
        };
        self.findings().iter().find(of_it)
    }
}

/// What a finding says under a label, one line each.
pub fn told(finding: &Value, label: &str) -> String {
    let lists = ["told", "advice"].map(|list| finding[list].as_array());
    let lines = lists.into_iter().flatten().flatten();
    let lines = lines.filter(|line| line["label"] == label);
    let lines: Vec<&str> = lines.filter_map(|line| line["text"].as_str()).collect();
    lines.join("\n")
}
