//! What became of connections that the same code acquired for other callers: a pool closes those that
//! come back, and who never gives one back has a stack of his own.

use std::collections::BTreeMap;

use super::{Fate, places};
use crate::histogram::Durations;
use crate::stack::{Frame, FrameKind, Stack};
use crate::tracker::{Ledger, Tracker};

/// Connections that were acquired by the same code, called from elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Kin {
    /// The outermost function that both have in common.
    pub shared: Frame,
    /// What became of them.
    pub fate: Fate,
}

/// Those of the nearest kin, some of which were closed.
pub(super) fn of(tracker: &Tracker, stack: &Stack) -> Option<Kin> {
    let closed = tracker.ledgers().filter(|(_, ledger)| ledger.closed > 0);
    let kin = closed.filter_map(|(id, ledger)| {
        let theirs = tracker.stack(id).filter(|_| id != stack.id)?;
        Some((shared(&stack.frames, &theirs.frames)?, ledger))
    });
    let mut by_depth: BTreeMap<usize, Vec<&Ledger>> = BTreeMap::new();
    for (depth, ledger) in kin {
        by_depth.entry(depth).or_default().push(ledger);
    }
    let (depth, ledgers) = by_depth.pop_last()?;
    Some(Kin {
        shared: stack.frames[depth - 1].clone(),
        fate: together(tracker, &ledgers),
    })
}

/// How many frames, the innermost first, they have in common; `None` if those are nothing but a
/// library: who calls `connect` has nothing in common for that.
fn shared(ours: &[Frame], theirs: &[Frame]) -> Option<usize> {
    let same = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    let common = &ours[..same];
    let python = |frame: &Frame| matches!(frame.kind, FrameKind::Python | FrameKind::PythonLater);
    let tells = match ours.iter().any(python) {
        true => common.iter().any(python),
        false => common.iter().any(|frame| frame.module != ours[0].module),
    };
    tells.then_some(same)
}

fn together(tracker: &Tracker, ledgers: &[&Ledger]) -> Fate {
    let mut held = Durations::default();
    let (mut closed_at, mut otherwise) = (BTreeMap::new(), BTreeMap::new());
    for ledger in ledgers {
        held.add(&ledger.held);
        for (place, count) in &ledger.places {
            *closed_at.entry(*place).or_default() += count;
        }
        for (cause, count) in &ledger.otherwise {
            *otherwise.entry(*cause).or_default() += count;
        }
    }
    let sum = |of: fn(&Ledger) -> u64| ledgers.iter().map(|ledger| of(ledger)).sum();
    let quantile = |quantile| held.quantile_ns(quantile);
    Fate {
        acquired: sum(|ledger| ledger.acquired),
        closed: sum(|ledger| ledger.closed),
        places: places(tracker, &closed_at),
        held_ns: quantile(0.5).zip(quantile(0.99)).map(<[u64; 2]>::from),
        otherwise,
    }
}
