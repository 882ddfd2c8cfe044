//! What was read of the host, kept as it was first and last.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Tracker;
use crate::host::{Activity, Reading};
use crate::input::Definition;

/// More readings and processes than these are not kept: no host has as many namespaces.
const MAX: usize = 65_536;

/// Readings by namespace and name, and the latest activity of processes.
#[derive(Debug, Default)]
pub(super) struct Host {
    readings: BTreeMap<(u32, Arc<str>), Span>,
    activities: BTreeMap<u32, Activity>,
}

/// The first value and the latest.
#[derive(Clone, Debug)]
struct Span {
    first: Arc<str>,
    last: Arc<str>,
}

impl Host {
    pub(super) fn read(&mut self, reading: &Reading) {
        let key = (reading.netns, reading.name.clone());
        if let Some(span) = self.readings.get_mut(&key) {
            span.last = reading.value.clone();
        } else if self.readings.len() < MAX {
            let [first, last] = [reading.value.clone(), reading.value.clone()];
            self.readings.insert(key, Span { first, last });
        }
    }

    pub(super) fn acted(&mut self, activity: &Activity) {
        if self.activities.len() < MAX || self.activities.contains_key(&activity.pid) {
            self.activities.insert(activity.pid, activity.clone());
        }
    }

    /// Nothing has been counted yet.
    pub(super) fn restart(&mut self) {
        for span in self.readings.values_mut() {
            span.first = span.last.clone();
        }
    }

    /// For one who has not heard of it.
    pub(super) fn definitions(&self) -> impl Iterator<Item = Definition> {
        let readings = self.readings.iter().map(|((netns, name), span)| Reading {
            netns: *netns,
            name: name.clone(),
            value: span.last.clone(),
        });
        let activities = self.activities.values().cloned();
        readings
            .map(Definition::Reading)
            .chain(activities.map(Definition::Activity))
    }
}

impl Tracker {
    /// A setting of a namespace; `None`: it was not read.
    pub fn setting(&self, netns: Option<u32>, name: &str) -> Option<&str> {
        let readings = &self.world.host.readings;
        let key = (netns?, Arc::from(name));
        readings.get(&key).map(|span| &*span.last)
    }

    /// A setting that is a number.
    pub fn setting_number(&self, netns: Option<u32>, name: &str) -> Option<u64> {
        self.setting(netns, name)?.parse().ok()
    }

    /// By how much a counter of a namespace has grown; `None`: it was not read.
    pub fn counted(&self, netns: u32, name: &str) -> Option<u64> {
        let span = self.world.host.readings.get(&(netns, Arc::from(name)))?;
        let number = |text: &str| text.parse::<u64>().ok();
        Some(number(&span.last)?.saturating_sub(number(&span.first)?))
    }

    /// The namespaces of which something was read, in order.
    pub fn namespaces_read(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self.world.host.readings.keys().map(|(n, _)| *n).collect();
        all.dedup();
        all
    }

    /// What a process had open and waited for when it was last looked at.
    pub fn activity(&self, pid: u32) -> Option<&Activity> {
        self.world.host.activities.get(&pid)
    }

    /// The same of all that were looked at, by pid.
    pub fn activities(&self) -> impl Iterator<Item = &Activity> {
        self.world.host.activities.values()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;
    use crate::input::Input;
    use crate::time::Mono;

    #[test]
    fn counters_count_from_the_first_reading() {
        let mut tracker = Tracker::new(Options::default());
        let mut read = |value: &str| {
            let reading = Reading {
                netns: 4,
                name: Arc::from("TcpExt.ListenOverflows"),
                value: Arc::from(value),
            };
            tracker.apply(
                &Input::Define(Definition::Reading(reading)),
                &mut Vec::new(),
            );
            tracker.counted(4, "TcpExt.ListenOverflows")
        };
        assert_eq!(read("7"), Some(0));
        assert_eq!(read("12"), Some(5));
        assert_eq!(read("x"), None);
        assert_eq!(read("9"), Some(2));
        tracker.restart(Mono(1));
        assert_eq!(tracker.counted(4, "TcpExt.ListenOverflows"), Some(0));
        assert_eq!(tracker.counted(5, "TcpExt.ListenOverflows"), None);
        assert_eq!(
            tracker.setting(Some(4), "TcpExt.ListenOverflows"),
            Some("9")
        );
        assert_eq!(tracker.setting(None, "TcpExt.ListenOverflows"), None);
        assert_eq!(tracker.namespaces_read(), [4]);
    }
}
