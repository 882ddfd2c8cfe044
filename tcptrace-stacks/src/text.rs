//! Names that others chose: demangled, and made safe to print.

use std::fmt::{self, Write};

/// Bytes of a name that is demangled; a longer one is shown as it is.
const MANGLED: usize = 4 * 1024;
/// Bytes of a name that are kept.
const SHOWN: usize = 1024;

/// A symbol's name as its source has it, if it is mangled as Rust or C++ do.
pub(crate) fn function(raw: &[u8]) -> Option<Box<str>> {
    if raw.is_empty() {
        return None;
    }
    if raw.len() > MANGLED {
        return Some(clean(raw));
    }
    let raw = String::from_utf8_lossy(raw);
    let mut out = Bounded(String::new());
    if let Ok(rust) = rustc_demangle::try_demangle(&raw) {
        // The bound may cut the name off: what was written until then is kept.
        let _ = write!(out, "{rust:#}");
    } else if raw.starts_with("_Z") {
        let parse = cpp_demangle::ParseOptions::default().recursion_limit(64);
        let options = cpp_demangle::DemangleOptions::new()
            .no_return_type()
            .recursion_limit(64);
        if let Ok(symbol) = cpp_demangle::Symbol::new_with_options(raw.as_bytes(), &parse) {
            let _ = symbol.structured_demangle(&mut out, &options);
        }
    }
    if out.0.is_empty() {
        let _ = out.write_str(&raw);
    }
    Some(out.0.into_boxed_str())
}

/// Whether a name is mangled as Rust or C++ do.
pub(crate) fn is_mangled(raw: &[u8]) -> bool {
    raw.starts_with(b"_Z") || raw.starts_with(b"_R")
}

/// Any text, printable and not too long.
pub(crate) fn clean(raw: &[u8]) -> Box<str> {
    let mut out = Bounded(String::new());
    let _ = out.write_str(&String::from_utf8_lossy(&raw[..raw.len().min(MANGLED)]));
    out.0.into_boxed_str()
}

/// Takes text up to a bound, and nothing that moves a terminal's cursor or turns the direction.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.0.len() >= SHOWN {
                return Err(fmt::Error);
            }
            let turns = matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            self.0.push(if c.is_control() || turns { '?' } else { c });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_source() {
        for (raw, name) in [
            ("connect", "connect"),
            ("_ZN3foo3barEi", "foo::bar(int)"),
            (
                "_ZN4core3ptr13drop_in_place17h0123456789abcdefE",
                "core::ptr::drop_in_place",
            ),
            ("_RNvC7mycrate3foo", "mycrate::foo"),
            ("_Znonsense", "_Znonsense"),
            ("a\x1b[2Jb\nc\u{202e}", "a?[2Jb?c?"),
        ] {
            assert_eq!(function(raw.as_bytes()).as_deref(), Some(name));
        }
        assert_eq!(function(b""), None);
    }

    #[test]
    fn no_name_is_long() {
        let nested = format!("_Z1f{}i{}", "St4pairI".repeat(500), "E".repeat(500));
        let doubling = format!("_Z1fSt4pairIiiE{}", "S_IS0_S0_E".repeat(700));
        for raw in [nested, doubling, "x".repeat(5000)] {
            assert!(function(raw.as_bytes()).is_some_and(|name| name.len() <= SHOWN + 4));
        }
        assert_eq!(function(&[b'x'; 9000]).map(|name| name.len()), Some(SHOWN));
    }

    /// Names that a parser could try in many ways, each again in many.
    #[test]
    fn no_name_takes_long() {
        const PARTS: &str = "N I J L X E St S_ S0_ Sa T_ F M P R K DT Dt cv sr il fl tl cl dc sc 1f 1fI _Z LZ Z \
            U1a A1_ A_ AT_ Dp sp ds dt gs on srT_ srN i v qu aS C1 D0 Ul UlvE_ L_Z Li1E v1_ nw da ti te sZ fp_ fpT \
            DpT_ ITpTnT_ NR K C u3foo TW h1_ _ 1 9";
        let parts = PARTS.split_ascii_whitespace().collect::<Vec<_>>();
        let mut random = 1_u64;
        let mut next = |below: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) as usize % below
        };
        let mut slowest = (std::time::Duration::ZERO, String::new());
        for _ in 0..3000 {
            let unit = (0..1 + next(5))
                .map(|_| parts[next(parts.len())])
                .collect::<String>();
            let name = format!(
                "_Z{}{}",
                parts[next(parts.len())],
                unit.repeat(MANGLED / unit.len() - 2)
            );
            let began = std::time::Instant::now();
            let _ = function(name.as_bytes());
            if began.elapsed() > slowest.0 {
                slowest = (began.elapsed(), name[..60].to_owned());
            }
        }
        assert!(slowest.0.as_millis() < 500, "{slowest:?}");
    }
}
