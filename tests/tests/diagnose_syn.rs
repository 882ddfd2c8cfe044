//! Diagnoses of listeners with more half-open requests than there is room for.

use serde_json::Value;
use tcptrace_tests::diagnosis::{Diagnosing, Diagnosis, told};
use tcptrace_tests::lab::Lab;
use tcptrace_tests::oracle::{netstat, proc_net};
use tcptrace_tests::peer::Peer;
use tcptrace_tests::require;

/// What the kernel counts, by the names that evidence has for it.
const COUNTERS: [(&str, &str); 4] = [
    ("dropped", "TCPReqQFullDrop"),
    ("cookies", "TCPReqQFullDoCookies"),
    ("cookies_sent", "SyncookiesSent"),
    ("cookies_returned", "SyncookiesRecv"),
];

/// A listener and clients of it.
struct Bed {
    lab: Lab,
    server: Peer,
    client: Peer,
    to: String,
    clients: usize,
}

impl Bed {
    /// With room for so many half-open requests, less one or none: kernels differ.
    #[track_caller]
    fn new(syncookies: &str, backlog: usize) -> Bed {
        let lab = Lab::new();
        lab.ns.sysctl("tcp_syncookies", syncookies);
        let (client, mut server) = (lab.peer(), lab.peer());
        let listen = format!("listen L {}:8080 {backlog}", lab.ip);
        let to = server.act(&listen).local();
        Bed {
            lab,
            server,
            client,
            to,
            clients: 0,
        }
    }

    /// So many more clients that never answer.
    #[track_caller]
    fn knock(&mut self, n: usize) {
        self.clients("knock", n);
    }

    /// So many more clients that are real.
    #[track_caller]
    fn connect(&mut self, n: usize) {
        self.clients("connect", n);
    }

    #[track_caller]
    fn clients(&mut self, verb: &str, n: usize) {
        for _ in 0..n {
            let to = &self.to;
            self.client.act(&format!("{verb} C{} {to}", self.clients));
            self.clients += 1;
        }
    }

    fn half_open(&self) -> u64 {
        let counts = proc_net::counts(&self.lab.ns);
        counts.get("syn_recv").copied().unwrap_or(0) as u64
    }

    fn counters(&self) -> [u64; 4] {
        COUNTERS.map(|(_, name)| netstat::tcp_ext(&self.lab.ns, name))
    }

    /// What is found while this happens, and what the kernel counted meanwhile: at least, and at most,
    /// as SYNs are sent again.
    #[track_caller]
    fn diagnose(&mut self, happens: impl FnOnce(&mut Bed)) -> (Diagnosis, [[u64; 4]; 2]) {
        let before = self.counters();
        let run = Diagnosing::start(&self.lab, &["--min-age", "1s"]);
        happens(self);
        let least = self.counters();
        let found = run.stop();
        assert!(found.complete(), "{found:#?}");
        let most = self.counters();
        let since = |now: [u64; 4]| std::array::from_fn(|i| now[i] - before[i]);
        (found, [since(least), since(most)])
    }

    /// The finding, which counts as the kernel does and names the listener.
    #[track_caller]
    fn assert_found<'a>(&self, found: &'a Diagnosis, [least, most]: [[u64; 4]; 2]) -> &'a Value {
        assert_eq!(found.ids(), ["syn_queue_full"], "{found:#?}");
        let finding = found.one("syn_queue_full");
        for (i, (name, _)) in COUNTERS.into_iter().enumerate() {
            let told = finding["evidence"][name].as_u64().expect("a number");
            assert!((least[i]..=most[i]).contains(&told), "{name}: {finding:#}");
        }
        let headline = finding["headline"].as_str().unwrap_or_default();
        assert!(headline.starts_with(&self.to), "{headline}");
        let listener = &finding["evidence"]["listeners"][0];
        assert_eq!(listener["listener"], self.to, "{finding:#}");
        assert_eq!(listener["pid"], self.server.pid(), "{finding:#}");
        assert_eq!(listener["requests"], self.half_open(), "{finding:#}");
        finding
    }
}

#[test]
fn real_clients_get_cookies_when_the_queue_is_full() {
    require!(root, tracer);
    let mut bed = Bed::new("1", 8);
    let (found, counted) = bed.diagnose(|bed| {
        bed.knock(9);
        bed.connect(5);
    });
    let finding = bed.assert_found(&found, counted);
    assert_eq!(finding["severity"], "notice", "{finding:#}");
    let [_, cookies, sent, returned] = counted[0];
    assert!(cookies >= 5 && sent >= 5, "{counted:?}");
    assert_eq!(returned, 5);
    let what = told(finding, "what");
    assert!(what.contains("the clients are real"), "{what}");
    let not = told(finding, "not");
    assert!(not.contains("tcp_max_syn_backlog"), "{not}");
}

#[test]
fn a_flood_gets_cookies_and_does_not_answer() {
    require!(root, tracer);
    let mut bed = Bed::new("1", 8);
    let (found, counted) = bed.diagnose(|bed| bed.knock(20));
    let finding = bed.assert_found(&found, counted);
    assert_eq!(finding["severity"], "warning", "{finding:#}");
    let [dropped, cookies, _, returned] = counted[0];
    assert!(dropped == 0 && cookies >= 11 && returned == 0);
    let what = told(finding, "what");
    assert!(what.contains("a SYN flood"), "{what}");
    assert!(what.contains("from 127.0.0.1"), "{what}");
}

#[test]
fn without_cookies_syns_are_dropped() {
    require!(root, tracer);
    let mut bed = Bed::new("0", 8);
    let (found, counted) = bed.diagnose(|bed| bed.knock(20));
    let finding = bed.assert_found(&found, counted);
    assert_eq!(finding["severity"], "critical", "{finding:#}");
    let [dropped, cookies, ..] = counted[0];
    assert!(dropped >= 11 && cookies == 0, "{counted:?}");
    let listener = &finding["evidence"]["listeners"][0];
    let drops = listener["drops"].as_u64();
    assert!(drops.is_some_and(|n| n >= dropped), "{finding:#}");
    let now = told(finding, "now");
    assert!(now.contains("tcp_syncookies=1"), "{now}");
}

/// The last quarter of tcp_max_syn_backlog is for peers that are known; the kernel counts what it drops
/// for that among other drops.
#[test]
fn without_cookies_strangers_do_not_get_the_last_quarter() {
    require!(root, tracer);
    let mut bed = Bed::new("0", 128);
    bed.lab.ns.sysctl("tcp_max_syn_backlog", "8");
    let drops = netstat::tcp_ext(&bed.lab.ns, "ListenDrops");
    let (found, counted) = bed.diagnose(|bed| bed.knock(20));
    let finding = bed.assert_found(&found, counted);
    assert_eq!(finding["severity"], "critical", "{finding:#}");
    assert_eq!(counted[1], [0; 4]);
    let unproven = finding["evidence"]["dropped_unproven"].as_u64();
    let drops = netstat::tcp_ext(&bed.lab.ns, "ListenDrops") - drops;
    assert!(
        unproven.is_some_and(|n| n >= 12 && n <= drops),
        "{finding:#}"
    );
}

#[test]
fn half_open_requests_that_fit_are_well() {
    require!(root, tracer);
    for syncookies in ["0", "1"] {
        let mut bed = Bed::new(syncookies, 128);
        let (found, _) = bed.diagnose(|bed| {
            bed.knock(20);
            bed.connect(5);
        });
        assert_eq!(found.ids(), [""; 0], "{found:#?}");
    }
}

#[test]
fn cookies_for_everybody_are_no_full_queue() {
    require!(root, tracer);
    let mut bed = Bed::new("2", 128);
    let (found, counted) = bed.diagnose(|bed| bed.connect(5));
    assert_eq!(counted[0][1], 5, "the kernel counts them as such");
    assert_eq!(found.ids(), [""; 0], "{found:#?}");
}
