//! Debian packages: which are needed, for what, and how they get here.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// A package, a file or command that shows it is there, and why it is needed.
pub(crate) struct Package {
    pub(crate) name: &'static str,
    /// A command to be found, or an absolute path.
    pub(crate) shown_by: &'static str,
    pub(crate) reason: &'static str,
}

/// A compiler with `core` for BPF; bpf-linker is a crate.
pub(crate) const EBPF_TOOLCHAIN: &[Package] = &[
    Package {
        name: "rustc-web",
        shown_by: "/usr/bin/rustc",
        reason: "compiles the eBPF programs",
    },
    Package {
        name: "cargo-web",
        shown_by: "/usr/bin/cargo",
        reason: "builds with that compiler",
    },
    Package {
        name: "libstd-rust-web-dev-bpf",
        shown_by: "/usr/lib/rustlib/bpfel-unknown-none",
        reason: "the core library for the target bpfel-unknown-none",
    },
];

/// Clippy of that compiler: another one's cannot read its core library.
pub(crate) const EBPF_LINTER: &[Package] = &[Package {
    name: "rust-web-clippy",
    shown_by: "/usr/bin/cargo-clippy",
    reason: "lints the eBPF programs",
}];

/// What the checks and the live tests use on top of the toolchain.
pub(crate) const TESTS: &[Package] = &[
    Package {
        name: "iproute2",
        shown_by: "ss",
        reason: "network namespaces, and ss as a second opinion on sockets",
    },
    Package {
        name: "procps",
        shown_by: "sysctl",
        reason: "reads and sets sysctls of network namespaces",
    },
    Package {
        name: "bpftool",
        shown_by: "bpftool",
        reason: "a second opinion on loaded programs and BTF",
    },
    Package {
        name: "libbpf-tools",
        shown_by: "tcpstates",
        reason: "a second opinion on state transitions",
    },
    Package {
        name: "python3",
        shown_by: "python3",
        reason: "owners of sockets that are not Rust programs",
    },
    Package {
        name: "debian-archive-keyring",
        shown_by: "/usr/share/keyrings/debian-archive-keyring.gpg",
        reason: "whose signature the archive's indices must have",
    },
    Package {
        name: "patchelf",
        shown_by: "patchelf",
        reason: "starts a newer Python with the C library that it was built for",
    },
    Package {
        name: "tshark",
        shown_by: "tshark",
        reason: "reads exports as packets",
    },
    Package {
        name: "gdb",
        shown_by: "gdb",
        reason: "a second opinion on stacks",
    },
    Package {
        name: "gcc",
        shown_by: "gcc",
        reason: "compiles programs whose stacks are read",
    },
    Package {
        name: "g++",
        shown_by: "g++",
        reason: "compiles programs whose stacks are read",
    },
    Package {
        name: "binutils",
        shown_by: "strip",
        reason: "takes the names out of programs whose stacks are read",
    },
    Package {
        name: "musl-tools",
        shown_by: "musl-gcc",
        reason: "compiles programs whose stacks are read",
    },
    Package {
        name: "golang-go",
        shown_by: "go",
        reason: "compiles programs whose stacks are read",
    },
    Package {
        name: "nginx-light",
        shown_by: "/usr/sbin/nginx",
        reason: "a program whose stacks are read, and a server that is diagnosed",
    },
    Package {
        name: "openssl",
        shown_by: "openssl",
        reason: "makes the certificate of a server that is diagnosed",
    },
    Package {
        name: "default-jdk-headless",
        shown_by: "javac",
        reason: "compiles and runs programs whose stacks are read, or that are diagnosed",
    },
    Package {
        name: "libtomcat10-embed-java",
        shown_by: "/usr/share/java/tomcat10-embed-core.jar",
        reason: "a server that is diagnosed",
    },
    Package {
        name: "libhttpclient-java",
        shown_by: "/usr/share/java/httpclient.jar",
        reason: "a pool of connections that is diagnosed",
    },
    Package {
        name: "redis-server",
        shown_by: "redis-server",
        reason: "a server in which nothing is to be found",
    },
    Package {
        name: "net-tools",
        shown_by: "netstat",
        reason: "a second opinion on counts of sockets",
    },
    Package {
        name: "nodejs",
        shown_by: "/usr/bin/node",
        reason: "a program whose stacks are read",
    },
];

/// What weighs the core.
pub(crate) const WEIGHTS: &[Package] = &[Package {
    name: "valgrind",
    shown_by: "valgrind",
    reason: "counts instructions, which are the same on every machine",
}];

/// What tracing is measured with and against.
pub(crate) const BENCH: &[Package] = &[
    Package {
        name: "iproute2",
        shown_by: "ss",
        reason: "lists sockets, which is compared",
    },
    Package {
        name: "bpftool",
        shown_by: "bpftool",
        reason: "names the programs whose time is taken",
    },
    Package {
        name: "libbpf-tools",
        shown_by: "tcpstates",
        reason: "tracers to be compared with",
    },
    Package {
        name: "linux-perf",
        shown_by: "perf",
        reason: "a tracer to be compared with",
    },
];

/// What virtual machines take on top of what the tests use.
pub(crate) const VM: &[Package] = &[
    Package {
        name: "qemu-system-x86",
        shown_by: "qemu-system-x86_64",
        reason: "boots other kernels",
    },
    Package {
        name: "busybox-static",
        shown_by: "busybox",
        reason: "everything in the guest that is no test",
    },
    Package {
        name: "xz-utils",
        shown_by: "xz",
        reason: "unpacks kernel modules",
    },
    Package {
        name: "zstd",
        shown_by: "zstd",
        reason: "unpacks kernel modules of the newest kernels",
    },
];

/// The packages that are not shown to be there.
pub(crate) fn missing(packages: &'static [Package]) -> Vec<&'static Package> {
    packages
        .iter()
        .filter(|package| command(package.shown_by).is_none())
        .collect()
}

/// Installs `packages` when root on a Debian; otherwise says what to do.
pub(crate) fn install(packages: &[&Package]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    let by_hand = format!(
        "apt-get install --no-install-recommends {}",
        names.join(" ")
    );
    for package in packages {
        eprintln!("missing: {} ({})", package.name, package.reason);
    }
    if command("apt-get").is_none() {
        bail!("install these by hand; on Debian: {by_hand}");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("only root may install them: sudo {by_hand}");
    }
    eprintln!("installing them with apt-get");
    if let Err(error) = apt_get(&["update"]) {
        eprintln!("notice: {error:#}; going on with the lists that are there");
    }
    let mut args = vec!["install", "--yes", "--no-install-recommends"];
    args.extend(names);
    apt_get(&args)
}

fn apt_get(args: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(["--quiet", "--option", "DPkg::Lock::Timeout=300"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("cannot start apt-get")?;
    ensure!(status.success(), "apt-get {} failed: {status}", args[0]);
    Ok(())
}

/// The path of a command, looked for in `PATH` and where administrators' tools lie.
pub(crate) fn command(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let administrators = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(administrators)
        .map(|directory| directory.join(name))
        .find(|file| file.exists())
}
