//! How many connections are open, counted without looking at each as closely as the summary does.

use super::Tracker;
use crate::state::TcpState;

impl Tracker {
    /// The selected connections that are in each watched state now.
    pub fn census(&self) -> Vec<(TcpState, u64)> {
        let filter = &self.options.filter;
        let mut counts: Vec<(TcpState, u64)> = filter.states.iter().map(|s| (s, 0)).collect();
        #[expect(clippy::iter_over_hash_type, reason = "they are counted")]
        for (cookie, conn) in &self.conns {
            let Some((_, count)) = counts.iter_mut().find(|(state, _)| *state == conn.state) else {
                continue;
            };
            let selected = match filter.asks_for_owner() {
                false => filter.selects_tuple(&conn.tuple),
                true => filter.selects(&conn.view(*cookie, self.now, &self.world)),
            };
            *count += u64::from(selected);
        }
        counts
    }
}
