//! `verifier FILE COMMAND…` runs the command, and writes to FILE what the kernel's verifier made of
//! each program that it loaded: `NAME INSTRUCTIONS STACK` in lines, the name as the kernel has it, or
//! what the kernel said if that was not understood.
//!
//! The kernel tells (BPF_LOG_STATS, 5.2 and later) whoever gives BPF_PROG_LOAD a buffer for it, and
//! before 5.16 in no other way. The command gives none: so it is stopped where it loads, and a
//! buffer is lent to it, below its stack. x86-64 only.

use std::ffi::c_void;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use libc::pid_t;

/// `BPF_PROG_LOAD`.
const PROG_LOAD: u64 = 5;
/// `BPF_LOG_STATS`.
const STATISTICS: u32 = 4;
const LOG_BYTES: usize = 4096;
/// What the ABI lets a function use below its stack pointer.
const RED_ZONE: u64 = 128;

/// Where `union bpf_attr` has `log_level`, `log_size` and `log_buf`, then four bytes of
/// `kern_version`, four of `prog_flags`, and `prog_name`.
const LOG: u64 = 24;
const NAME: u64 = 48;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, program, rest @ ..] = &args[..] else {
        eprintln!("usage: verifier FILE COMMAND…");
        return ExitCode::from(2);
    };
    let mut lines = String::new();
    let code = match traced(Command::new(program).args(rest), &mut lines) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("verifier: {program}: {error}");
            return ExitCode::FAILURE;
        }
    };
    match fs::write(file, lines) {
        Ok(()) => ExitCode::from(code),
        Err(error) => {
            eprintln!("verifier: {file}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the command to its end, and gives its exit code.
fn traced(command: &mut Command, lines: &mut String) -> io::Result<u8> {
    // SAFETY: one system call without memory, in the child.
    let child = unsafe { command.pre_exec(|| ptrace(libc::PTRACE_TRACEME, 0, 0)) }.spawn()?;
    let pid = child.id() as pid_t;
    // Stopped at its exec.
    wait(pid)?;
    ptrace(
        libc::PTRACE_SETOPTIONS,
        pid,
        libc::PTRACE_O_TRACESYSGOOD as u64,
    )?;
    let mut lent = None;
    let mut signal = 0;
    loop {
        ptrace(libc::PTRACE_SYSCALL, pid, signal)?;
        let status = wait(pid)?;
        if libc::WIFEXITED(status) {
            return Ok(libc::WEXITSTATUS(status) as u8);
        }
        if libc::WIFSIGNALED(status) {
            return Err(io::Error::other("it was killed"));
        }
        signal = 0;
        match libc::WSTOPSIG(status) {
            stop if stop == libc::SIGTRAP | 0x80 => {
                lent = match lent.take() {
                    None => lend(pid)?,
                    Some(load) => {
                        lines.extend(take_back(pid, &load)?);
                        None
                    }
                };
            }
            other => signal = other as u64,
        }
    }
}

/// A load that is under way: where its attributes are, and the log that was lent.
struct Load {
    attributes: u64,
    log: u64,
}

/// At the entry of a call: if it loads a program, without a log of its own, lends it one.
fn lend(pid: pid_t) -> io::Result<Option<Load>> {
    let call = Call::of(pid)?;
    if !call.enters || call.number != libc::SYS_bpf as u64 || call.arguments[0] != PROG_LOAD {
        return Ok(None);
    }
    let attributes = call.arguments[1];
    let mut own = [0; 16];
    read(pid, attributes + LOG, &mut own)?;
    if own != [0; 16] {
        return Ok(None);
    }
    let log = (call.stack - RED_ZONE - LOG_BYTES as u64) & !15;
    write(pid, log, &[0; LOG_BYTES])?;
    let mut ours = [0; 16];
    ours[..4].copy_from_slice(&STATISTICS.to_ne_bytes());
    ours[4..8].copy_from_slice(&(LOG_BYTES as u32).to_ne_bytes());
    ours[8..].copy_from_slice(&log.to_ne_bytes());
    write(pid, attributes + LOG, &ours)?;
    Ok(Some(Load { attributes, log }))
}

/// At its exit: what the log says, if the program was loaded and has a name.
fn take_back(pid: pid_t, load: &Load) -> io::Result<Option<String>> {
    write(pid, load.attributes + LOG, &[0; 16])?;
    let (mut name, mut log) = ([0; 16], [0; LOG_BYTES]);
    read(pid, load.attributes + NAME, &mut name)?;
    read(pid, load.log, &mut log)?;
    let name = text(&name);
    let loaded = Call::of(pid)?.result() >= 0;
    if !loaded || name.is_empty() {
        return Ok(None);
    }
    let log = text(&log);
    Ok(Some(match statistics(&log) {
        Some((instructions, stack)) => format!("{name} {instructions} {stack}\n"),
        None => format!("{name} not understood: {}\n", log.replace('\n', "; ")),
    }))
}

/// Instructions that the verifier went through, and bytes of stack, those of functions called from
/// it included.
fn statistics(log: &str) -> Option<(u64, u64)> {
    let number = |prefix: &str| log.lines().find_map(|line| line.strip_prefix(prefix));
    let processed = number("processed ")?.split(' ').next()?.parse().ok()?;
    // Until 7.x the depth of each function; then `max` and the most that a chain of calls takes.
    let depths = number("stack depth ")?;
    let depths = depths.strip_prefix("max ").unwrap_or(depths).split('+');
    let depths: Option<Vec<u64>> = depths.map(|depth| depth.parse().ok()).collect();
    Some((processed, depths?.iter().sum()))
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A system call at which the process is stopped: `struct ptrace_syscall_info`, 5.3 and later.
struct Call {
    enters: bool,
    stack: u64,
    /// At its exit its result.
    number: u64,
    arguments: [u64; 6],
}

impl Call {
    fn of(pid: pid_t) -> io::Result<Call> {
        const ENTRY: u64 = 1;
        let mut words = [0u64; 10];
        // SAFETY: it writes as many bytes as it is told, and the array has them.
        let written = unsafe {
            libc::ptrace(
                libc::PTRACE_GET_SYSCALL_INFO,
                pid,
                size_of_val(&words),
                words.as_mut_ptr(),
            )
        };
        if written < 0 {
            return Err(io::Error::last_os_error());
        }
        let [operation, _, stack, number, arguments @ ..] = words;
        Ok(Call {
            enters: operation & 0xff == ENTRY,
            stack,
            number,
            arguments,
        })
    }

    fn result(&self) -> i64 {
        self.number as i64
    }
}

fn read(pid: pid_t, from: u64, into: &mut [u8]) -> io::Result<()> {
    let (here, there) = ends(into.as_mut_ptr().cast(), from, into.len());
    // SAFETY: `here` is as long as said.
    let copied = unsafe { libc::process_vm_readv(pid, &here, 1, &there, 1, 0) };
    whole(copied, into.len())
}

fn write(pid: pid_t, to: u64, bytes: &[u8]) -> io::Result<()> {
    let (here, there) = ends(bytes.as_ptr().cast_mut().cast(), to, bytes.len());
    // SAFETY: `here` is as long as said, and only read.
    let copied = unsafe { libc::process_vm_writev(pid, &here, 1, &there, 1, 0) };
    whole(copied, bytes.len())
}

fn ends(here: *mut c_void, there: u64, len: usize) -> (libc::iovec, libc::iovec) {
    let end = |iov_base| libc::iovec {
        iov_base,
        iov_len: len,
    };
    (end(here), end(there as *mut c_void))
}

fn whole(copied: isize, len: usize) -> io::Result<()> {
    match usize::try_from(copied) {
        Ok(copied) if copied == len => Ok(()),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

fn ptrace(request: libc::c_uint, pid: pid_t, data: u64) -> io::Result<()> {
    // SAFETY: none of the requests used here writes anything.
    match unsafe { libc::ptrace(request, pid, 0, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn wait(pid: pid_t) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: `status` is an int.
    match unsafe { libc::waitpid(pid, &mut status, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_words_are_read() {
        let log = "verification time 93 usec\nstack depth 96+32\nprocessed 454 insns (limit \
                   1000000) max_states_per_insn 1 total_states 25 peak_states 25 mark_read 9\n";
        assert_eq!(statistics(log), Some((454, 128)));
        let newer = log.replace("96+32", "max 128");
        assert_eq!(statistics(&newer), Some((454, 128)));
        assert_eq!(statistics("Permission denied\n"), None);
    }
}
