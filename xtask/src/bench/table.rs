//! Figures as a person reads them in docs/performance.md, and as a program does.

use serde_json::{Value, json};

use super::spread::Spread;

/// What a figure is of, and so how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Many of something.
    Count,
    /// Parts of a hundred.
    Percent,
    /// As often as another.
    Ratio,
    /// Seconds, of little time.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds, or what is as many.
    Nanos,
    /// Bytes, or anything of which tenths matter.
    Tenths,
    /// Mebibytes.
    Mebibytes,
}

impl Unit {
    fn text(self, value: f64) -> String {
        match self {
            Unit::Count | Unit::Nanos => thousands(value),
            Unit::Percent | Unit::Ratio => trimmed(value, 2),
            Unit::Seconds => trimmed(value, 3),
            Unit::Millis | Unit::Micros | Unit::Tenths | Unit::Mebibytes => match value.abs() {
                many if many >= 1000.0 => thousands(value),
                _ => trimmed(value, 1),
            },
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Unit::Percent => " %",
            Unit::Ratio => " ×",
            Unit::Seconds => " s",
            Unit::Millis => " ms",
            Unit::Micros => " µs",
            Unit::Nanos => " ns",
            Unit::Mebibytes => " MiB",
            Unit::Count | Unit::Tenths => "",
        }
    }
}

/// A table of figures.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Table {
    /// Its heading.
    pub(crate) title: String,
    /// What the rows are.
    pub(crate) subject: &'static str,
    /// What was measured of each.
    pub(crate) columns: Vec<(&'static str, Unit)>,
    /// A figure that is not known is `None`.
    pub(crate) rows: Vec<(String, Vec<Option<Spread>>)>,
}

impl Table {
    /// As Markdown.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("### {}\n\n| {} |", self.title, self.subject);
        for (name, unit) in &self.columns {
            text += &match unit.suffix().trim() {
                "" | "ns" => format!(" {name} |"),
                unit => format!(" {name}, {unit} |"),
            };
        }
        text += "\n|---|";
        text += &"---|".repeat(self.columns.len());
        for (name, figures) in &self.rows {
            text += &format!("\n| {name} |");
            for (figure, (_, unit)) in figures.iter().zip(&self.columns) {
                text += &format!(" {} |", figure_text(*figure, *unit));
            }
        }
        text + "\n"
    }

    /// As an object.
    pub(crate) fn to_json(&self) -> Value {
        let row = |(name, figures): &(String, Vec<Option<Spread>>)| {
            let columns = self.columns.iter().zip(figures);
            let figures = columns.map(|((column, _), figure)| (*column, spread_json(*figure)));
            json!({
                "name": name,
                "figures": figures.map(|(c, v)| (c.to_owned(), v)).collect::<serde_json::Map<_, _>>(),
            })
        };
        json!({
            "table": self.title,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
        })
    }
}

/// What was promised of a measure, and what was found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    /// Of what.
    pub(crate) measure: String,
    /// What it must be.
    pub(crate) bound: Bound,
    /// Of both figures.
    pub(crate) unit: Unit,
    /// What it was; `None`: not measured.
    pub(crate) found: Option<Spread>,
}

/// On which side of a figure the median must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    /// No more.
    AtMost(f64),
    /// No less.
    AtLeast(f64),
}

impl Target {
    /// Whether it is met; `None`: not known.
    pub(crate) fn met(&self) -> Option<bool> {
        let median = self.found?.median;
        Some(match self.bound {
            Bound::AtMost(most) => median <= most,
            Bound::AtLeast(least) => median >= least,
        })
    }

    fn verdict(&self) -> &'static str {
        match self.met() {
            Some(true) => "met",
            Some(false) => "**not met**",
            None => "not measured",
        }
    }
}

/// All targets as Markdown.
pub(crate) fn targets_text(targets: &[Target]) -> String {
    let mut text = "### Targets\n\n| measure | target | measured | |\n|---|---|---|---|".to_owned();
    for target in targets {
        let unit = target.unit;
        let (sign, bound) = match target.bound {
            Bound::AtMost(bound) => ("≤", bound),
            Bound::AtLeast(bound) => ("≥", bound),
        };
        let bound = format!("{sign} {}{}", unit.text(bound), unit.suffix());
        let found = figure_text(target.found, unit);
        let verdict = target.verdict();
        text += &format!("\n| {} | {bound} | {found} | {verdict} |", target.measure);
    }
    text + "\n"
}

/// All targets as objects.
pub(crate) fn targets_json(targets: &[Target]) -> Value {
    let object = |target: &Target| {
        let bound = match target.bound {
            Bound::AtMost(most) => ("at_most", most),
            Bound::AtLeast(least) => ("at_least", least),
        };
        json!({
            "measure": target.measure,
            bound.0: bound.1,
            "found": spread_json(target.found),
            "met": target.met(),
        })
    };
    targets.iter().map(object).collect()
}

/// `25,827 [24,100..26,300]`; what was measured once has no spread.
fn figure_text(figure: Option<Spread>, unit: Unit) -> String {
    let Some(spread) = figure else {
        return "–".to_owned();
    };
    let [median, least, most] = [spread.median, spread.least, spread.most].map(|v| unit.text(v));
    match least == most {
        true => median,
        false => format!("{median} [{least}..{most}]"),
    }
}

fn spread_json(figure: Option<Spread>) -> Value {
    figure.map_or(
        Value::Null,
        |spread| json!({"median": spread.median, "min": spread.least, "max": spread.most}),
    )
}

fn trimmed(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    // Nothing is less than nothing.
    match text.trim_start_matches('-').trim_matches(['0', '.']) {
        "" => "0".to_owned(),
        _ => text,
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    match value <= -0.5 {
        true => format!("-{text}"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            title: "churn".to_owned(),
            subject: "with",
            columns: vec![("connections/s", Unit::Count), ("loss", Unit::Percent)],
            rows: vec![
                ("nothing".to_owned(), vec![Spread::one(25_827.4), None]),
                (
                    "`watch`".to_owned(),
                    vec![Spread::of([900.0, 1_000_000.0]), Spread::of([-1.5, 3.0])],
                ),
            ],
        }
    }

    #[test]
    fn tables_are_markdown_and_what_is_unknown_is_no_zero() {
        assert_eq!(
            table().to_text(),
            "### churn\n\n\
             | with | connections/s | loss, % |\n\
             |---|---|---|\n\
             | nothing | 25,827 | – |\n\
             | `watch` | 500,450 [900..1,000,000] | 0.75 [-1.50..3.00] |\n"
        );
        let json = table().to_json();
        assert_eq!(json["rows"][0]["figures"]["loss"], Value::Null);
        assert_eq!(json["rows"][1]["figures"]["loss"]["min"], -1.5);
    }

    #[test]
    fn targets_say_what_they_are_and_whether_they_are_met() {
        let target = |bound, found| Target {
            measure: "loss".to_owned(),
            bound,
            unit: Unit::Percent,
            found,
        };
        let text = targets_text(&[
            target(Bound::AtMost(5.0), Spread::one(5.0)),
            target(Bound::AtLeast(10.0), Spread::one(6.0)),
            target(Bound::AtMost(5.0), None),
        ]);
        let lines: Vec<&str> = text.lines().skip(4).collect();
        assert_eq!(
            lines,
            [
                "| loss | ≤ 5.00 % | 5.00 | met |",
                "| loss | ≥ 10.00 % | 6.00 | **not met** |",
                "| loss | ≤ 5.00 % | – | not measured |",
            ]
        );
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(thousands(0.4), "0");
        assert_eq!(thousands(-1_234.0), "-1,234");
        assert_eq!(thousands(999.6), "1,000");
        assert_eq!(trimmed(-0.001, 2), "0");
        assert_eq!(Unit::Millis.text(5_043.2), "5,043");
        assert_eq!(Unit::Tenths.text(3.96), "4.0");
    }
}
