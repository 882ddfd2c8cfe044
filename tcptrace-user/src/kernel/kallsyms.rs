//! The few kernel functions that we know by name, from `/proc/kallsyms`.
//!
//! One of them is a filter (`tw_timer_handler`, which tells the timers of minisockets from all
//! others). The rest explain why a minisocket died before its time: the function that stopped its
//! timer is on the kernel stack of that moment.

use std::cell::OnceCell;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

use tcptrace_core::cause::Cause;
use tcptrace_core::state::TcpState;
use thiserror::Error;

/// Where the kernel lists its symbols.
pub(super) const KALLSYMS: &str = "/proc/kallsyms";

/// The list, opened and not read before somebody asks: that takes longer than anything else at a
/// start. The kernel judges by the privileges of the opening what it shows.
#[derive(Debug)]
pub(crate) struct Kallsyms {
    list: io::Result<File>,
    symbols: OnceCell<Result<Symbols, SymbolsError>>,
}

impl Kallsyms {
    /// Opens it.
    pub(crate) fn open() -> Kallsyms {
        Kallsyms {
            list: File::open(KALLSYMS),
            symbols: OnceCell::new(),
        }
    }

    /// The functions that we know, of the list as it is when this is first asked.
    ///
    /// # Errors
    /// When there is no address to be had from it.
    pub(crate) fn symbols(&self) -> Result<&Symbols, &SymbolsError> {
        let read = || match &self.list {
            Ok(list) => Symbols::read(BufReader::new(list)),
            Err(e) => Err(SymbolsError::Unreadable(e.to_string())),
        };
        self.symbols.get_or_init(read).as_ref()
    }
}

/// Addresses of the functions that we know.
#[derive(Clone, Debug)]
pub(crate) struct Symbols {
    tw_timer_handler: Option<u64>,
    ranges: Vec<Range>,
}

/// Why a symbol list is of no use.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum SymbolsError {
    /// Every address is 0, which is how the kernel hides them.
    #[error("kernel addresses are hidden: that takes CAP_SYSLOG, and kernel.kptr_restrict below 2")]
    Hidden,
    /// No line of it is a symbol of kernel code.
    #[error("no kernel function is listed")]
    Empty,
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

impl Symbols {
    /// Reads lines of `ADDRESS TYPE NAME[\t[MODULE]]`, in one pass; other lines are passed over.
    ///
    /// It is the kernel that takes long, to spell the list out: what is behind the kernel's own
    /// code, its data and modules, is read only where IPv6 may be among the modules.
    ///
    /// # Errors
    /// When there is no address to be had from it.
    pub(crate) fn read(mut list: impl BufRead) -> Result<Symbols, SymbolsError> {
        let mut tw_timer_handler = None;
        let mut ranges = Vec::new();
        let mut code = Vec::new();
        let mut hidden = false;
        let mut ipv6_missing = IPV6.to_vec();
        let mut line = Vec::new();
        loop {
            line.clear();
            match list.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) => return Err(SymbolsError::Unreadable(e.to_string())),
            }
            let Some(symbol) = Symbol::read(&line) else {
                continue;
            };
            hidden |= symbol.address == 0;
            code.push(symbol.address);
            if let Some(&(name, role)) = FUNCTIONS.iter().find(|(name, _)| symbol.is_of(name)) {
                ranges.push(Range {
                    start: symbol.address,
                    end: 0,
                    role,
                });
                if symbol.is("tw_timer_handler") && symbol.address != 0 {
                    tw_timer_handler = Some(symbol.address);
                }
                ipv6_missing.retain(|missing| *missing != name);
            } else if symbol.is("_etext") && ipv6_missing.is_empty() {
                break;
            }
        }
        // The list is in the order of addresses, but for modules.
        code.sort_unstable();
        match code.last() {
            None => return Err(SymbolsError::Empty),
            Some(0) => return Err(SymbolsError::Hidden),
            Some(_) if hidden => ranges.retain(|r| r.start != 0),
            Some(_) => {}
        }
        for range in &mut ranges {
            let next = code.partition_point(|address| *address <= range.start);
            range.end = code.get(next).copied().unwrap_or(u64::MAX);
        }
        Ok(Symbols {
            tw_timer_handler,
            ranges,
        })
    }

    /// The function of every minisocket's timer; `None` if this kernel has it under another name.
    pub(crate) fn tw_timer_handler(&self) -> Option<u64> {
        self.tw_timer_handler
    }

    /// Why a minisocket in this substate died early, from the return addresses at the moment its
    /// timer was stopped, innermost first, 0 past the end.
    ///
    /// The innermost known function decides: on loopback the outer ones belong to whoever sent
    /// the segment. `tcp_v4_rcv` kills a minisocket itself in two cases (`net/ipv4/tcp_ipv4.c`):
    /// for `TCP_TW_SYN`, which `tcp_timewait_state_process` returns in TIME_WAIT only, and for
    /// `TCP_TW_RST`, which it returns in FIN_WAIT_2 only, when data come that nobody will read.
    pub(crate) fn mini_death(&self, stack: &[u64], substate: TcpState) -> Cause {
        let role = stack
            .iter()
            .take_while(|ip| **ip != 0)
            .find_map(|ip| self.role(*ip));
        match role {
            Some(Role::Segment) => Cause::ResetReceived,
            Some(Role::Receive) if substate == TcpState::FinWait2 => Cause::ResetSent,
            Some(Role::Receive) => Cause::ReusedBySyn,
            Some(Role::Connect) => Cause::ReusedByConnect,
            Some(Role::Abort) => Cause::Destroyed,
            Some(Role::Purge) => Cause::NamespaceExit,
            Some(Role::Timer) => Cause::Timer,
            None => Cause::Unknown,
        }
    }

    /// A return address is behind the call, so it may be the end of a function that never returns.
    fn role(&self, return_address: u64) -> Option<Role> {
        let within = |r: &&Range| r.start < return_address && return_address <= r.end;
        self.ranges.iter().find(within).map(|r| r.role)
    }
}

#[derive(Clone, Copy, Debug)]
struct Range {
    start: u64,
    end: u64,
    role: Role,
}

/// What a function on the stack of a death says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// A segment for the minisocket is judged.
    Segment,
    /// A segment is received, and judged already.
    Receive,
    /// A connect() looks for a port.
    Connect,
    /// SOCK_DESTROY.
    Abort,
    /// The network namespace goes.
    Purge,
    /// Its time is up.
    Timer,
}

/// Present, static and all, on 5.10 to 7.3, but for the two `purge` of which each kernel has one
/// or both.
const FUNCTIONS: &[(&str, Role)] = &[
    ("tcp_timewait_state_process", Role::Segment),
    ("tcp_v4_rcv", Role::Receive),
    ("tcp_v6_rcv", Role::Receive),
    ("__inet_check_established", Role::Connect),
    ("__inet6_check_established", Role::Connect),
    ("__inet_hash_connect", Role::Connect),
    ("inet_hash_connect", Role::Connect),
    ("inet6_hash_connect", Role::Connect),
    ("tcp_abort", Role::Abort),
    ("inet_twsk_purge", Role::Purge),
    ("tcp_twsk_purge", Role::Purge),
    ("tw_timer_handler", Role::Timer),
];

/// Those that may be a module's.
const IPV6: &[&str] = &[
    "tcp_v6_rcv",
    "__inet6_check_established",
    "inet6_hash_connect",
];

/// A symbol of code.
struct Symbol<'a> {
    address: u64,
    /// The line from its name on.
    rest: &'a [u8],
}

impl<'a> Symbol<'a> {
    fn read(line: &'a [u8]) -> Option<Symbol<'a>> {
        let mut address = 0_u64;
        let mut digits = 0;
        for byte in line {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                _ => break,
            };
            address = address << 4 | u64::from(digit);
            digits += 1;
        }
        let [b' ', b't' | b'T' | b'w' | b'W', b' ', rest @ ..] = &line[digits..] else {
            return None;
        };
        (1..=16)
            .contains(&digits)
            .then_some(Symbol { address, rest })
    }

    fn is(&self, name: &str) -> bool {
        matches!(self.behind(name), Some([] | [b'\t' | b'\n' | b' ', ..]))
    }

    /// Whether it is this function, or a copy or a part of it, to whose name a compiler appends:
    /// `.constprop.0`, `.cold`.
    fn is_of(&self, function: &str) -> bool {
        let behind = self.behind(function);
        matches!(behind, Some([] | [b'\t' | b'\n' | b' ' | b'.', ..]))
    }

    fn behind(&self, name: &str) -> Option<&'a [u8]> {
        let name = name.as_bytes();
        // Nearly all names differ in the first byte, which takes no call to see.
        match self.rest.first() == name.first() {
            true => self.rest.strip_prefix(name),
            false => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, BufReader, Read};

    use proptest::prelude::*;

    use super::*;

    const LIST: &str = "\
ffffffff81000000 T _text
ffffffff82001000 t __inet_check_established
ffffffff82001400 T __inet_hash_connect
ffffffff82002000 t __pfx_tw_timer_handler
ffffffff82002010 t tw_timer_handler
ffffffff82002040 T inet_twsk_deschedule_put
ffffffff82003000 T inet_twsk_purge
ffffffff82004000 T tcp_abort
ffffffff82004800 t tcp_abort_override
ffffffff82005000 T tcp_v4_rcv
ffffffff82006000 T tcp_timewait_state_process.isra.0
ffffffff82007000 d tcp_prot
ffffffff82007100 T tcp_child_process
ffffffffc0500000 t tcp_v6_rcv\t[ipv6]
ffffffffc0400000 t some_exit\t[ipv6]
ffffffffc0500900 t next\t[ipv6]
ffffffff82300000 t tcp_v4_rcv.cold
ffffffff82300100 t tcp_v6_send_reset
";

    const DESCHEDULE: u64 = 0xffff_ffff_8200_2050;
    const PROCESS: u64 = 0xffff_ffff_8200_6100;
    const V4_RCV: u64 = 0xffff_ffff_8200_5123;
    const V4_RCV_COLD: u64 = 0xffff_ffff_8230_0100;
    const V6_RCV: u64 = 0xffff_ffff_c050_0010;
    const CHECK: u64 = 0xffff_ffff_8200_1200;
    const HASH: u64 = 0xffff_ffff_8200_1500;
    const ABORT: u64 = 0xffff_ffff_8200_4010;
    const OVERRIDE: u64 = 0xffff_ffff_8200_4810;
    const PURGE: u64 = 0xffff_ffff_8200_3010;
    const OTHER: u64 = 0xffff_ffff_8100_0010;

    #[track_caller]
    fn death(stack: &[u64], substate: TcpState, cause: Cause) {
        let mut frames = vec![OTHER, DESCHEDULE];
        frames.extend(stack);
        frames.extend([OTHER, 0, ABORT]);
        let symbols = Symbols::read(LIST.as_bytes()).unwrap();
        assert_eq!(symbols.mini_death(&frames, substate), cause);
    }

    #[test]
    fn the_stack_tells_the_cause() {
        use TcpState::{FinWait2, TimeWait};
        death(&[PROCESS, V4_RCV], TimeWait, Cause::ResetReceived);
        death(&[PROCESS, V4_RCV], FinWait2, Cause::ResetReceived);
        death(&[V4_RCV], TimeWait, Cause::ReusedBySyn);
        death(&[V4_RCV_COLD], TimeWait, Cause::ReusedBySyn);
        death(&[V6_RCV], TimeWait, Cause::ReusedBySyn);
        death(&[V6_RCV], FinWait2, Cause::ResetSent);
        death(&[CHECK, HASH], TimeWait, Cause::ReusedByConnect);
        death(&[HASH], TimeWait, Cause::ReusedByConnect);
        death(&[ABORT], TimeWait, Cause::Destroyed);
        death(&[OVERRIDE], TimeWait, Cause::Unknown);
        death(&[PURGE], TimeWait, Cause::NamespaceExit);
        death(&[], TimeWait, Cause::Unknown);
    }

    #[test]
    fn on_loopback_the_sender_is_not_the_cause() {
        death(
            &[PROCESS, V4_RCV, OTHER, ABORT],
            TcpState::TimeWait,
            Cause::ResetReceived,
        );
    }

    #[test]
    fn the_timer_function_is_the_exact_one() {
        let symbols = Symbols::read(LIST.as_bytes()).unwrap();
        assert_eq!(symbols.tw_timer_handler(), Some(0xffff_ffff_8200_2010));
    }

    #[test]
    fn nothing_is_read_behind_the_kernels_code_unless_ipv6_may_be_there() {
        struct NoMore;
        impl Read for NoMore {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("read on"))
            }
        }
        let read = |ipv6: &str| {
            let code = format!("ffffffff82001000 t tcp_v4_rcv\n{ipv6}ffffffff82009000 T _etext\n");
            Symbols::read(code.as_bytes().chain(BufReader::new(NoMore))).err()
        };
        let ipv6 = "ffffffff82002000 T tcp_v6_rcv\n\
                    ffffffff82003000 t __inet6_check_established.part.0\n\
                    ffffffff82004000 T inet6_hash_connect\n";
        assert_eq!(read(ipv6), None);
        let some = &ipv6[..ipv6.len() / 2];
        let on = SymbolsError::Unreadable("read on".into());
        assert_eq!(read(&some[..=some.rfind('\n').unwrap()]), Some(on));
    }

    #[test]
    fn hidden_addresses_are_told_from_no_list() {
        let hidden = "0000000000000000 t tw_timer_handler\n0000000000000000 T tcp_abort\n";
        assert_eq!(
            Symbols::read(hidden.as_bytes()).unwrap_err(),
            SymbolsError::Hidden
        );
        assert_eq!(Symbols::read(&b""[..]).unwrap_err(), SymbolsError::Empty);
        assert_eq!(
            Symbols::read(&b"ffffffff82007000 d data\n"[..]).unwrap_err(),
            SymbolsError::Empty
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), ip: u64) {
            if let Ok(symbols) = Symbols::read(&bytes[..]) {
                symbols.mini_death(&[ip], TcpState::TimeWait);
            }
        }

        #[test]
        fn no_damaged_list_panics(cut in 0..LIST.len(), at in 0..LIST.len(), byte: u8) {
            let mut bytes = LIST.as_bytes().to_vec();
            bytes[at] = byte;
            bytes.truncate(cut);
            let _ = Symbols::read(&bytes[..]);
        }
    }
}
