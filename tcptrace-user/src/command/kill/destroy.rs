//! Destroys sockets one by one, at a rate, and looks afterwards what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroU32;
use std::time::Duration;

use rustix::io::Errno;
use tcptrace_core::report::snapshot::Socket;
use tcptrace_core::state::{StateSet, TcpState};
use tokio::time::Instant;

use crate::end::End;
use crate::netlink::{DiagError, Name};
use crate::netns::Inside;

/// A socket that is to be destroyed.
#[derive(Debug)]
pub(super) struct Target {
    /// As it was selected.
    pub(super) socket: Socket,
    /// By which the kernel finds it.
    pub(super) name: Name,
}

impl Target {
    fn is_listener(&self) -> bool {
        self.socket.view.state == TcpState::Listen
    }
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The kernel says that it did it.
    Destroyed,
    /// There was none any more.
    Gone,
    /// It had moved to another state, and is left alone.
    Moved(TcpState),
    /// The kernel refused.
    Refused(Errno),
    /// A listener whose port another one has, too, which is what the kernel finds.
    Hidden,
    /// The run ended before.
    NotReached,
}

impl Outcome {
    /// The stable name in JSON.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Outcome::Destroyed => "destroyed",
            Outcome::Gone => "gone",
            Outcome::Moved(_) => "moved",
            Outcome::Refused(_) | Outcome::Hidden => "refused",
            Outcome::NotReached => "not_reached",
        }
    }
}

/// What stands against all of them alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Barrier {
    /// No CAP_NET_ADMIN over the namespace.
    Privilege,
    /// The kernel was built without it.
    Kernel,
}

/// Ends when all are destroyed, at the first refusal that holds for all, or at ^C. What it comes to is
/// told of each.
///
/// Of several listeners on one port the kernel finds one, and another when that is gone: those that it
/// does not find are looked for again as long as that helps.
///
/// # Errors
/// If the kernel does not answer, or `told` fails.
pub(super) async fn all(
    targets: &[Target],
    places: &mut BTreeMap<u32, Inside>,
    rate: NonZeroU32,
    end: &mut End,
    told: &mut dyn FnMut(&Target, &Outcome) -> io::Result<()>,
) -> anyhow::Result<Option<Barrier>> {
    let began = Instant::now();
    let mut tried: u32 = 0;
    let mut barrier = None;
    let mut ended = false;
    let mut round: Vec<&Target> = targets.iter().collect();
    while !round.is_empty() {
        let mut hidden = Vec::new();
        let mut helps = false;
        for target in round {
            let due = began + Duration::from_secs_f64(f64::from(tried) / f64::from(rate.get()));
            ended = ended || barrier.is_some() || reached_before(due, end).await;
            tried += 1;
            let outcome = match ended {
                true => Outcome::NotReached,
                false => one(target, places)?,
            };
            if target.is_listener() {
                helps |= matches!(outcome, Outcome::Destroyed);
                if matches!(outcome, Outcome::Gone) {
                    hidden.push(target);
                    continue;
                }
            }
            if let Outcome::Refused(errno) = outcome {
                barrier = stands(errno, target);
            }
            told(target, &outcome)?;
        }
        if !helps && !hidden.is_empty() {
            let present = present(places)?;
            for target in hidden.drain(..) {
                let outcome = match present.contains(&target.socket.view.id.cookie) {
                    true => Outcome::Hidden,
                    false => Outcome::Gone,
                };
                told(target, &outcome)?;
            }
        }
        round = hidden;
    }
    Ok(barrier)
}

/// Waits until then. A wait takes a millisecond at least, so that one that is due is not waited for.
async fn reached_before(due: Instant, end: &mut End) -> bool {
    match due.saturating_duration_since(Instant::now()) {
        Duration::ZERO => end.is_reached().await,
        wait => end.reached_within(wait).await,
    }
}

/// Looks whether it is still what was selected, then destroys it.
fn one(target: &Target, places: &mut BTreeMap<u32, Inside>) -> Result<Outcome, DiagError> {
    let view = &target.socket.view;
    let Some(place) = view.tuple.netns.and_then(|n| places.get_mut(&n)) else {
        return Ok(Outcome::Gone);
    };
    match place.diag.look(&target.name)? {
        None => return Ok(Outcome::Gone),
        Some(now) if now.state != view.state => return Ok(Outcome::Moved(now.state)),
        Some(_) => {}
    }
    Ok(match place.diag.destroy(&target.name)? {
        Ok(()) => Outcome::Destroyed,
        Err(Errno::NOENT | Errno::STALE) => Outcome::Gone,
        Err(errno) => Outcome::Refused(errno),
    })
}

/// A minisocket may be refused where others are not: 5.10 does that.
fn stands(errno: Errno, target: &Target) -> Option<Barrier> {
    match errno {
        Errno::PERM => Some(Barrier::Privilege),
        Errno::OPNOTSUPP if !target.socket.view.mini => Some(Barrier::Kernel),
        _ => None,
    }
}

/// Cookies of all sockets that there are, but for those that are only bound: to that comes what was
/// destroyed on a port that its process had named.
///
/// # Errors
/// If a namespace cannot be dumped.
pub(super) fn present(places: &mut BTreeMap<u32, Inside>) -> Result<BTreeSet<u64>, DiagError> {
    let mut cookies = BTreeSet::new();
    for place in places.values_mut() {
        place.diag.dump(StateSet::all(), &mut |s| {
            if s.state != TcpState::BoundInactive {
                cookies.insert(s.cookie);
            }
        })?;
    }
    Ok(cookies)
}
