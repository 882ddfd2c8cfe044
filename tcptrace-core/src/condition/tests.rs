use proptest::prelude::*;

use super::*;
use crate::state::ALL;

fn read(text: &str) -> Condition {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

fn numbers() -> Numbers {
    let mut census = Census::default();
    for _ in 0..501 {
        census.add(TcpState::CloseWait, Age::Exact(31_500_000_000));
    }
    census.add(
        TcpState::FinWait2,
        Age::Between {
            min: 10_000_000_000,
            max: Some(20_000_000_000),
        },
    );
    Numbers {
        census,
        lost: 0,
        overflow: 7,
        no_port: 1,
    }
}

#[test]
fn conditions_are_read_as_people_write_them() {
    for (text, emitted) in [
        ("close_wait>500", "close_wait > 500"),
        ("CLOSE-WAIT > 20k", "close_wait > 20000"),
        ("cw == 2M", "close_wait = 2000000"),
        ("FIN_WAIT_2.oldest >= 90s", "fin_wait2.oldest >= 90s"),
        ("tw.Oldest<1h30m", "time_wait.oldest < 90m"),
        ("syn_recv <> 1", "syn_recv != 1"),
        ("no-port > 0 OR Lost > 0", "no_port > 0 or lost > 0"),
        (
            "a or b and not c or d",
            "established > 1 or close_wait > 2 and not time_wait > 3 or lost > 4",
        ),
        ("(a)", "established > 1"),
        (
            "a and (b or c)",
            "established > 1 and (close_wait > 2 or time_wait > 3)",
        ),
        (
            "a or (b or c)",
            "established > 1 or (close_wait > 2 or time_wait > 3)",
        ),
        (
            "(a or b) or c",
            "established > 1 or close_wait > 2 or time_wait > 3",
        ),
        ("not (a and b)", "not (established > 1 and close_wait > 2)"),
        ("not not a", "not not established > 1"),
    ] {
        let words = text.split_inclusive([' ', '(', ')']).map(|word| {
            let bare = word.trim_end_matches([' ', ')']);
            let full = match bare {
                "a" => "established > 1",
                "b" => "close_wait > 2",
                "c" => "time_wait > 3",
                "d" => "lost > 4",
                other => other,
            };
            format!("{full}{}", &word[bare.len()..])
        });
        assert_eq!(
            read(&words.collect::<String>()).to_string(),
            emitted,
            "{text}"
        );
    }
}

#[test]
fn what_is_wrong_is_shown_at_its_place() {
    for (text, what, at) in [
        ("", "expected a state", 0),
        ("close_wait", "expected one of > >=", 10),
        ("close_wait > > 500", "expected a number", 13),
        (
            "close_wait > 500 time_wait",
            "expected 'and', 'or' or the end",
            17,
        ),
        ("close_wait > 500 or", "expected a state", 19),
        ("(close_wait > 500", "expected 'and', 'or' or ')'", 17),
        ("close_wait > 5x", "expected a number", 13),
        ("close_wait > 99999999999999999999", "expected a number", 13),
        ("close_wait.oldest > 30", "expected a time", 20),
        ("clsoe_wait > 1", "expected a state", 0),
        ("lost > 0 and close_wait.newest > 1", "expected a state", 13),
        ("lost.oldest > 1s", "lost has no age", 0),
        ("listen > 1", "connections do not stay in listen", 0),
        ("fin_wait > 1", "fin_wait is several states", 0),
        ("ä > 1 & b", "'&' has no meaning", 6),
        ("not", "expected a state", 3),
    ] {
        let error = text.parse::<Condition>().expect_err(text);
        let told = error.to_string();
        assert!(told.starts_with(what), "{text}: {told}");
        let line = told.lines().last().expect("a line");
        assert_eq!(line.find('^'), Some(at + 2), "{told}");
    }
    let deep = format!("{}lost > 0{}", "(".repeat(99), ")".repeat(99));
    let told = deep.parse::<Condition>().expect_err("too deep").to_string();
    assert!(told.starts_with("too many parentheses"), "{told}");
    assert!("lost > 0 or ".repeat(99).parse::<Condition>().is_err());
}

#[test]
fn a_condition_holds_where_its_numbers_do() {
    let numbers = numbers();
    for (text, holds) in [
        ("close_wait > 500", Some(true)),
        ("close_wait > 501", Some(false)),
        ("close_wait >= 501 and close_wait <= 501", Some(true)),
        ("close_wait = 501 and not close_wait != 501", Some(true)),
        ("close_wait < 501", Some(false)),
        ("time_wait = 0", Some(true)),
        ("close_wait.oldest > 31s", Some(true)),
        ("close_wait.oldest > 32s or overflow > 6", Some(true)),
        ("no_port > 0 and lost > 0", Some(false)),
        // Between 10 and 20 s.
        ("fin_wait2.oldest > 9s", Some(true)),
        ("fin_wait2.oldest > 10s", None),
        ("not fin_wait2.oldest > 10s", None),
        ("fin_wait2.oldest > 20s", Some(false)),
        ("fin_wait2.oldest = 15s", None),
        ("fin_wait2.oldest != 21s", Some(true)),
        ("fin_wait2.oldest > 15s and lost > 0", Some(false)),
        ("fin_wait2.oldest > 15s or no_port = 1", Some(true)),
        // There is none: neither older nor younger.
        ("time_wait.oldest > 1s", None),
        ("not time_wait.oldest > 1s", None),
    ] {
        assert_eq!(read(text).holds(&numbers), holds, "{text}");
    }
}

#[test]
fn the_reason_is_what_was_found() {
    let numbers = numbers();
    for (text, why) in [
        ("close_wait > 500", Some("close_wait = 501 (> 500)")),
        ("close_wait > 1k", None),
        (
            "lost > 0 or overflow >= 1 and close_wait.oldest > 30s",
            Some("overflow = 7 (>= 1), close_wait.oldest = 31.5s (> 30s)"),
        ),
        (
            "not (lost > 0) and fin_wait2.oldest > 1s",
            Some("lost = 0 (not > 0), fin_wait2.oldest = ~10.0s (> 1s)"),
        ),
    ] {
        assert_eq!(read(text).why(&numbers).as_deref(), why, "{text}");
    }
    let asked = read("cw > 1 or not (tw.oldest > 1s and lost > 0)").states();
    assert_eq!(asked, [TcpState::CloseWait, TcpState::TimeWait]);
}

fn comparison() -> impl Strategy<Value = Condition> {
    use Relation::{Above, AtLeast, AtMost, Below, Equal, Unequal};
    let stays: Vec<TcpState> = ALL
        .into_iter()
        .filter(|s| format!("{} > 0", s.name()).parse::<Condition>().is_ok())
        .collect();
    let state = || prop::sample::select(stays.clone());
    let quantity = prop_oneof![
        state().prop_map(Quantity::Open),
        state().prop_map(Quantity::Oldest),
        Just(Quantity::Lost),
        Just(Quantity::Overflow),
        Just(Quantity::NoPort),
    ];
    let relation = prop::sample::select(vec![Above, AtLeast, Below, AtMost, Equal, Unequal]);
    let unit = prop::sample::select(vec![1u64, 1_000, 1_000_000, 1_000_000_000, 60_000_000_000]);
    let value = (0..100_000u64, unit).prop_map(|(n, unit)| n * unit);
    (quantity, relation, value).prop_map(|(quantity, relation, value)| {
        Condition::Compare(Comparison {
            quantity,
            relation,
            value,
        })
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    comparison().prop_recursive(5, 20, 2, |inner| {
        let two = || {
            (
                inner.clone().prop_map(Box::new),
                inner.clone().prop_map(Box::new),
            )
        };
        prop_oneof![
            inner.clone().prop_map(|c| Condition::Not(Box::new(c))),
            two().prop_map(|(a, b)| Condition::And(a, b)),
            two().prop_map(|(a, b)| Condition::Or(a, b)),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(condition in condition()) {
        prop_assert_eq!(condition.to_string().parse(), Ok(condition));
    }

    #[test]
    fn a_reason_is_given_where_it_holds(condition in condition()) {
        let numbers = numbers();
        let holds = condition.holds(&numbers) == Some(true);
        let why = condition.why(&numbers);
        prop_assert_eq!(why.is_some_and(|why| !why.is_empty()), holds);
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        if let Err(error) = text.parse::<Condition>() {
            prop_assert!(error.to_string().ends_with('^'));
        }
    }

    #[test]
    fn any_words_are_read_or_refused(words in prop::collection::vec(
        prop::sample::select(vec![
            "(", ")", "not", "and", "or", "lost", "cw", "tw.oldest", ">", "<=", "=", "1", "20k", "3s",
        ]), 0..40,
    )) {
        let text = words.join(" ");
        if let Ok(condition) = text.parse::<Condition>() {
            prop_assert_eq!(condition.to_string().parse(), Ok(condition));
        }
    }
}
