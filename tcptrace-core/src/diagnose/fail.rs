//! What makes a diagnosis a failure for scripts: findings by name and gravity, or numbers.

use std::str::FromStr;

use super::{Diagnosis, IDS, Id, Severity};
use crate::condition::{Condition, ConditionError};
use crate::tracker::Tracker;

/// When a diagnosis is a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailOn {
    /// When there is one of these findings.
    Findings(Vec<Named>),
    /// When the numbers at the end are so.
    Condition(Condition),
}

/// Findings that are named together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// At least as grave as this.
    Severity(Severity),
    /// Of this kind.
    Id(Id),
}

impl FailOn {
    /// What makes it a failure, if it is one.
    pub fn why(&self, diagnosis: &Diagnosis, tracker: &Tracker) -> Option<String> {
        match self {
            FailOn::Findings(names) => {
                let is_one = |id: Id, severity: Severity| {
                    names.iter().any(|name| match name {
                        Named::Severity(least) => severity >= *least,
                        Named::Id(named) => id == *named,
                    })
                };
                let found = diagnosis.findings.iter();
                let mut found = found.filter(|f| is_one(f.id, f.severity));
                found.next().map(|f| format!("{} ({})", f.id, f.severity))
            }
            FailOn::Condition(condition) => {
                condition.why(&tracker.numbers(condition, tracker.now()))
            }
        }
    }
}

impl FromStr for FailOn {
    type Err = ConditionError;

    /// Reads `warning`, `close_wait_client,fd_limit`, and conditions as `close_wait > 500`.
    fn from_str(text: &str) -> Result<FailOn, ConditionError> {
        let names: Option<Vec<Named>> = text.split(',').map(|name| named(name.trim())).collect();
        match names {
            Some(names) => Ok(FailOn::Findings(names)),
            None => text.parse().map(FailOn::Condition),
        }
    }
}

fn named(name: &str) -> Option<Named> {
    let id = IDS.into_iter().find(|id| id.name() == name);
    let severity = || name.parse().ok().map(Named::Severity);
    id.map(Named::Id).or_else(severity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_conditions_are_read() {
        assert_eq!(
            "warning, fd_limit".parse(),
            Ok(FailOn::Findings(vec![
                Named::Severity(Severity::Warning),
                Named::Id(Id::FdLimit)
            ]))
        );
        let condition = "close_wait > 500".parse::<FailOn>();
        assert!(matches!(condition, Ok(FailOn::Condition(_))));
        assert!("warning, nonsense".parse::<FailOn>().is_err());
    }
}
