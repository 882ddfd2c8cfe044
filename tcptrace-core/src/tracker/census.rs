//! How many connections are in which state right now, without a look at each of them.

use std::collections::{BTreeMap, BTreeSet};

use super::Tracker;
use super::conn::Conn;
use crate::change::View;
use crate::condition::{Condition, Numbers};
use crate::state::{ALL, TcpState};
use crate::time::{Age, Mono};

/// The connections that are there, by state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census([Stay; ALL.len() + 1]);

/// Those in one state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stay {
    /// How many.
    pub count: u64,
    /// The longest that one of them has been in it; `None`: there is none.
    pub oldest: Option<Age>,
}

impl Census {
    /// Those in `state`.
    pub fn of(&self, state: TcpState) -> Stay {
        self.0[usize::from(state.number())]
    }

    /// Every state in which there are some, in the kernel's order.
    pub fn iter(&self) -> impl Iterator<Item = (TcpState, Stay)> {
        let stays = ALL.into_iter().map(|state| (state, self.of(state)));
        stays.filter(|(_, stay)| stay.count > 0)
    }

    /// Counts one more.
    pub fn add(&mut self, state: TcpState, age: Age) {
        let stay = &mut self.0[usize::from(state.number())];
        stay.count += 1;
        stay.oldest = Some(stay.oldest.map_or(age, |oldest| older(oldest, age)));
    }
}

/// The age of the older of two, of which each may be known within bounds only.
fn older(one: Age, other: Age) -> Age {
    let least = one.at_least().max(other.at_least());
    let most = one.at_most().zip(other.at_most()).map(|(a, b)| a.max(b));
    match (least, most) {
        (Some(min), Some(max)) if min == max => Age::Exact(min),
        (Some(min), max) => Age::Between { min, max },
        (None, _) => Age::Unknown,
    }
}

impl Tracker {
    /// The connections that the filter selects, whatever their state. It takes one look at each,
    /// and draws it up only where the filter asks for its owner.
    pub fn census(&self) -> Census {
        self.census_at(self.now)
    }

    /// The connections of the sockets with these inodes, as far as a dump showed them.
    pub fn by_inodes(&self, inodes: &BTreeSet<u32>) -> BTreeMap<u32, View> {
        let inode = |conn: &Conn| conn.facts.as_deref().map(|facts| facts.inode);
        let found = self.conns.iter().filter_map(|(cookie, conn)| {
            let inode = inode(conn).filter(|inode| inodes.contains(inode))?;
            Some((inode, conn.view(*cookie, self.now, &self.world)))
        });
        found.collect()
    }

    /// What this condition is about, at `now`, to which time may not have come here yet.
    pub fn numbers(&self, condition: &Condition, now: Mono) -> Numbers {
        let counts = !condition.states().is_empty();
        let census = counts.then(|| self.census_at(now.max(self.now)));
        Numbers {
            census: census.unwrap_or_default(),
            lost: self.loss().total(),
            overflow: self.overflows.dropped(),
            no_port: self.no_port,
        }
    }

    fn census_at(&self, now: Mono) -> Census {
        let filter = &self.options.filter;
        let by_owner = filter.asks_for_owner();
        let selected = |cookie, conn: &Conn| match by_owner {
            true => filter.selects(&conn.view(cookie, now, &self.world)),
            false => filter.selects_tuple(&conn.tuple),
        };
        let mut census = Census::default();
        self.conns
            .iter()
            .filter(|(cookie, conn)| selected(**cookie, conn))
            .for_each(|(_, conn)| census.add(conn.state, conn.entered.age(now)));
        census
    }
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;
    use crate::filter::Filter;
    use crate::input::{Event, EventBody, Input, StateChange};
    use crate::tuple::Tuple;

    /// A tracker of what `filter` selects, which has seen these changes.
    fn tracker(filter: Filter, changes: &[(u64, Tuple, TcpState, TcpState)]) -> Tracker {
        let mut tracker = Tracker::new(Options {
            filter,
            ..Options::default()
        });
        for (number, (cookie, tuple, old, new)) in changes.iter().enumerate() {
            let change = StateChange::new(*tuple, *old, *new);
            let at = Mono(1_000 * (1 + number as u64));
            let event = Event::new(at, *cookie, EventBody::State(change));
            tracker.apply(&Input::Kernel(event), &mut Vec::new());
        }
        tracker
    }

    #[test]
    fn what_the_filter_selects_is_counted() {
        use TcpState::{Close, CloseWait, Established, SynSent};
        let tuple = |local: &str| {
            let end = |text: &str| text.parse().expect("an end");
            Tuple::new(end(local), end("10.0.0.9:443"), Some(7))
        };
        let (one, other) = (tuple("10.1.0.5:1"), tuple("10.2.0.5:2"));
        let changes = [
            (1, one, Close, SynSent),
            (1, one, SynSent, Established),
            (1, one, Established, CloseWait),
            (2, other, Close, SynSent),
            (2, other, SynSent, Established),
            (3, tuple("10.1.0.5:0"), Close, SynSent),
            (3, tuple("10.1.0.5:0"), SynSent, Close),
        ];
        let condition: Condition = "established > 0".parse().expect("a condition");
        for (nets, established) in [("0.0.0.0/0", 1), ("10.1.0.0/16", 0)] {
            let filter = Filter {
                local_nets: vec![nets.parse().expect("a network")],
                ..Filter::default()
            };
            let tracker = tracker(filter, &changes);
            let numbers = tracker.numbers(&condition, Mono(10_000));
            let count = |state| numbers.census.of(state).count;
            assert_eq!(count(Established), established, "{nets}");
            assert_eq!(count(CloseWait), 1, "{nets}");
            let oldest = numbers.census.of(CloseWait).oldest;
            assert_eq!(oldest, Some(Age::Exact(7_000)), "{nets}");
            assert_eq!(numbers.no_port, 1, "{nets}");
            assert_eq!(tracker.census().of(CloseWait).count, 1, "{nets}");
        }
    }

    #[test]
    fn the_oldest_is_as_old_as_any_may_be() {
        let (sure, vague) = (Age::Exact(10), |max| Age::Between { min: 4, max });
        let oldest = |ages: &[Age]| {
            let mut census = Census::default();
            for age in ages {
                census.add(TcpState::CloseWait, *age);
            }
            census.of(TcpState::CloseWait).oldest
        };
        assert_eq!(oldest(&[]), None);
        assert_eq!(oldest(&[sure, Age::Exact(3)]), Some(sure));
        assert_eq!(oldest(&[vague(Some(7)), sure]), Some(sure));
        let between = |max| Some(Age::Between { min: 10, max });
        assert_eq!(oldest(&[sure, vague(Some(12))]), between(Some(12)));
        assert_eq!(oldest(&[vague(None), sure]), between(None));
        assert_eq!(oldest(&[Age::Unknown, sure]), between(None));
        assert_eq!(oldest(&[Age::Unknown]), Some(Age::Unknown));
    }

    #[test]
    fn states_come_in_the_order_of_the_kernel() {
        let mut census = Census::default();
        for state in [TcpState::TimeWait, TcpState::CloseWait, TcpState::TimeWait] {
            census.add(state, Age::Exact(1));
        }
        let counts: Vec<_> = census.iter().map(|(s, stay)| (s, stay.count)).collect();
        assert_eq!(counts, [(TcpState::TimeWait, 2), (TcpState::CloseWait, 1)]);
    }
}
