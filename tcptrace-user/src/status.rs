//! A line on standard error that is renewed, where that is a terminal.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

/// How often it is renewed.
const EVERY: Duration = Duration::from_secs(1);

/// The line.
pub(crate) struct StatusLine {
    shown: bool,
    last: Instant,
    /// Columns that it takes now.
    width: usize,
}

impl StatusLine {
    /// A line that comes after a second, or never.
    pub(crate) fn new(shown: bool) -> StatusLine {
        StatusLine {
            shown,
            last: Instant::now(),
            width: 0,
        }
    }

    /// Renews it if it is time, with what `line` makes of the time since it was last renewed.
    pub(crate) fn renew(&mut self, line: impl FnOnce(Duration) -> String) {
        let elapsed = self.last.elapsed();
        if self.shown && elapsed >= EVERY {
            self.show(&line(elapsed));
            self.last = Instant::now();
        }
    }

    /// Makes room for something else.
    pub(crate) fn clear(&mut self) {
        if self.width > 0 {
            self.show("");
        }
    }

    fn show(&mut self, line: &str) {
        let width = self.width;
        // Where nobody looks, there is nobody to tell.
        let _ = write!(io::stderr(), "\r{line:<width$}\r");
        self.width = line.chars().count();
    }
}

/// `870 B`, `12.3 KiB`, `4.5 MiB`.
pub(crate) fn size_text(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let scale = |power: u32| 1u64 << (10 * power);
    match (1..=4).rev().find(|power| bytes >= scale(*power)) {
        None => format!("{bytes} B"),
        Some(power) => {
            let tenths = bytes as u128 * 10 / u128::from(scale(power));
            format!(
                "{}.{} {}",
                tenths / 10,
                tenths % 10,
                units[power as usize - 1]
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            (19_293_798, "18.3 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }
}
