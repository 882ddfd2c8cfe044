//! The compiler and the linker of the eBPF programs: found, or set up.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::apt;
use crate::process;
use crate::workspace::Workspace;

/// The flags that decide what the object is.
pub(super) const FLAGS: &[&str] = &[
    "--cfg=bpf_target_arch=\"x86_64\"",
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
];

const TARGET: &str = "bpfel-unknown-none";
const LINKER_VERSION: &str = "0.10.3";
/// bpf-linker reads the compiler's bitcode with the compiler's own LLVM, and knows this one.
const LLVM_MAJOR: &str = "22";

/// Whether a build may bring the eBPF crate's `Cargo.lock` up to date.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Lock {
    Fixed,
    MayChange,
}

/// A compiler for [`TARGET`] and the linker that goes with it.
pub(crate) struct Toolchain {
    /// The compiler's version, its LLVM's, and where `core` comes from.
    pub(super) compiler: String,
    /// The linker's version, and the LLVM library it uses.
    pub(super) linker: String,
    cargo: PathBuf,
    rustc: PathBuf,
    /// Where `core`'s sources are, when it has to be compiled too.
    core_sources: Option<PathBuf>,
    linker_path: PathBuf,
    llvm_directory: PathBuf,
}

impl Toolchain {
    /// Takes the toolchain that is there; else installs Debian's compiler, and builds the linker.
    pub(crate) fn set_up(workspace: &Workspace) -> Result<Self> {
        let compiler = Compiler::find().map_or_else(Compiler::install, Ok)?;
        let library = compiler.llvm_library()?;
        let llvm_directory = workspace.target.join("tools/llvm");
        link_alone(&library, &llvm_directory)?;
        let linker_path = build_linker(workspace)?;
        Ok(Self {
            compiler: compiler.identity(),
            linker: format!("bpf-linker {LINKER_VERSION}, {}", identity(&library)?),
            cargo: compiler.cargo,
            rustc: compiler.rustc,
            core_sources: compiler.core_sources,
            linker_path,
            llvm_directory,
        })
    }

    /// Whether the compiler that [`Toolchain::set_up`] takes is rustup's, and so not Debian's.
    pub(crate) fn is_rustups() -> bool {
        Compiler::find().is_some_and(|compiler| compiler.core_sources.is_some())
    }

    /// `cargo fetch`, after which the registry's directories exist and can be mapped away.
    pub(super) fn fetch(&self, workspace: &Workspace, lock: Lock) -> Command {
        let mut command = self.command(workspace, &self.cargo);
        command.args(["fetch", "--quiet"]);
        if lock == Lock::Fixed {
            command.arg("--locked");
        }
        command
    }

    /// `cargo build` for the eBPF programs.
    pub(super) fn build(&self, workspace: &Workspace, lock: Lock) -> Result<Command> {
        self.compile(workspace, &self.cargo, "build", lock, &[])
    }

    /// Clippy for the eBPF programs, or the compiler's own lints when it has no clippy.
    pub(crate) fn lint(&self, workspace: &Workspace) -> Result<Command> {
        let clippy = self.cargo.with_file_name("cargo-clippy");
        if !clippy.exists() {
            return self.compile(
                workspace,
                &self.cargo,
                "check",
                Lock::Fixed,
                &["-Dwarnings"],
            );
        }
        // Started by its path: `cargo clippy` would take the first one in PATH, rustup's.
        let mut command = self.compile(workspace, &clippy, "clippy", Lock::Fixed, &[])?;
        command.args(["--", "-D", "warnings"]);
        Ok(command)
    }

    /// The object that `cargo build` leaves.
    pub(super) fn linked_object(&self, workspace: &Workspace) -> PathBuf {
        target_directory(workspace)
            .join(TARGET)
            .join("release/tcptrace")
    }

    fn compile(
        &self,
        workspace: &Workspace,
        program: &Path,
        verb: &str,
        lock: Lock,
        more_flags: &[&str],
    ) -> Result<Command> {
        let mut command = self.command(workspace, program);
        command.args([verb, "--release", "--target", TARGET]);
        if lock == Lock::Fixed {
            command.arg("--locked");
        }
        if self.core_sources.is_some() {
            command.args(["-Z", "build-std=core"]);
        }
        let flags = FLAGS
            .iter()
            .chain(more_flags)
            .map(|flag| (*flag).to_owned());
        let flags: Vec<String> = flags.chain(self.path_mappings(workspace)?).collect();
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        Ok(command)
    }

    /// A cargo program with none of the caller's settings that could change the object.
    fn command(&self, workspace: &Workspace, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(workspace.ebpf());
        for (name, _) in env::vars_os().filter(|(name, _)| changes_builds(name)) {
            command.env_remove(name);
        }
        command
            .env("CARGO", &self.cargo)
            .env("RUSTC", &self.rustc)
            // aya-ebpf needs `asm_experimental_arch`; only this nested build gets it.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", target_directory(workspace))
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker_path)
            // bpf-linker loads the first libLLVM it finds here.
            .env("LD_LIBRARY_PATH", &self.llvm_directory);
        command
    }

    /// Flags that keep this machine's paths, and its registry's name, out of the object.
    fn path_mappings(&self, workspace: &Workspace) -> Result<Vec<String>> {
        let map = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
        let mut mappings = vec![map(&workspace.root, ".")];
        let registries = cargo_home()?.join("registry/src");
        if registries.is_dir() {
            let mut directories = fs::read_dir(&registries)?
                .map(|entry| Ok(entry?.path()))
                .collect::<Result<Vec<_>>>()?;
            directories.sort();
            mappings.extend(directories.iter().map(|directory| map(directory, "/deps")));
        }
        if let Some(sources) = &self.core_sources {
            mappings.push(map(sources, "/rust"));
        }
        Ok(mappings)
    }
}

/// A compiler that can compile for [`TARGET`].
struct Compiler {
    cargo: PathBuf,
    rustc: PathBuf,
    sysroot: PathBuf,
    core_sources: Option<PathBuf>,
    version: String,
    llvm_version: String,
}

impl Compiler {
    /// Debian's compiler with `core` for BPF; else rustup's with the component rust-src.
    fn find() -> Option<Self> {
        let debians = Self::probe(Path::new("/usr/bin/rustc"), Path::new("/usr/bin/cargo"))
            .filter(|compiler| compiler.sysroot.join("lib/rustlib").join(TARGET).is_dir());
        debians.or_else(|| {
            let sysroot = answer(Command::new("rustc").args(["--print", "sysroot"]))?;
            let programs = Path::new(&sysroot).join("bin");
            let mut compiler = Self::probe(&programs.join("rustc"), &programs.join("cargo"))?;
            let sources = compiler.sysroot.join("lib/rustlib/src/rust");
            compiler.core_sources = sources.join("library/core").is_dir().then_some(sources);
            compiler.core_sources.is_some().then_some(compiler)
        })
    }

    fn install() -> Result<Self> {
        apt::install(&apt::EBPF_TOOLCHAIN.iter().collect::<Vec<_>>()).context(
            "no compiler for eBPF: needs Debian's packages, or `rustup component add rust-src`",
        )?;
        Self::find().with_context(|| {
            format!(
                "the packages are installed, but give no LLVM {LLVM_MAJOR} or no core for {TARGET}"
            )
        })
    }

    fn probe(rustc: &Path, cargo: &Path) -> Option<Self> {
        let verbose = answer(Command::new(rustc).arg("-vV"))?;
        let llvm = verbose
            .lines()
            .find_map(|line| line.strip_prefix("LLVM version: "))?;
        let fits = llvm.split('.').next() == Some(LLVM_MAJOR) && cargo.exists();
        fits.then_some(Self {
            cargo: cargo.to_owned(),
            rustc: rustc.to_owned(),
            sysroot: answer(Command::new(rustc).args(["--print", "sysroot"]))?.into(),
            core_sources: None,
            version: verbose.lines().next()?.to_owned(),
            llvm_version: llvm.to_owned(),
        })
    }

    /// What decides the code it generates; a `core` compiled along is optimised differently.
    fn identity(&self) -> String {
        let core = self.core_sources.as_ref().map(|_| ", core from source");
        format!(
            "{}, LLVM {}{}",
            self.version,
            self.llvm_version,
            core.unwrap_or_default()
        )
    }

    /// The shared library of the compiler's LLVM.
    fn llvm_library(&self) -> Result<PathBuf> {
        let wanted = format!("libLLVM.so.{LLVM_MAJOR}");
        let multiarch = format!("/usr/lib/{}-linux-gnu", env::consts::ARCH);
        let directories = [
            self.sysroot.join("lib"),
            multiarch.into(),
            "/usr/lib64".into(),
        ];
        directories
            .iter()
            .filter_map(|directory| fs::read_dir(directory).ok())
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(&wanted))
            })
            .with_context(|| format!("{} has no {wanted} beside it", self.rustc.display()))
    }
}

/// Makes `directory` hold nothing but a link to `library`.
fn link_alone(library: &Path, directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    fs::create_dir_all(directory)?;
    let link = directory.join(format!("libLLVM-{LLVM_MAJOR}.so"));
    std::os::unix::fs::symlink(library, link)?;
    Ok(())
}

/// Name and size: a rebuilt LLVM of the same version may generate other code.
fn identity(library: &Path) -> Result<String> {
    let name = library.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!("{name} of {} bytes", fs::metadata(library)?.len()))
}

/// The pinned bpf-linker, built once.
fn build_linker(workspace: &Workspace) -> Result<PathBuf> {
    let tools = workspace.target.join("tools");
    let path = tools.join("bin/bpf-linker");
    let wanted = format!("bpf-linker {LINKER_VERSION}");
    let found = || answer(Command::new(&path).arg("--version"));
    if found().as_ref() == Some(&wanted) {
        return Ok(path);
    }
    eprintln!("building {wanted}; this is needed once and takes a minute or two");
    let mut install = workspace.cargo();
    install
        .env_remove("CARGO_TARGET_DIR")
        .args([
            "install",
            "bpf-linker",
            "--version",
            LINKER_VERSION,
            "--locked",
            "--force",
        ])
        .arg("--root")
        .arg(&tools);
    process::succeed(&mut install)?;
    ensure!(found() == Some(wanted), "{} does not start", path.display());
    Ok(path)
}

fn changes_builds(variable: &OsStr) -> bool {
    let variable = variable.to_string_lossy();
    let prefixes = [
        "CARGO_BUILD_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "CARGO_UNSTABLE_",
        "RUST",
    ];
    variable != "RUSTUP_HOME" && prefixes.iter().any(|prefix| variable.starts_with(prefix))
}

fn target_directory(workspace: &Workspace) -> PathBuf {
    workspace.target.join("bpf")
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(path) = env::var_os("CARGO_HOME") {
        return Ok(path.into());
    }
    let home = env::home_dir().context("neither CARGO_HOME nor HOME is set")?;
    Ok(home.join(".cargo"))
}

/// What a command prints, when it succeeds.
fn answer(command: &mut Command) -> Option<String> {
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
