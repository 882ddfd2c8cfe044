//! Reads what Rust's test harness prints.

/// What the test binaries of one step reported.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    /// The names of the tests that failed.
    pub(crate) failures: Vec<String>,
    line: Vec<u8>,
    listed: Vec<String>,
}

impl Report {
    /// Takes the next piece of output; lines may be split anywhere.
    pub(crate) fn read(&mut self, piece: &[u8]) {
        for byte in piece {
            if *byte == b'\n' {
                let line = String::from_utf8_lossy(&self.line).into_owned();
                self.line.clear();
                self.read_line(&line);
            } else {
                self.line.push(*byte);
            }
        }
    }

    /// The test that had begun when the output ended.
    pub(crate) fn unfinished(&self) -> Option<String> {
        let line = String::from_utf8_lossy(&self.line);
        let name = line.strip_prefix("test ")?.split(" ... ").next()?;
        Some(name.to_owned())
    }

    fn read_line(&mut self, line: &str) {
        // A test's own output may stand before it on the line.
        if let Some((_, result)) = line.split_once("test result: ") {
            self.passed += count(result, "passed");
            self.failed += count(result, "failed");
            self.ignored += count(result, "ignored");
            self.failures.append(&mut self.listed);
        } else if line == "failures:" {
            // It comes twice: over the tests' output, then over the list of names.
            self.listed.clear();
        } else if let Some(name) = line.strip_prefix("    ") {
            self.listed.push(name.to_owned());
        } else if !line.is_empty() {
            self.listed.clear();
        }
    }
}

/// The number before `what` in `ok. 3 passed; 0 failed; …`.
fn count(result: &str, what: &str) -> u64 {
    result
        .split([';', '.'])
        .filter_map(|part| part.trim().strip_suffix(what))
        .find_map(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 3 tests
test a ... ok
test b ... FAILED
test c ... ignored

failures:

---- b stdout ----
    indented, but no name
thread 'b' panicked

failures:
    b
    mod::d

test result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.10s

     noise without a newline: test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured

test slow ... ";

    #[test]
    fn counts_and_names_come_out_however_the_output_is_cut() {
        for size in [1, 7, OUTPUT.len()] {
            let mut report = Report::default();
            for piece in OUTPUT.as_bytes().chunks(size) {
                report.read(piece);
            }
            assert_eq!((report.passed, report.failed, report.ignored), (6, 2, 1));
            assert_eq!(report.failures, ["b", "mod::d"]);
            assert_eq!(report.unfinished().as_deref(), Some("slow"));
        }
    }
}
