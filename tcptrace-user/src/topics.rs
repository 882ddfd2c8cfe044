//! What `tcptrace explain` knows: the texts in `topics/*.txt`, one file per group.
//!
//! A topic begins with `== name: title`. The lines after it, up to the first empty one, may be `names:`
//! (other spellings), `values:` (what [`crate::kernel::value`] reads of the running kernel) and `see:`
//! (other topics), each a list with commas. Then comes the text: titles in capitals, paragraphs, and
//! indented lines, which are printed as they stand.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use tcptrace_core::state::StateSet;

/// Title and texts of each group, in the order in which they are listed.
const GROUPS: [(&str, &str); 10] = [
    ("States", include_str!("../topics/states.txt")),
    ("Verdicts", include_str!("../topics/verdicts.txt")),
    ("Recv-Q", include_str!("../topics/recv_q.txt")),
    ("Findings", include_str!("../topics/findings.txt")),
    ("Sysctls and limits", include_str!("../topics/sysctls.txt")),
    ("Errors", include_str!("../topics/errors.txt")),
    ("Socket options", include_str!("../topics/options.txt")),
    ("Counters", include_str!("../topics/counters.txt")),
    ("Other tools", include_str!("../topics/tools.txt")),
    ("Notions", include_str!("../topics/notions.txt")),
];

/// How like a name must be to be suggested, 0 to 1, and how many are.
const LIKE: f64 = 0.8;
const SUGGESTED: usize = 3;

/// One thing that is explained.
#[derive(Clone, Debug, Default)]
pub(crate) struct Topic {
    /// The name under which it is listed.
    pub(crate) name: &'static str,
    /// What it is, in a line.
    pub(crate) title: &'static str,
    /// The group that it is listed in.
    pub(crate) group: &'static str,
    /// Other spellings.
    pub(crate) names: Vec<&'static str>,
    /// What of the running kernel belongs to it.
    pub(crate) values: Vec<&'static str>,
    /// Other topics.
    pub(crate) see: Vec<&'static str>,
    /// Titles, paragraphs and indented lines.
    pub(crate) text: &'static str,
}

/// Every topic, group by group.
pub(crate) fn all() -> &'static [Topic] {
    static ALL: LazyLock<Vec<Topic>> = LazyLock::new(|| {
        let groups = GROUPS.iter();
        groups.flat_map(|(group, file)| read(group, file)).collect()
    });
    &ALL
}

/// The topic that is meant: `CLOSE-WAIT`, `cw`, `net.ipv4.tcp_tw_reuse`, `99`, `[Errno 99]`.
pub(crate) fn find(asked: &str) -> Option<&'static Topic> {
    let wanted = key(asked);
    let with = |wanted: &str| all().iter().find(|t| t.keys().any(|k| k == wanted));
    with(&wanted)
        .or_else(|| with(errno(&wanted)?))
        .or_else(|| with(wanted.strip_prefix("tcp")?))
        .or_else(|| {
            let states: StateSet = asked.parse().ok()?;
            let mut states = states.iter();
            let (only, None) = (states.next()?, states.next()) else {
                return None;
            };
            with(&key(only.name()))
        })
}

/// The names of topics that are like what was asked for, the likest first.
pub(crate) fn nearest(asked: &str) -> Vec<&'static str> {
    let wanted = key(asked);
    let like = |topic: &'static Topic| {
        let keys = topic.keys().map(|k| match k.contains(&wanted) {
            true if wanted.len() > 2 => 1.0,
            _ => strsim::jaro_winkler(&k, &wanted),
        });
        (keys.fold(0.0, f64::max), topic.name)
    };
    let mut near: Vec<(f64, &str)> = all().iter().map(like).collect();
    near.retain(|(likeness, _)| *likeness >= LIKE);
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.iter().take(SUGGESTED).map(|(_, name)| *name).collect()
}

impl Topic {
    /// All its spellings, as they are compared.
    fn keys(&self) -> impl Iterator<Item = String> {
        let keys: BTreeSet<String> = [self.name]
            .iter()
            .chain(&self.names)
            .map(|n| key(n))
            .collect();
        keys.into_iter()
    }
}

/// A name without what people write in different ways: case, punctuation, where a sysctl stands.
fn key(name: &str) -> String {
    let name = name.trim().to_ascii_lowercase();
    let name = name.trim_start_matches("/proc/sys/").replace('/', ".");
    let is_path = ["net.", "fs.", "kernel."]
        .iter()
        .any(|p| name.starts_with(p));
    let last = match is_path {
        true => name.rsplit('.').next().unwrap_or(&name),
        false => &name,
    };
    last.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// The number in `errno99` and `errno99cannotassignrequestedaddress`.
fn errno(key: &str) -> Option<&str> {
    let rest = key.strip_prefix("errno")?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    Some(&rest[..end])
}

fn read(group: &'static str, file: &'static str) -> Vec<Topic> {
    let topics = file
        .split("\n== ")
        .map(|t| t.strip_prefix("== ").unwrap_or(t));
    topics
        .map(|topic| {
            let (head, text) = topic.split_once("\n\n").unwrap_or((topic, ""));
            let mut lines = head.lines();
            let first = lines.next().unwrap_or_default();
            let (name, title) = first.split_once(": ").unwrap_or((first, ""));
            let mut topic = Topic {
                name,
                title,
                group,
                text: text.trim_end(),
                ..Topic::default()
            };
            for line in lines {
                let (field, list) = line.split_once(": ").unwrap_or((line, ""));
                let list = list.split(", ").collect();
                match field {
                    "names" => topic.names = list,
                    "values" => topic.values = list,
                    _ => topic.see = list,
                }
            }
            topic
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser;
    use tcptrace_core::state;

    use super::*;
    use crate::cli::Cli;

    /// Titles that a text may have, in their order.
    const TITLES: [&str; 6] = [
        "WHAT IT IS",
        "MANY OF THEM",
        "SEE IT",
        "WHAT TO DO",
        "WHAT DOES NOT HELP",
        "WHERE IT COMES FROM",
    ];

    #[test]
    fn every_state_and_finding_has_a_topic_of_its_name() {
        let states = state::ALL.iter().map(|s| s.name());
        let findings = tcptrace_core::diagnose::IDS.map(|id| id.name());
        for name in states.chain(findings) {
            assert_eq!(find(name).map(|t| t.name), Some(name));
        }
    }

    #[test]
    fn every_verdict_and_cause_is_explained() {
        use tcptrace_core::cause::Cause;
        use tcptrace_core::verdict::Verdict;
        for verdict in Verdict::ALL {
            let topic = find(verdict.name()).unwrap_or_else(|| panic!("{verdict:?}"));
            assert!(topic.text.contains(verdict.text()), "{verdict:?}");
        }
        let causes = find("causes").expect("causes").text;
        for cause in Cause::ALL {
            let line = format!("\n    {:<19}{}", cause.name(), cause.text());
            assert!(causes.contains(&line), "{line}");
        }
    }

    #[test]
    fn names_are_read_in_every_common_spelling() {
        for (asked, name) in [
            ("CLOSE-WAIT", "close_wait"),
            ("cw", "close_wait"),
            ("TCP_CLOSE_WAIT", "close_wait"),
            ("fin-wait-2", "fin_wait2"),
            ("ESTAB", "established"),
            ("net.ipv4.tcp_tw_reuse", "tcp_tw_reuse"),
            ("/proc/sys/net/ipv4/tcp_tw_reuse", "tcp_tw_reuse"),
            ("99", "eaddrnotavail"),
            ("Errno 99", "eaddrnotavail"),
            (
                "[Errno 99] Cannot assign requested address",
                "eaddrnotavail",
            ),
            ("EADDRNOTAVAIL", "eaddrnotavail"),
            ("Connection reset by peer", "econnreset"),
            ("fs.file-max", "file_max"),
            ("ulimit -n", "rlimit_nofile"),
            ("ss -s", "ss"),
            ("Recv-Q 1", "fin_unread"),
            ("PAWSActive", "paws"),
            ("TcpExtListenDrops", "listen_drops"),
        ] {
            assert_eq!(find(asked).map(|t| t.name), Some(name), "{asked}");
        }
        for asked in ["", "wait", "fw", "all", "errno", "Errno 7777", "\u{202e}"] {
            assert!(find(asked).is_none(), "{asked}");
        }
    }

    #[test]
    fn what_is_misspelt_is_suggested() {
        assert_eq!(nearest("clsoe_wait")[0], "close_wait");
        assert_eq!(nearest("EADDRNOTAVIAL")[0], "eaddrnotavail");
        assert!(nearest("reuse").contains(&"tcp_tw_reuse"));
        assert!(nearest("qqqq").is_empty());
    }

    #[test]
    fn no_two_topics_have_a_name_in_common() {
        let mut seen = BTreeMap::new();
        for topic in all() {
            for key in topic.keys() {
                assert!(!key.is_empty(), "{topic:?}");
                assert_eq!(seen.insert(key, topic.name), None, "{}", topic.name);
            }
        }
    }

    #[test]
    fn topics_have_what_a_manual_page_has() {
        for Topic {
            name,
            title,
            text,
            see,
            ..
        } in all()
        {
            assert!(!title.is_empty() && title.len() <= 60, "{name}: {title}");
            assert!(!title.ends_with('.'), "{name}: {title}");
            let is_title = |l: &&str| !l.contains(|c: char| c.is_lowercase());
            let firsts = text.split("\n\n").filter_map(|part| part.lines().next());
            let titles: Vec<&str> = firsts.filter(is_title).collect();
            let known: Vec<&str> = TITLES.into_iter().filter(|t| titles.contains(t)).collect();
            assert_eq!(titles, known, "{name}: titles, or their order");
            assert_eq!(titles.first(), Some(&TITLES[0]), "{name}");
            assert!(!see.is_empty(), "{name} leads nowhere");
            for other in see {
                assert!(all().iter().any(|t| t.name == *other), "{name}: {other}");
                assert_ne!(other, name);
            }
        }
    }

    #[test]
    fn heads_have_known_fields_and_texts_no_leftovers() {
        for (_, file) in GROUPS {
            let mut head = false;
            for line in file.lines() {
                head = line.starts_with("== ") || (head && !line.is_empty());
                let fields = ["== ", "names: ", "values: ", "see: "];
                assert!(
                    !head || fields.iter().any(|f| line.starts_with(f)),
                    "{line}"
                );
                assert!(head || line.chars().count() <= 100, "{line}");
                assert!(!line.ends_with(' ') && !line.contains('\t'), "{line}");
                assert!(
                    !line.contains(['{', '}']) && !line.contains("TODO"),
                    "{line}"
                );
                let indent = line.len() - line.trim_start().len();
                assert!(indent == 0 || indent >= 4, "{line}");
                assert!(
                    indent == 0 || line.chars().count() <= 80,
                    "too wide: {line}"
                );
            }
        }
    }

    #[test]
    fn commands_can_be_typed() {
        let mut count = 0;
        for topic in all() {
            let lines = topic.text.lines().filter_map(|l| l.strip_prefix("    "));
            let inline = topic.text.split('`').skip(1).step_by(2);
            for text in lines.chain(inline) {
                // What stands behind two blanks says what it does.
                let command = text.split("  ").next().unwrap_or(text).replace('\n', " ");
                let command = command.strip_prefix("sudo ").unwrap_or(&command);
                if command == "tcptrace" || !command.starts_with("tcptrace ") {
                    continue;
                }
                count += 1;
                let words = shlex::split(command).expect("quotes that match");
                let parsed = Cli::try_parse_from(words);
                assert!(parsed.is_ok(), "{}: {command}: {parsed:?}", topic.name);
            }
        }
        assert!(count > all().len(), "{count} commands");
    }
}
