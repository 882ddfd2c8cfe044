//! Numbers and names as sentences have them. All are safe to print.

use super::case::Who;
use crate::report::snapshot::thousands;
use crate::text::escape;

/// Names that are told before the rest is counted.
const NAMES: usize = 3;

/// `1 socket`, `27,352 sockets`.
pub(super) fn sockets(n: u64) -> String {
    match n {
        1 => "1 socket".to_owned(),
        n => format!("{} sockets", thousands(n)),
    }
}

/// `pid 4711 gunicorn · container 0123456789ab`.
pub(super) fn who(who: &Who) -> String {
    let pid = who
        .pid
        .map_or("pid ?".to_owned(), |pid| format!("pid {pid}"));
    let comm = who.comm.map_or("?".to_owned(), |comm| comm.to_string());
    match who.container.as_deref() {
        Some(id) => {
            let id: String = id.chars().take(12).collect();
            format!("{pid} {comm} · container {}", escape(&id))
        }
        None => format!("{pid} {comm}"),
    }
}

/// `a ×3, b and 2 more`: what there is of each kind, unless all are of one.
pub(super) fn list(counts: &[(String, u64)]) -> String {
    let one = counts.len() == 1;
    let shown = counts.iter().take(NAMES).map(|(name, n)| match one {
        true => name.clone(),
        false => format!("{name} ×{}", thousands(*n)),
    });
    let shown: Vec<String> = shown.collect();
    let text = shown.join(", ");
    match counts.len().checked_sub(NAMES) {
        None | Some(0) => text,
        Some(more) => format!("{text} and {more} more"),
    }
}

/// `all 27`, `12 of 27`, `none of 27`.
pub(super) fn of(part: u64, all: u64) -> String {
    match part {
        part if part == all => format!("all {}", thousands(all)),
        0 => format!("none of {}", thousands(all)),
        part => format!("{} of {}", thousands(part), thousands(all)),
    }
}

/// `4.1/s`, `12/min`.
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        n if n >= 100.0 => format!("{}/s", thousands(n.round() as u64)),
        n if n >= 1.0 => format!("{n:.1}/s"),
        n => format!("{:.1}/min", n * 60.0),
    }
}

/// `97 %`: what is not all is not said to be.
pub(super) fn percent(part: u64, all: u64) -> String {
    let percent = 100.0 * part as f64 / all.max(1) as f64;
    match percent {
        p if p > 99.0 && part < all => format!("{:.1} %", (p * 10.0).floor() / 10.0),
        p => format!("{p:.0} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_as_words() {
        assert_eq!(of(3, 3), "all 3");
        assert_eq!(of(0, 3), "none of 3");
        assert_eq!(of(1_200, 27_352), "1,200 of 27,352");
        assert_eq!(percent(27_418, 28_232), "97 %");
        assert_eq!(percent(28_231, 28_232), "99.9 %");
        assert_eq!(rate(4.12), "4.1/s");
        assert_eq!(rate(0.2), "12.0/min");
        let names = ["a", "b", "c", "d"].map(|name| (name.to_owned(), 2));
        assert_eq!(list(&names), "a ×2, b ×2, c ×2 and 1 more");
        assert_eq!(list(&names[..1]), "a");
    }
}
