//! The idle timeout of a peer, from how long it was silent before it closed.

use serde_json::{Value, json};

use crate::report::snapshot::thousands;
use crate::text::escape;
use crate::time::duration_text;

/// Fewer samples than this tell no timeout.
const LEAST: usize = 3;

/// Closed sooner after the last data than this, it was no timeout, ns.
const AT_ONCE_NS: u64 = 200_000_000;

/// What lies within this, or a tenth, of each other is the same timeout, ns: timers of applications are coarse.
const SPREAD_NS: u64 = 300_000_000;

/// And what lies within this, of timeouts that are long against it, ns: many servers look once a second who
/// was idle for too long.
const TICK_NS: u64 = 1_100_000_000;
const LONG_NS: u64 = 1_500_000_000;

/// How long peers were silent before their FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Silence {
    /// Nearly all were silent for so long, ns. A timer is late at times, and never early: this is the nearest
    /// to what was set.
    pub(super) early_ns: u64,
    /// Half were silent for longer, ns.
    pub(super) median_ns: u64,
    /// Those that this is about, and all.
    pub(super) n: u64,
    pub(super) of: u64,
    /// The least and the greatest of those that this is about.
    pub(super) least_ns: u64,
    pub(super) most_ns: u64,
}

/// What some samples say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Most closed after the same time: that is a timeout. Of these.
    Timeout(Silence),
    /// Most closed right after their last data. Of all.
    AtOnce(Silence),
    /// They closed after this time and that. Of all.
    Various(Silence),
}

/// Judges samples in ns; `None`: there is none.
pub(super) fn judge(mut samples: Vec<u64>) -> Option<Verdict> {
    samples.sort_unstable();
    let all = Silence::of(&samples, samples.len())?;
    let near = densest(&samples);
    let most = near.len() >= LEAST && near.len() * 10 >= samples.len() * 6;
    Some(match Silence::of(near, samples.len()) {
        _ if all.median_ns < AT_ONCE_NS => Verdict::AtOnce(all),
        Some(near) if most => Verdict::Timeout(near),
        _ => Verdict::Various(all),
    })
}

/// The most of these, which are sorted, that may come from one timeout; of several the shortest.
fn densest(samples: &[u64]) -> &[u64] {
    let mut best: &[u64] = &[];
    for (start, first) in samples.iter().enumerate() {
        let tick = if *first < LONG_NS { SPREAD_NS } else { TICK_NS };
        let last = first + (first / 10).max(tick);
        let near = &samples[start..];
        let near = &near[..near.partition_point(|ns| *ns <= last)];
        if near.len() > best.len() {
            best = near;
        }
    }
    best
}

impl Silence {
    /// Of these, which are sorted; `None`: there is none.
    fn of(near: &[u64], of: usize) -> Option<Silence> {
        Some(Silence {
            early_ns: *near.get(near.len() / 50)?,
            median_ns: *near.get(near.len() / 2)?,
            n: near.len() as u64,
            of: of as u64,
            least_ns: *near.first()?,
            most_ns: *near.last()?,
        })
    }

    /// The timeout: `2.0s`.
    pub(super) fn timeout(&self) -> String {
        about(self.early_ns)
    }

    /// The median.
    pub(super) fn median(&self) -> String {
        about(self.median_ns)
    }

    /// `12 of 13, spread 8.1ms`.
    pub(super) fn sample(&self) -> String {
        let n = match self.n == self.of {
            true => format!("n = {}", thousands(self.n)),
            false => format!("{} of {}", thousands(self.n), thousands(self.of)),
        };
        let spread = duration_text(self.most_ns - self.least_ns);
        format!("{n}, spread {spread}")
    }
}

/// To the nearest tenth of a second.
fn about(ns: u64) -> String {
    const TENTH_NS: u64 = 100_000_000;
    match ns {
        ns if ns < AT_ONCE_NS => duration_text(ns),
        ns => duration_text((ns + TENTH_NS / 2) / TENTH_NS * TENTH_NS),
    }
}

/// `the idle timeout of 10.0.0.9:443 is ≈ 15.0s (n = 40, spread 8.1ms), of 10.0.0.8:80 ≈ 5.0s (n = …)`.
pub(super) fn by_peer_text(timeouts: &[(String, Silence)]) -> String {
    const SHOWN: usize = 3;
    let shown = timeouts.iter().take(SHOWN).enumerate();
    let shown = shown.map(|(nth, (peer, silence))| {
        let (peer, about, sample) = (escape(peer), silence.timeout(), silence.sample());
        let is = if nth == 0 { " is" } else { "" };
        format!("of {peer}{is} ≈ {about} ({sample})")
    });
    let shown: Vec<String> = shown.collect();
    let more = match timeouts.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and of {more} more peers"),
    };
    format!("the idle timeout {}{more}", shown.join(", "))
}

/// The numbers of a verdict.
pub(super) fn object(closed: Option<Verdict>) -> Value {
    let (name, silence) = match closed {
        Some(Verdict::Timeout(silence)) => ("timeout", Some(silence)),
        Some(Verdict::AtOnce(silence)) => ("at_once", Some(silence)),
        Some(Verdict::Various(silence)) => ("various", Some(silence)),
        None => ("unknown", None),
    };
    json!({
        "kind": name,
        "early_ns": silence.map(|s| s.early_ns),
        "median_ns": silence.map(|s| s.median_ns),
        "least_ns": silence.map(|s| s.least_ns),
        "most_ns": silence.map(|s| s.most_ns),
        "n": silence.map(|s| s.n),
        "of": silence.map(|s| s.of),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_spike_is_a_timeout() {
        let near: Vec<u64> = (0..10).map(|i| 15 * S - i * 10_000_000).collect();
        let mut with_others = near.clone();
        with_others.extend([S, 3 * S, 80 * S]);
        let Some(Verdict::Timeout(silence)) = judge(with_others) else {
            panic!("a timeout");
        };
        assert_eq!((silence.n, silence.of), (10, 13));
        assert_eq!(silence.timeout(), "14.9s");
        assert_eq!(silence.sample(), "10 of 13, spread 90.0ms");
    }

    #[test]
    fn a_server_that_looks_once_a_second_has_a_timeout() {
        for (seconds, shown) in [(2, "2.0s"), (5, "5.0s"), (20, "20.0s")] {
            let late = (0..100).map(|i| seconds * S + i * 10_000_000);
            let Some(Verdict::Timeout(silence)) = judge(late.collect()) else {
                panic!("a timeout of {seconds} s");
            };
            assert_eq!((silence.n, silence.timeout().as_str()), (100, shown));
        }
        // Some just before it looks, others just after.
        let [early, late] = [2 * S + 5_000_000, 3 * S - 5_000_000];
        let samples = [early, early, late, late, late].to_vec();
        let Some(Verdict::Timeout(silence)) = judge(samples) else {
            panic!("a timeout");
        };
        assert_eq!((silence.n, silence.timeout().as_str()), (5, "2.0s"));
    }

    #[test]
    fn one_that_was_early_is_no_timeout() {
        let mut samples = vec![15 * S; 99];
        samples.push(14 * S);
        let Some(Verdict::Timeout(silence)) = judge(samples) else {
            panic!("a timeout");
        };
        assert_eq!((silence.n, silence.timeout().as_str()), (100, "15.0s"));
    }

    #[test]
    fn no_spike_is_none() {
        let various = (1..20).map(|i| i * S).collect();
        assert!(matches!(judge(various), Some(Verdict::Various(_))));
        assert!(matches!(judge(vec![15 * S; 2]), Some(Verdict::Various(_))));
        assert!(matches!(judge(vec![1_000; 5]), Some(Verdict::AtOnce(_))));
        assert_eq!(judge(Vec::new()), None);
    }
}
