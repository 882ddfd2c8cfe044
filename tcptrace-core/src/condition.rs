//! Conditions on what a trace counts, as a person writes them: `close_wait > 500 or lost > 0`.

mod parse;

use std::fmt;

use crate::state::TcpState;
use crate::time::Age;
use crate::tracker::Census;

pub use parse::ConditionError;

/// What conditions are about, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// The connections that are there.
    pub census: Census,
    /// Events that were lost since the start.
    pub lost: u64,
    /// Connection attempts that full accept queues dropped since the start.
    pub overflow: u64,
    /// Connects that failed since the start because no local port was free.
    pub no_port: u64,
}

/// A condition, read from text by [`FromStr`](std::str::FromStr). Its [`Display`](fmt::Display) is
/// read back as the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A number compared with another.
    Compare(Comparison),
    /// It does not hold.
    Not(Box<Condition>),
    /// Both hold.
    And(Box<Condition>, Box<Condition>),
    /// One of them holds.
    Or(Box<Condition>, Box<Condition>),
}

/// `close_wait > 500`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// What is compared.
    pub quantity: Quantity,
    /// How.
    pub relation: Relation,
    /// With what: a count, or ns.
    pub value: u64,
}

/// What can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// How many are in the state.
    Open(TcpState),
    /// How long the oldest of them has been in it.
    Oldest(TcpState),
    /// Events lost since the start.
    Lost,
    /// Connection attempts that full accept queues dropped since the start.
    Overflow,
    /// Connects that found no free local port since the start.
    NoPort,
}

/// How it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `=`
    Equal,
    /// `!=`
    Unequal,
}

impl Condition {
    /// Whether it holds; `None`: what is known does not tell, as of an age that has bounds only, or
    /// of the oldest where there is none.
    pub fn holds(&self, numbers: &Numbers) -> Option<bool> {
        match self {
            Condition::Compare(comparison) => comparison.holds(numbers),
            Condition::Not(inner) => inner.holds(numbers).map(|holds| !holds),
            Condition::And(one, other) => match (one.holds(numbers), other.holds(numbers)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Condition::Or(one, other) => match (one.holds(numbers), other.holds(numbers)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
        }
    }

    /// What makes it hold, if it does: `close_wait = 501 (> 500)`.
    pub fn why(&self, numbers: &Numbers) -> Option<String> {
        if self.holds(numbers) != Some(true) {
            return None;
        }
        let mut reasons = Vec::new();
        self.reasons(true, numbers, &mut reasons);
        Some(reasons.join(", "))
    }

    /// Every state that it asks for.
    pub fn states(&self) -> Vec<TcpState> {
        match self {
            Condition::Compare(comparison) => match comparison.quantity {
                Quantity::Open(state) | Quantity::Oldest(state) => vec![state],
                Quantity::Lost | Quantity::Overflow | Quantity::NoPort => Vec::new(),
            },
            Condition::Not(inner) => inner.states(),
            Condition::And(one, other) | Condition::Or(one, other) => {
                [one.states(), other.states()].concat()
            }
        }
    }

    /// The comparisons that come out so that the condition comes out as `wanted`.
    fn reasons(&self, wanted: bool, numbers: &Numbers, reasons: &mut Vec<String>) {
        match self {
            Condition::Compare(comparison) => {
                if comparison.holds(numbers) == Some(wanted) {
                    reasons.push(comparison.told(wanted, numbers));
                }
            }
            Condition::Not(inner) => inner.reasons(!wanted, numbers, reasons),
            Condition::And(one, other) | Condition::Or(one, other) => {
                for part in [one, other] {
                    if part.holds(numbers) == Some(wanted) {
                        part.reasons(wanted, numbers, reasons);
                    }
                }
            }
        }
    }

    /// How tightly it binds, loosest first.
    fn rank(&self) -> u8 {
        match self {
            Condition::Or(..) => 0,
            Condition::And(..) => 1,
            Condition::Not(_) => 2,
            Condition::Compare(_) => 3,
        }
    }
}

impl Comparison {
    fn holds(self, numbers: &Numbers) -> Option<bool> {
        let (least, most) = self.quantity.bounds(numbers)?;
        let value = self.value;
        let at_most = |limit| most.is_some_and(|most| most <= limit);
        let below = |limit| most.is_some_and(|most| most < limit);
        let decided = |yes: bool, no: bool| (yes || no).then_some(yes);
        match self.relation {
            Relation::Above => decided(least > value, at_most(value)),
            Relation::AtLeast => decided(least >= value, below(value)),
            Relation::Below => decided(below(value), least >= value),
            Relation::AtMost => decided(at_most(value), least > value),
            Relation::Equal => decided(
                least == value && at_most(value),
                least > value || below(value),
            ),
            Relation::Unequal => decided(
                least > value || below(value),
                least == value && at_most(value),
            ),
        }
    }

    /// `close_wait = 501 (> 500)`.
    fn told(self, holds: bool, numbers: &Numbers) -> String {
        let quantity = self.quantity;
        let is = match quantity {
            Quantity::Oldest(state) => match numbers.census.of(state).oldest {
                Some(age) => age.to_string(),
                None => "?".to_owned(),
            },
            _ => match quantity.bounds(numbers) {
                Some((count, _)) => count.to_string(),
                None => "?".to_owned(),
            },
        };
        let not = if holds { "" } else { "not " };
        let (relation, value) = (self.relation, quantity.value_text(self.value));
        format!("{quantity} = {is} ({not}{relation} {value})")
    }
}

impl Quantity {
    /// Whether it is a time.
    fn is_duration(self) -> bool {
        matches!(self, Quantity::Oldest(_))
    }

    /// At least and at most so much; `None`: there is none.
    fn bounds(self, numbers: &Numbers) -> Option<(u64, Option<u64>)> {
        let exact = |count| Some((count, Some(count)));
        match self {
            Quantity::Open(state) => exact(numbers.census.of(state).count),
            Quantity::Oldest(state) => {
                let age: Age = numbers.census.of(state).oldest?;
                Some((age.at_least().unwrap_or(0), age.at_most()))
            }
            Quantity::Lost => exact(numbers.lost),
            Quantity::Overflow => exact(numbers.overflow),
            Quantity::NoPort => exact(numbers.no_port),
        }
    }

    fn value_text(self, value: u64) -> String {
        const UNITS: [(u64, &str); 7] = [
            (86_400_000_000_000, "d"),
            (3_600_000_000_000, "h"),
            (60_000_000_000, "m"),
            (1_000_000_000, "s"),
            (1_000_000, "ms"),
            (1_000, "us"),
            (1, "ns"),
        ];
        let fits = |unit: &&(u64, &str)| value.is_multiple_of(unit.0);
        match UNITS.iter().find(fits) {
            Some((unit, name)) if self.is_duration() && value > 0 => {
                format!("{}{name}", value / unit)
            }
            _ if self.is_duration() => "0s".to_owned(),
            _ => value.to_string(),
        }
    }
}

/// With as few parentheses as it takes.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = |f: &mut fmt::Formatter<'_>, part: &Condition, least| {
            if part.rank() < least {
                write!(f, "({part})")
            } else {
                write!(f, "{part}")
            }
        };
        let rank = self.rank();
        match self {
            Condition::Compare(comparison) => {
                let value = comparison.quantity.value_text(comparison.value);
                write!(f, "{} {} {value}", comparison.quantity, comparison.relation)
            }
            Condition::Not(part) => {
                f.write_str("not ")?;
                inner(f, part, rank)
            }
            // From the left: the right one binds tighter.
            Condition::And(one, other) | Condition::Or(one, other) => {
                inner(f, one, rank)?;
                let or = matches!(self, Condition::Or(..));
                f.write_str(if or { " or " } else { " and " })?;
                inner(f, other, rank + 1)
            }
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Quantity::Open(state) => f.write_str(state.name()),
            Quantity::Oldest(state) => write!(f, "{}.oldest", state.name()),
            Quantity::Lost => f.write_str("lost"),
            Quantity::Overflow => f.write_str("overflow"),
            Quantity::NoPort => f.write_str("no_port"),
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Relation::Above => ">",
            Relation::AtLeast => ">=",
            Relation::Below => "<",
            Relation::AtMost => "<=",
            Relation::Equal => "=",
            Relation::Unequal => "!=",
        })
    }
}

#[cfg(test)]
mod tests;
