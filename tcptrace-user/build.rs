//! Puts the eBPF object where `src/embed.rs` includes it from.
//!
//! The object is the committed `bpf/tcptrace.bpf.o`, or the file named by `TCPTRACE_BPF_OBJECT`:
//! tests run what a fresh build of the sources gives.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

const OVERRIDE: &str = "TCPTRACE_BPF_OBJECT";
const COMMITTED: &str = "bpf/tcptrace.bpf.o";

fn main() -> Result<(), Box<dyn Error>> {
    let object = object_path()?;
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    println!("cargo::rerun-if-changed={}", object.display());

    let bytes = fs::read(&object).map_err(|e| format!("cannot read {}: {e}", object.display()))?;
    fs::write(variable("OUT_DIR")?.join("tcptrace.bpf.o"), &bytes)?;
    let digest = format!("{:x}", Sha256::digest(&bytes));
    println!("cargo::rustc-env=TCPTRACE_OBJECT_SHA256={}", &digest[..12]);
    Ok(())
}

fn object_path() -> Result<PathBuf, Box<dyn Error>> {
    match env::var_os(OVERRIDE).filter(|value| !value.is_empty()) {
        Some(path) => {
            Ok(fs::canonicalize(&path)
                .map_err(|e| format!("{OVERRIDE}={}: {e}", path.display()))?)
        }
        None => Ok(variable("CARGO_MANIFEST_DIR")?.join(COMMITTED)),
    }
}

fn variable(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    Ok(env::var_os(name)
        .ok_or_else(|| format!("cargo sets {name}"))?
        .into())
}
