//! What runs in the guest: static builds of our programs, and the machine's own tools.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::chain::Chain;
use super::cpio::Tree;
use super::kernels::Kernel;
use super::modules;
use crate::apt;
use crate::process;
use crate::workspace::Workspace;

/// Statically linked programs need nothing of the guest.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const STATIC: (&str, &str) = ("RUSTFLAGS", "-C target-feature=+crt-static");
/// What the tests run besides the tracer, taken from this machine. Everything else in `PATH` is
/// busybox.
const TOOLS: &[&str] = &["bpftool", "script", "setpriv", "ss", "stdbuf", "tcpstates"];
/// What `stdbuf` puts into the programs that it starts.
const LIBSTDBUF: &str = "/usr/libexec/coreutils/libstdbuf.so";
/// The order in which the binaries of the tests run: the ground before what stands on it.
const FIRST: &[&str] = &["harness", "contract"];

/// Test binaries that are no matter of the kernel, and what they run is not in the guest.
const NEVER: &[&str] = &[
    "diagnose",
    "diagnose_fin_wait2",
    "diagnose_health",
    "diagnose_ports",
    "diagnose_proxy",
    "diagnose_syn",
    "export",
    "runtimes",
];

/// The programs that are tested, and those that test.
pub(crate) struct Suite {
    tracer: PathBuf,
    workload: PathBuf,
    verifier: PathBuf,
    /// The test binaries by name.
    binaries: BTreeMap<String, PathBuf>,
}

impl Suite {
    /// Builds all of them, with that eBPF object embedded.
    pub(crate) fn build(workspace: &Workspace, object: &Path) -> Result<Self> {
        let cargo = || {
            let mut command = workspace.cargo();
            command.env(STATIC.0, STATIC.1);
            command.env("TCPTRACE_BPF_OBJECT", object);
            command
        };
        let arguments = ["build", "--release", "--target", TARGET];
        let package = ["--package", "tcptrace-user", "--bin", "tcptrace"];
        process::succeed(cargo().args(arguments).args(package))?;

        let arguments = ["test", "--no-run", "--profile", "vm", "--target", TARGET];
        let package = ["--package", "tcptrace-tests", "--message-format=json"];
        let mut tests = cargo();
        tests.args(arguments).args(package).stderr(Stdio::inherit());
        let output = tests.output().context("cannot start cargo")?;
        ensure!(output.status.success(), "the tests did not build");
        let mut suite = Self {
            tracer: workspace.target.join(TARGET).join("release/tcptrace"),
            workload: PathBuf::new(),
            verifier: PathBuf::new(),
            binaries: BTreeMap::new(),
        };
        for message in String::from_utf8(output.stdout)?.lines() {
            suite.add(message)?;
        }
        ensure!(suite.workload.exists(), "cargo told of no workload");
        ensure!(suite.verifier.exists(), "cargo told of no verifier");
        Ok(suite)
    }

    /// Takes one of cargo's messages, which may be about a program.
    fn add(&mut self, message: &str) -> Result<()> {
        let message: Value = serde_json::from_str(message)?;
        let Some(executable) = message["executable"].as_str() else {
            return Ok(());
        };
        let name = message["target"]["name"].as_str().unwrap_or_default();
        let kind = message["target"]["kind"][0].as_str().unwrap_or_default();
        match (kind, name, message["profile"]["test"] == true) {
            ("test", name, true) if NEVER.contains(&name) => {}
            ("test", _, true) => {
                self.binaries.insert(name.to_owned(), executable.into());
            }
            ("bin", "workload", false) => self.workload = executable.into(),
            ("bin", "verifier", false) => self.verifier = executable.into(),
            _ => {}
        }
        Ok(())
    }

    /// The names of the test binaries, in the order in which they run.
    pub(crate) fn names(&self) -> Vec<String> {
        let (mut first, rest): (Vec<String>, _) = self
            .binaries
            .keys()
            .cloned()
            .partition(|name| FIRST.contains(&name.as_str()));
        first.sort_by_key(|name| FIRST.iter().position(|first| first == name));
        first.extend(rest);
        first
    }

    /// The first file system of a guest with that kernel, without its job.
    pub(crate) fn file_system(&self, kernel: &Kernel) -> Result<Vec<u8>> {
        let mut tree = Tree::default();
        for mount in ["proc", "sys", "dev", "tmp", "run", "root"] {
            tree.directory(mount);
        }
        // What init says before it has mounted anything.
        tree.device("dev/console", 5, 1);
        tree.file("init", 0o755, include_str!("init.sh"));
        tree.file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n");
        tree.file("etc/group", 0o644, "root:x:0:\n");

        let busybox = apt::command("busybox").context("no busybox")?;
        tree.copy("bin/busybox", &busybox)?;
        for tool in TOOLS {
            let file = apt::command(tool).with_context(|| format!("no {tool}"))?;
            tree.copy(&format!("bin/{tool}"), &file)?;
            for library in libraries(&file)? {
                copy_to_same_place(&mut tree, &library)?;
            }
        }
        copy_to_same_place(&mut tree, LIBSTDBUF)?;

        tree.copy("bin/tcptrace", &self.tracer)?;
        tree.copy("bin/workload", &self.workload)?;
        tree.copy("bin/verifier", &self.verifier)?;
        for (name, file) in &self.binaries {
            tree.copy(&format!("suite/{name}"), file)?;
        }
        let modules = modules::load_order(&kernel.root)?;
        let order = modules.iter().map(|(name, _)| format!("{name}\n"));
        tree.file("modules/order", 0o644, order.collect::<String>());
        for (name, module) in modules {
            tree.file(&format!("modules/{name}.ko"), 0o644, module);
        }
        Ok(tree.to_cpio())
    }
}

/// What a guest does.
pub(crate) struct Job {
    pub(crate) chain: Chain,
    /// The test binaries.
    pub(crate) suites: Vec<String>,
    /// Parts of the names of tests; none is all.
    pub(crate) filters: Vec<String>,
    /// Variables of the tests.
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl Job {
    /// An archive to follow the first file system: the kernel unpacks one after the other.
    pub(crate) fn to_cpio(&self, lacking: &[&str]) -> Vec<u8> {
        let mut variables = vec![
            ("TCPTRACE_BIN", self.chain.tracer().to_owned()),
            ("TCPTRACE_WORKLOAD", "/bin/workload".to_owned()),
            ("TCPTRACE_REQUIRE", "all".to_owned()),
            ("TCPTRACE_WITHOUT", lacking.join(",")),
        ];
        variables.extend(self.variables.iter().cloned());
        variables.push(("TCPTRACE_HOOKS", self.chain.hooks().to_owned()));
        let mut script: String = variables
            .iter()
            .map(|(name, value)| format!("export {name}={}\n", quote(value)))
            .collect();
        for (name, words) in [("suites", &self.suites), ("filters", &self.filters)] {
            script.push_str(&format!("{name}={}\n", quote(&words.join(" "))));
        }
        let mut tree = Tree::default();
        tree.file("job", 0o644, script);
        tree.to_cpio()
    }
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn copy_to_same_place(tree: &mut Tree, path: &str) -> Result<()> {
    tree.copy(path.trim_start_matches('/'), Path::new(path))
}

/// The shared libraries of a program, and its loader.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output()?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(
        !said.contains("not found"),
        "{}:\n{said}",
        program.display()
    );
    let words = said.split_whitespace();
    Ok(words
        .filter(|w| w.starts_with('/'))
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_messages_name_the_programs() {
        let mut suite = Suite {
            tracer: PathBuf::new(),
            workload: PathBuf::new(),
            verifier: PathBuf::new(),
            binaries: BTreeMap::new(),
        };
        for (kind, name, test) in [
            ("lib", "tcptrace_tests", true),
            ("bin", "workload", true),
            ("bin", "workload", false),
            ("test", "states", true),
            ("test", "contract", true),
            ("test", "harness", true),
        ] {
            let message = serde_json::json!({
                "executable": format!("/t/{kind}-{name}-{test}"),
                "target": { "kind": [kind], "name": name },
                "profile": { "test": test },
            });
            suite.add(&message.to_string()).expect("a message");
        }
        suite.add(r#"{"reason":"build-finished"}"#).expect("none");
        assert_eq!(suite.workload, Path::new("/t/bin-workload-false"));
        assert_eq!(suite.names(), ["harness", "contract", "states"]);
    }

    #[test]
    fn a_job_is_a_script_whatever_is_in_it() {
        let job = Job {
            chain: Chain::Tracepoint,
            suites: vec!["harness".to_owned(), "states".to_owned()],
            filters: vec!["it's".to_owned()],
            variables: vec![("SCALE", "20".to_owned())],
        };
        let archive = String::from_utf8(job.to_cpio(&["mptcp"])).expect("ASCII");
        assert!(archive.contains("export SCALE='20'\n"), "{archive}");
        assert!(archive.contains("export TCPTRACE_WITHOUT='mptcp'\n"));
        assert!(archive.contains("suites='harness states'\n"), "{archive}");
        assert!(archive.contains(r"filters='it'\''s'"), "{archive}");
    }
}
