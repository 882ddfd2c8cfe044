//! The options of `kill`.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Args;

use super::Filters;
use crate::examples;

/// Options of `kill`.
#[derive(Args, Debug)]
#[command(after_long_help = examples::KILL)]
pub(crate) struct Kill {
    /// Destroy them; without it, print what would be destroyed, and do nothing
    #[arg(long)]
    pub(crate) yes: bool,
    /// Destroy at most so many sockets per second
    #[arg(long, value_name = "N/s", default_value = "1000/s", value_parser = parse_rate)]
    pub(crate) rate: NonZeroU32,
    /// Write what is destroyed to this file first, as JSON lines; one that exists is not overwritten
    /// [default: tcptrace-kill-TIME.jsonl]
    #[arg(long, value_name = "FILE")]
    pub(crate) evidence: Option<PathBuf>,
    /// Print JSON lines
    #[arg(long)]
    pub(crate) json: bool,
    /// Look into every network namespace, not only this one
    #[arg(long, conflicts_with = "netns")]
    pub(crate) all_netns: bool,
    /// Which sockets.
    #[command(flatten)]
    pub(crate) filters: Filters,
}

/// Reads `100` and `100/s`.
fn parse_rate(text: &str) -> Result<NonZeroU32, String> {
    let number = text.trim().trim_end_matches("/s");
    let error = || format!("'{text}' is not a rate: write sockets per second, as in 100/s");
    number.parse().map_err(|_| error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_per_second() {
        assert_eq!(parse_rate("100/s").map(NonZeroU32::get), Ok(100));
        assert_eq!(parse_rate("7").map(NonZeroU32::get), Ok(7));
        for text in ["", "0", "-1", "1/m", "/s", "99999999999"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }
}
