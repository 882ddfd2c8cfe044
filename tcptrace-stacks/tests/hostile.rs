//! Files and processes that mean harm, or are gone.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod common;

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::programs::{C, Program};
use common::{ACCEPT, Running, have, identity};
use proptest::prelude::*;
use tcptrace_stacks::{Chain, DebugInfo, End, Limits, Process, Regs, Sample, Stacks};

const NOBODY: Process = Process {
    pid: 0,
    start_ns: 1,
    start_stack: 0,
};

/// Walks and names a stack whose words all point into the image.
fn walk_image(image: Vec<u8>, words: &[u64]) {
    let length = image.len() as u64;
    let mut stacks = Stacks::new(Limits::default());
    let start = 0x40_0000;
    if !stacks.load_image(NOBODY, start, image) {
        return;
    }
    let sp = 0x7000_0000_0000;
    let stack = words
        .iter()
        .enumerate()
        .flat_map(|(i, word)| {
            let address = match i % 3 {
                0 => sp + (word % 64) * 8,
                _ => start + word % length,
            };
            address.to_le_bytes()
        })
        .collect::<Vec<_>>();
    for word in words {
        let sample = Sample {
            process: NOBODY,
            regs: Regs {
                ip: start + word % length,
                sp,
                bp: sp + (word % 128) * 8,
                ..Regs::default()
            },
            stack: &stack,
        };
        let trace = stacks.trace(&sample);
        assert!(!trace.frames.is_empty());
        assert_eq!(stacks.trace(&sample).end, trace.end);
    }
}

fn library() -> Vec<u8> {
    let libc = [
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib64/libc.so.6",
        "/usr/lib/libc.so.6",
    ];
    libc.iter().find_map(|p| fs::read(p).ok()).unwrap()
}

/// A small program with all that we read in it.
fn program() -> Vec<u8> {
    let options = ["gcc", "-O2", "-g", "-static-pie", "-Wl,-z,noseparate-code"];
    let small = "#include <unistd.h>\nint main(){return pause();}";
    fs::read(&Program::compile("small.c", small, &options).path).unwrap()
}

#[test]
fn truncated_files() {
    let whole = library();
    let words = (0..30).map(|i| i * 0x1357_9bdf).collect::<Vec<_>>();
    for part in (1..40).step_by(4) {
        walk_image(whole[..whole.len() * part / 40].to_vec(), &words);
    }
    for bytes in (0..200).step_by(3) {
        walk_image(whole[..bytes].to_vec(), &words);
    }
}

/// A file is broken in a section of each kind, and in the headers.
#[test]
fn broken_files() {
    if !have("gcc") {
        return;
    }
    let whole = program();
    let sections = sections(&whole);
    assert!(sections.len() > 10);
    let place = (0..sections.len(), any::<u32>());
    let changes = proptest::collection::vec((place, any::<u8>()), 1..60);
    let words = proptest::collection::vec(any::<u64>(), 1..40);
    let config = ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(changes in changes, words in words)| {
        let mut image = whole.clone();
        for ((section, at), byte) in changes {
            let (offset, size) = sections[section];
            if size > 0 {
                image[offset + at as usize % size] = byte;
            }
        }
        walk_image(image, &words);
    });
}

/// The offsets and sizes of what we read, the tables of headers among it.
fn sections(image: &[u8]) -> Vec<(usize, usize)> {
    let word = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap()) as usize;
    let half = |at: usize| usize::from(u16::from_le_bytes([image[at], image[at + 1]]));
    let (table, count) = (word(40), half(60));
    let mut found = vec![(0, 64), (word(32), 56 * half(56)), (table, 64 * count)];
    for header in (0..count).map(|i| table + i * 64) {
        // Not those without bytes in the file.
        if image[header + 4] != 8 && word(header + 32) > 0 {
            found.push((word(header + 24), word(header + 32)));
        }
    }
    found
}

#[test]
fn samples_of_any_bytes() {
    let whole = library();
    let mut stacks = Stacks::new(Limits::default());
    assert!(stacks.load_image(NOBODY, 0x40_0000, whole));
    let stacks = RefCell::new(stacks);
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(r in any::<[u64; 8]>(), stack in proptest::collection::vec(any::<u8>(), 0..500))| {
        for ip in [r[0], 0x40_0000 + r[0] % 0x20_0000] {
            let regs = Regs { ip, sp: r[1], bp: r[2], bx: r[3], r12: r[4], r13: r[5], r14: r[6], r15: r[7] };
            let trace = stacks.borrow_mut().trace(&Sample { process: NOBODY, regs, stack: &stack });
            prop_assert_eq!(trace.frames[0].ip, ip);
        }
    });
}

/// Every process may claim to be as deep as the limit allows.
#[test]
fn endless_stacks_end() {
    let mut stacks = Stacks::new(Limits::default());
    let me = identity(std::process::id());
    let regs = Regs {
        ip: walk_image as *const () as usize as u64,
        sp: 0x1000,
        bp: 0x1000,
        ..Regs::default()
    };
    let word = |word: u64| word.to_le_bytes();
    let stack = (0..4096).flat_map(|_| word(0x1000)).collect::<Vec<_>>();
    let trace = stacks.trace(&Sample {
        process: me,
        regs,
        stack: &stack,
    });
    assert!(trace.frames.len() < 600);
    let addresses = vec![regs.ip; 100_000];
    let trace = stacks.chain(&Chain {
        process: me,
        addresses: &addresses,
    });
    assert_eq!(trace.end, End::Limit);
}

#[test]
fn a_process_that_is_gone_or_another() {
    if !have("gcc") {
        return;
    }
    let program = Program::compile("waits.c", C, &["gcc", "-O2"]);
    let running = Running::start(&mut Command::new(&program.path));
    let taken = running.sample(ACCEPT);
    let mut stacks = Stacks::new(Limits::default());
    let before = stacks.trace(&taken.sample());

    // Another process with the same id, as its start tells.
    let mut other = taken.clone();
    other.process.start_ns += 1_000_000_000;
    assert_eq!(stacks.trace(&other.sample()).end, End::ProcessGone);
    // The same process, but another program, as its stack tells.
    let mut other = taken.clone();
    other.process.start_stack += 4096;
    let trace = stacks.trace(&other.sample());
    assert_eq!(trace.end, End::Executed);
    assert_eq!((trace.frames.len(), &trace.frames[0].function), (1, &None));

    drop(running);
    // Stacks seen before, and others of what was mapped, still have names.
    assert_eq!(stacks.trace(&taken.sample()), before);
    let other = stacks.trace(&taken.short(200));
    assert_eq!(other.end, End::CopyTooShort);
    assert!(other.frames.iter().all(|f| f.function.is_some()));
    // A new tracer knows nothing.
    let trace = Stacks::new(Limits::default()).trace(&taken.sample());
    assert_eq!((&trace.end, trace.frames.len()), (&End::ProcessGone, 1));
}

#[test]
fn exec_between_sample_and_lookup() {
    if !have("gcc") {
        return;
    }
    let source = C.replace(
        "recurse(fd, argc > 1 ? atoi(argv[1]) : 40)",
        "go_on(fd, argv)",
    );
    let source = source.replace(
        "int main(",
        "#include <unistd.h>\nint go_on(int fd, char **argv)\n{\n\
         recurse(fd, 3);\nreturn execl(argv[0], argv[0], (char *)0);\n}\nint main(",
    );
    let program = Program::compile("waits.c", &source, &["gcc", "-O2"]);
    let mut command = Command::new(&program.path);
    let running = Running::start(&mut command);
    let taken = running.sample(ACCEPT);
    // A connection ends accept(), and then it executes itself.
    let port = listening_port(running.pid());
    drop(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
    let start = Instant::now();
    while identity(running.pid()).start_stack == taken.process.start_stack {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut stacks = Stacks::new(Limits::default());
    assert_eq!(stacks.trace(&taken.sample()).end, End::Executed);
    let now = running.sample(ACCEPT);
    assert_ne!(now.process, taken.process);
    assert_eq!(stacks.trace(&now.sample()).end, End::Root);
}

/// The port that the only socket of a process listens on.
fn listening_port(pid: u32) -> u16 {
    let socket = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let socket = socket.filter_map(|e| fs::read_link(e.unwrap().path()).ok());
    let inodes = socket.filter_map(|l| {
        let name = l.to_str()?.strip_prefix("socket:[")?;
        Some(name.strip_suffix(']')?.to_owned())
    });
    let inodes = inodes.collect::<Vec<_>>();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table.lines().find(|l| {
        let inode = l.split_ascii_whitespace().nth(9);
        inode.is_some_and(|i| inodes.iter().any(|own| own == i))
    });
    let local = line.unwrap().split_ascii_whitespace().nth(1).unwrap();
    u16::from_str_radix(local.split_once(':').unwrap().1, 16).unwrap()
}

/// The file at a mapped path is another by now, or none: the mapped one is read all the same, and where
/// that is forbidden, none.
#[test]
fn replaced_and_deleted_files() {
    if !have("gcc") {
        return;
    }
    let program = Program::compile("waits.c", C, &["gcc", "-O2"]);
    let running = Running::start(&mut Command::new(&program.path));
    let taken = running.sample(ACCEPT);
    fs::remove_file(&program.path).unwrap();
    fs::copy("/bin/true", &program.path).unwrap();
    let trace = Stacks::new(Limits::default()).trace(&taken.sample());
    assert_eq!(trace.end, End::Root);
    let recursions = trace
        .frames
        .iter()
        .filter(|f| f.function.as_deref() == Some("recurse"));
    assert_eq!(recursions.count(), 40);
}

/// Debug information is believed of trusted users' files only: it may ask for any time and memory.
#[test]
fn debug_information_of_others() {
    if !have("gcc") {
        return;
    }
    let program = Program::compile("waits.c", C, &["gcc", "-O2", "-g"]);
    let running = Running::start(&mut Command::new(&program.path));
    let taken = running.sample(ACCEPT);
    let recursions = |stacks: &mut Stacks| {
        let trace = stacks.trace(&taken.sample());
        let frames = trace.frames.iter();
        let own = frames.filter(|f| f.function.as_deref() == Some("recurse"));
        own.map(|f| f.line.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(recursions(&mut Stacks::new(Limits::default())), [true; 40]);
    let mut strict = Stacks::with_debug_info(Limits::default(), DebugInfo::none());
    assert_eq!(recursions(&mut strict), [false; 40]);
    fs::set_permissions(&program.path, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(recursions(&mut Stacks::new(Limits::default())), [false; 40]);
}

/// A program on an overlay in a mount namespace of its own, as containers have it: its path leads nowhere
/// for us, and its file has another device number there than in maps.
#[test]
fn files_of_containers() {
    if !have("gcc") || !nix::unistd::geteuid().is_root() {
        return;
    }
    let program = Program::compile("waits.c", C, &["gcc", "-O2"]);
    let directory = tempfile::tempdir().unwrap();
    for name in ["upper", "work", "merged"] {
        fs::create_dir(directory.path().join(name)).unwrap();
    }
    let script = "mount -t overlay none -o lowerdir=$0,upperdir=upper,workdir=work merged && exec merged/program";
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", script])
        .arg(program.path.parent().unwrap());
    let running = Running::start(command.current_dir(directory.path()));
    let start = Instant::now();
    // Where overlays cannot be mounted there is nothing to see.
    let image = |pid| fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    while !image(running.pid()).ends_with("merged/program") {
        if start.elapsed() > Duration::from_secs(3) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!directory.path().join("merged/program").exists());
    let trace = Stacks::new(Limits::default()).trace(&running.sample(ACCEPT).sample());
    assert_eq!(trace.end, End::Root, "{trace:#?}");
    let named = trace
        .frames
        .iter()
        .filter(|f| f.function.as_deref() == Some("recurse"));
    assert_eq!(named.count(), 40);
}

#[test]
fn perf_maps_of_others_are_refused() {
    let pid = std::process::id();
    let map = format!("/tmp/perf-{pid}.map");
    let me = identity(pid);
    // Code without a file: what a runtime generates. We have none, so the address is in nothing, and the
    // map is asked only for code: use the vsyscall page, which has neither file nor vdso.
    let sample = Sample {
        process: me,
        regs: Regs {
            ip: 0xffff_ffff_ff60_0000,
            sp: 0x1000,
            ..Regs::default()
        },
        stack: &[],
    };
    if !fs::read_to_string("/proc/self/maps")
        .unwrap()
        .contains("[vsyscall]")
    {
        return;
    }
    let named = || {
        Stacks::new(Limits::default()).trace(&sample).frames[0]
            .function
            .clone()
    };
    let refused = |limits: Limits| {
        let mut stacks = Stacks::new(limits);
        let trace = stacks.trace(&sample);
        assert_eq!(trace.frames[0].function, None);
        stacks.counters().perf_maps_refused
    };
    let line = "ffffffffff600000 400 hostile\x1b[2J\n";
    fs::write(&map, line).unwrap();
    assert_eq!(named().as_deref(), Some("hostile?[2J"));
    let small = Limits {
        perf_map_bytes: 10,
        ..Limits::default()
    };
    assert_eq!(refused(small), 1);
    // As large as a file may be; it takes no room on the disk.
    let file = fs::File::options().write(true).open(&map).unwrap();
    file.set_len(1 << 30).unwrap();
    assert_eq!(refused(Limits::default()), 1);
    fs::remove_file(&map).unwrap();

    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("map");
    fs::write(&target, line).unwrap();
    symlink(&target, &map).unwrap();
    assert_eq!(refused(Limits::default()), 1);
    fs::remove_file(&map).unwrap();
    nix::unistd::mkfifo(Path::new(&map), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(refused(Limits::default()), 1);
    fs::remove_file(&map).unwrap();
    if nix::unistd::geteuid().is_root() {
        fs::write(&map, line).unwrap();
        nix::unistd::chown(Path::new(&map), Some(1000.into()), None).unwrap();
        assert_eq!(refused(Limits::default()), 1);
        fs::remove_file(&map).unwrap();
    }
    assert_eq!(refused(Limits::default()), 0);
}

/// Who may not read a process's maps says so. The test runs itself as nobody for that.
#[test]
fn processes_of_others() {
    const OF: &str = "STACKS_OF";
    let sample = |process| Sample {
        process,
        regs: Regs::default(),
        stack: &[],
    };
    if let Ok(pid) = std::env::var(OF) {
        let process = identity(pid.parse().unwrap());
        let trace = Stacks::new(Limits::default()).trace(&sample(process));
        assert_eq!(trace.end, End::NoPermission);
        return;
    }
    let trace = Stacks::new(Limits::default()).trace(&sample(NOBODY));
    assert_eq!(trace.end, End::ProcessGone);
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command
        .arg(&program)
        .args(["--exact", "processes_of_others"]);
    command.env(OF, std::process::id().to_string());
    let output = command.current_dir("/").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{output:?}");
}
