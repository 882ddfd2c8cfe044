//! Text to conditions.

use std::str::FromStr;

use super::{Comparison, Condition, Quantity, Relation};
use crate::state::{StateSet, TcpState};
use crate::time::parse_duration;

/// Nobody writes a longer one by hand.
const MAX_CHARS: usize = 1_000;

/// `not` and parentheses within one another.
const MAX_DEPTH: usize = 50;

/// Why a text is no condition, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}\n  {text}\n  {:at$}^", "")]
pub struct ConditionError {
    what: String,
    /// The text on one line.
    text: String,
    /// How many characters stand before the place.
    at: usize,
}

impl FromStr for Condition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Condition, ConditionError> {
        let read = || {
            if text.chars().count() > MAX_CHARS {
                return Err((0, format!("more than {MAX_CHARS} characters")));
            }
            let mut parser = Parser {
                tokens: tokens(text)?,
                next: 0,
                end: text.len(),
                depth: 0,
            };
            let condition = parser.any_of()?;
            match parser.peek() {
                None => Ok(condition),
                Some(_) => Err(parser.expected("'and', 'or' or the end")),
            }
        };
        read().map_err(|(at, what)| ConditionError {
            what,
            text: text.replace(char::is_control, " "),
            at: text.get(..at).map_or(0, |before| before.chars().count()),
        })
    }
}

/// Where in the text, in bytes, and what is wrong there.
type Wrong = (usize, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A name, or `and`, `or`, `not`.
    Word(&'a str),
    /// A number with what is written onto it.
    Number(&'a str),
    Relation(Relation),
    Open,
    Shut,
}

fn tokens(text: &str) -> Result<Vec<(usize, Token<'_>)>, Wrong> {
    const RELATIONS: [(&str, Relation); 8] = [
        (">=", Relation::AtLeast),
        ("<=", Relation::AtMost),
        ("!=", Relation::Unequal),
        ("<>", Relation::Unequal),
        ("==", Relation::Equal),
        (">", Relation::Above),
        ("<", Relation::Below),
        ("=", Relation::Equal),
    ];
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let run = |more: &str| {
            let inside = |c: char| c.is_alphanumeric() || more.contains(c);
            &rest[..rest.find(|c| !inside(c)).unwrap_or(rest.len())]
        };
        let relation = RELATIONS.iter().find(|(sign, _)| rest.starts_with(sign));
        let (token, length) = match (first, relation) {
            (c, _) if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            ('(', _) => (Token::Open, 1),
            (')', _) => (Token::Shut, 1),
            (_, Some((sign, relation))) => (Token::Relation(*relation), sign.len()),
            (c, _) if c.is_ascii_digit() => {
                let number = run(".");
                (Token::Number(number), number.len())
            }
            (c, _) if c.is_alphabetic() => {
                let word = run("._-");
                (Token::Word(word), word.len())
            }
            _ => {
                return Err((
                    at,
                    format!("'{}' has no meaning here", first.escape_debug()),
                ));
            }
        };
        tokens.push((at, token));
        at += length;
    }
    Ok(tokens)
}

struct Parser<'a> {
    tokens: Vec<(usize, Token<'a>)>,
    next: usize,
    /// Length of the text.
    end: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.next).map(|(_, token)| *token)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(at, _)| *at)
    }

    fn expected(&self, what: &str) -> Wrong {
        (self.at(), format!("expected {what}"))
    }

    /// Takes the word if it comes next.
    fn takes(&mut self, word: &str) -> bool {
        let comes = matches!(self.peek(), Some(Token::Word(w)) if w.eq_ignore_ascii_case(word));
        self.next += usize::from(comes);
        comes
    }

    fn any_of(&mut self) -> Result<Condition, Wrong> {
        let mut condition = self.all_of()?;
        while self.takes("or") {
            condition = Condition::Or(Box::new(condition), Box::new(self.all_of()?));
        }
        Ok(condition)
    }

    fn all_of(&mut self) -> Result<Condition, Wrong> {
        let mut condition = self.one()?;
        while self.takes("and") {
            condition = Condition::And(Box::new(condition), Box::new(self.one()?));
        }
        Ok(condition)
    }

    fn one(&mut self) -> Result<Condition, Wrong> {
        if self.depth >= MAX_DEPTH {
            return Err((self.at(), "too many parentheses and 'not'".to_owned()));
        }
        self.depth += 1;
        let condition = if self.takes("not") {
            Condition::Not(Box::new(self.one()?))
        } else if self.peek() == Some(Token::Open) {
            self.next += 1;
            let inner = self.any_of()?;
            if self.peek() != Some(Token::Shut) {
                return Err(self.expected("'and', 'or' or ')'"));
            }
            self.next += 1;
            inner
        } else {
            Condition::Compare(self.comparison()?)
        };
        self.depth -= 1;
        Ok(condition)
    }

    fn comparison(&mut self) -> Result<Comparison, Wrong> {
        const NAMES: &str = "a state as close_wait, its age as close_wait.oldest, lost, overflow \
                             or no_port";
        let Some(Token::Word(word)) = self.peek() else {
            return Err(self.expected(NAMES));
        };
        let quantity = quantity(word).map_err(|why| match why {
            Some(why) => (self.at(), why),
            None => self.expected(NAMES),
        })?;
        self.next += 1;
        let Some(Token::Relation(relation)) = self.peek() else {
            return Err(self.expected("one of > >= < <= = !="));
        };
        self.next += 1;
        let value = match self.peek() {
            Some(Token::Number(number)) if quantity.is_duration() => duration(number),
            Some(Token::Number(number)) => count(number),
            _ => None,
        };
        let value = value.ok_or_else(|| match quantity.is_duration() {
            true => self.expected("a time with its unit, as in 500ms or 30s"),
            false => self.expected("a number, as in 500 or 20k"),
        })?;
        self.next += 1;
        Ok(Comparison {
            quantity,
            relation,
            value,
        })
    }
}

/// What a word names; why not, where that can be said better than by a list of all.
fn quantity(word: &str) -> Result<Quantity, Option<String>> {
    use TcpState::{BoundInactive, Close, Listen, NewSynRecv};
    let (name, oldest) = match word.rsplit_once('.') {
        Some((name, part)) if part.eq_ignore_ascii_case("oldest") => (name, true),
        Some(_) => return Err(None),
        None => (word, false),
    };
    let whole = match name.to_ascii_lowercase().as_str() {
        "lost" => Some(Quantity::Lost),
        "overflow" => Some(Quantity::Overflow),
        "no_port" | "no-port" => Some(Quantity::NoPort),
        _ => None,
    };
    if let Some(quantity) = whole {
        return match oldest {
            true => Err(Some(format!("{quantity} has no age"))),
            false => Ok(quantity),
        };
    }
    let named: StateSet = name.parse().map_err(|_| None)?;
    let none = StateSet::of(&[BoundInactive, Close, Listen, NewSynRecv]);
    let stays: Vec<TcpState> = named.iter().filter(|s| !none.contains(*s)).collect();
    match stays[..] {
        [state] if oldest => Ok(Quantity::Oldest(state)),
        [state] => Ok(Quantity::Open(state)),
        [] => Err(Some(format!("connections do not stay in {named}"))),
        _ => Err(Some(format!("{name} is several states: name one"))),
    }
}

/// `500`, `20k`, `2m`.
fn count(text: &str) -> Option<u64> {
    let number = text.trim_end_matches(|c: char| c.is_alphabetic());
    let factor = match &text[number.len()..] {
        "" => 1,
        "k" | "K" => 1_000,
        "m" | "M" => 1_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// `30s`: a bare number, the unit of which is anybody's guess, is none.
fn duration(text: &str) -> Option<u64> {
    let has_unit = text == "0" || text.ends_with(char::is_alphabetic);
    parse_duration(text).ok().filter(|_| has_unit)
}
