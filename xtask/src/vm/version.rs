//! Which package is newer, by the version in its name.

use std::cmp::Ordering;

/// The names, the one with the highest version first.
pub(crate) fn newest_first(mut names: Vec<String>) -> Vec<String> {
    names.sort_by(|a, b| compare(b, a));
    names.dedup();
    names
}

/// Compares text as text and runs of digits as numbers.
fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (text_a, text_b) = (take(&mut a, false), take(&mut b, false));
        let (number_a, number_b) = (number(take(&mut a, true)), number(take(&mut b, true)));
        let order = text_a.cmp(text_b).then(number_a.cmp(&number_b));
        if order.is_ne() || (a.is_empty() && b.is_empty()) {
            return order;
        }
    }
}

/// Takes digits, or what is none, off the front.
fn take<'a>(text: &mut &'a str, digits: bool) -> &'a str {
    let end = text.find(|c: char| c.is_ascii_digit() != digits);
    let (taken, rest) = text.split_at(end.unwrap_or(text.len()));
    *text = rest;
    taken
}

fn number(digits: &str) -> Option<u64> {
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_as_numbers() {
        let names = [
            "linux-binary-7.0.9+deb13-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
            "linux-binary-7.0.13+deb13-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
            "linux-binary-7.2.12+deb13-cloud-amd64",
            "linux-binary-7.2.6+deb13-cloud-amd64",
        ];
        let sorted = newest_first(names.map(str::to_owned).to_vec());
        let versions: Vec<&str> = sorted.iter().map(|name| &name[13..19]).collect();
        assert_eq!(versions, ["7.3.4+", "7.2.12", "7.2.6+", "7.0.13", "7.0.9+"]);
    }
}
