//! What other programs make of exports.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The Python with the packages of `tests/tools/requirements.txt`: `TCPTRACE_PYTHON`, else the one that
/// `cargo xtask test` makes in this target directory.
pub fn python_path() -> PathBuf {
    match std::env::var_os("TCPTRACE_PYTHON") {
        Some(path) => path.into(),
        None => {
            let test = std::env::current_exe().expect("the path of this test");
            let target = test.ancestors().nth(3).expect("target/PROFILE/deps/test");
            target.join("python/bin/python")
        }
    }
}

/// A directory of this crate.
pub fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Standard output of a program that succeeds.
#[track_caller]
pub fn output(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What a script of `tools/` prints of a file.
#[track_caller]
pub fn read(script: &str, file: &Path) -> String {
    let script = directory("tools").join(script);
    output(Command::new(python_path()).arg(script).arg(file))
}

/// The same as JSON.
#[track_caller]
pub fn read_json(script: &str, file: &Path) -> Value {
    serde_json::from_str(&read(script, file)).expect("JSON")
}

/// A line per packet with these fields, separated by `|`.
#[track_caller]
pub fn packets(file: &Path, fields: &[&str]) -> String {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file).args([
        "-o",
        "ip.check_checksum:TRUE",
        "-o",
        "tcp.check_checksum:TRUE",
        "-T",
        "fields",
        "-E",
        "separator=|",
    ]);
    for field in fields {
        command.args(["-e", field]);
    }
    output(&mut command)
}
