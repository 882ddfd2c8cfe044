//! Reads what the guest's init prints: frames around the output of each program.

use crate::libtest::Report;

/// How lines begin that are init's and not a program's.
const MARK: &str = "@@tcptrace ";

/// The output of one program.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) name: String,
    /// Its exit code; `None` when it did not come to its end.
    pub(crate) code: Option<i32>,
    /// Seconds by the guest's clock.
    pub(crate) seconds: f64,
    pub(crate) output: String,
    /// What the output says, if it is a test binary's.
    pub(crate) report: Report,
}

impl Frame {
    /// Failed tests; a program that failed without naming one counts as one.
    pub(crate) fn failed(&self) -> u64 {
        let least = u64::from(self.code != Some(0));
        self.report.failed.max(least)
    }
}

/// Everything that a guest said.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    pub(crate) frames: Vec<Frame>,
    /// Whether init came to its end.
    pub(crate) done: bool,
}

impl Frames {
    /// Reads the output of a guest; its last line may have no end.
    pub(crate) fn of(said: &[u8]) -> Frames {
        // Without what a terminal puts before a newline.
        let said = String::from_utf8_lossy(said).replace('\r', "");
        let mut frames = Frames::default();
        let mut open = false;
        for line in said.split_inclusive('\n') {
            let whole = line.strip_suffix('\n');
            let words = whole.and_then(|line| line.strip_prefix(MARK));
            let words = words.map(|words| words.split(' ').collect::<Vec<_>>());
            match (words.as_deref(), frames.frames.last_mut()) {
                (Some(["begin", name, at]), _) => {
                    frames.frames.push(Frame {
                        name: (*name).to_owned(),
                        code: None,
                        seconds: -seconds(at),
                        output: String::new(),
                        report: Report::default(),
                    });
                    open = true;
                }
                (Some(["end", name, code, at]), last) => {
                    if let Some(frame) = last.filter(|frame| frame.name == *name) {
                        frame.code = code.parse().ok();
                        frame.seconds += seconds(at);
                    }
                    open = false;
                }
                (Some(["done"]), _) => frames.done = true,
                (_, Some(frame)) if open => frame.output.push_str(line),
                _ => {}
            }
        }
        for frame in &mut frames.frames {
            frame.report.read(frame.output.as_bytes());
        }
        frames
    }
}

fn seconds(text: &str) -> f64 {
    text.parse().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "noise\r\n@@tcptrace begin doctor 2.50\r\n{}\r\n\r\n\
        @@tcptrace end doctor 3 4.00\r\n@@tcptrace begin owners 4.00\r\n\
        running 2 tests\r\ntest a ... ok\r\ntest b ... FAILED\r\n\r\nfailures:\r\n    b\r\n\r\n\
        test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\r\n\
        @@tcptrace end owners 101 9.25\r\n@@tcptrace begin states 9.25\r\ntest c ... ";

    #[test]
    fn frames_come_out_of_the_output() {
        let said = Frames::of(SAID.as_bytes());
        let [doctor, owners, states] = &said.frames[..] else {
            panic!("{said:?}");
        };
        assert_eq!((doctor.code, doctor.seconds), (Some(3), 1.5));
        assert_eq!(doctor.output, "{}\n\n");
        assert_eq!((owners.code, owners.seconds), (Some(101), 5.25));
        assert_eq!((owners.report.passed, owners.failed()), (1, 1));
        assert_eq!(owners.report.failures, ["b"]);
        assert_eq!((states.code, states.failed()), (None, 1));
        assert_eq!(states.report.unfinished().as_deref(), Some("c"));
        assert!(!said.done);
    }
}
