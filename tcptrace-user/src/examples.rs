//! The EXAMPLES section of every command's help and manual page.

/// Of tcptrace itself.
pub(crate) const MAIN: &str = "\
EXAMPLES
  sudo tcptrace watch                         sockets that linger, their owners, a summary at ^C
  sudo tcptrace watch -s close_wait --min-age 30s
                                              connections that the application forgot to close
  tcptrace snapshot --summary                 how many sockets are in which state
  tcptrace snapshot -s close_wait --by comm   who has most of them
  sudo tcptrace leaks -d 60s                  where in the code they were acquired
  sudo tcptrace record -O night.rec           the same for later; `tcptrace report night.rec`
  sudo tcptrace doctor                        can it run here, and how well";

/// Of `watch`.
pub(crate) const WATCH: &str = "\
READING IT
  ~12.3s        at least that long: the socket is older than the watch, or its start was not seen
  4711/12       process 4711 has it open as descriptor 12
  (python3)     the name is remembered: that process has closed the socket, or is gone
  - [:8080]     nobody has accepted it; it is in the queue of the listener on port 8080
  RQ            unread bytes, and 1 for the peer's FIN if that is unread, too
  <300ms        less than that: it met one poll, and not the next
  ?             not known; never 0

EXAMPLES
  sudo tcptrace watch
      CLOSE_WAIT, FIN_WAIT_2 and TIME_WAIT of at least 1 s; the summary comes at ^C
  sudo tcptrace watch -s close_wait --min-age 30s -T
      sockets that their owner has not closed for 30 s after the peer did, with the time
  sudo tcptrace watch -p 4711 --transitions
      every state change of the sockets of one process, like tcpstates, and those that linger
  sudo tcptrace watch -s time_wait --min-age 0 --raddr 10.0.0.0/8 -D 443 -d 60s
      for a minute, every TIME_WAIT towards these servers
  sudo tcptrace watch -s cw --by comm,peer -d 10m --json > close_wait.jsonl
      JSON lines, with a summary per program and peer at the end
  sudo tcptrace watch -s close_wait --role unaccepted
      connections that wait in a listener's queue, closed by their peers";

/// Of `record`.
pub(crate) const RECORD: &str = "\
EXAMPLES
  sudo tcptrace record -O night.rec -d 8h
      everything that happens to TCP sockets, for eight hours; without -d until ^C
  sudo tcptrace record -O /var/log/tcp.rec --rotate 64M --keep 10
      the last 640 MiB, in files of 64 MiB; `tcptrace replay /var/log/tcp.rec.*` reads them as one
  sudo tcptrace record -O leak.rec --ring 64M --trigger 'close_wait > 500 or no_port > 0'
      nothing, until there are 500 CLOSE_WAIT or the local ports run out: then what led to it, and 10 s
      more, in leak.rec.00001, and so again; SIGUSR1 writes at once
  sudo tcptrace record -O test.rec -- ./loadtest --quick
      the sockets of a command and its children, while it runs
  sudo tcptrace record -O - -d 60s | tcptrace replay -
      through a pipe, and read at the other end";

/// Of `replay`.
pub(crate) const REPLAY: &str = "\
EXAMPLES
  tcptrace replay night.rec
      what `watch` would have printed, and its summary; lines read as those of `watch`
  tcptrace replay night.rec --from 02:41:00 --to 02:45:00 -T
      four minutes of it, with the time
  tcptrace replay night.rec -s close_wait --min-age 30s --by comm,peer
      another question to the same recording
  tcptrace replay night.rec --conn 10.1.0.5:41822-10.0.0.9:443
      what became of one connection: who did what when, and what was not seen
  tcptrace replay night.rec --transitions --json > night.jsonl
      every state change as JSON lines
  tcptrace replay /var/log/tcp.rec.* --strict > /dev/null || echo 'something is missing'
      the files of a rotation as one; exit code 4: not all of it is there";

/// Of `report`.
pub(crate) const REPORT: &str = "\
READING IT
  LEFT, the full part of a bar      stays that have ended, by how long they were
  OPEN, the hatched part of a bar   stays that go on, by the age that they have reached
  ~                                 times that are not exact

EXAMPLES
  tcptrace report night.rec
      how long sockets stayed in CLOSE_WAIT, FIN_WAIT_2 and TIME_WAIT, and whose they were
  tcptrace report night.rec --hist established,close_wait --percentiles --by peer
      other states and owners, with percentiles
  tcptrace report night.rec --html night.html
      a page for a browser, in one file
  tcptrace report /var/log/tcp.rec.* --from 02:41:00 --to 02:45:00 --json
      four minutes of a rotation, for a program
  sudo tcptrace report -d 60s --record now.rec
      of this machine, for a minute; the same report can be had from now.rec again";

/// Of `diagnose`.
pub(crate) const DIAGNOSE: &str = "\
READING IT
  WHO, WHAT           whose it is, and who closed first, after how long a silence
  APP, KERNEL         what the program has read and not closed; whether the kernel will ever end it
  WHERE               where in the code it was acquired, and where others like it are closed
  DO NOW, FIX, NOT    what helps at once, what mends it, and what is often advised and does not help
  ~                   an estimate

EXAMPLES
  sudo tcptrace diagnose
      watch for 10 s, then one screen: or one line, if nothing is wrong
  sudo tcptrace diagnose -p 4711 -d 60s --record pager.rec
      of one process, for longer, and in a file for other questions
  tcptrace diagnose -I pager.rec --min-age 30s
      of a recording; what is closed within 30 s is not stuck
  sudo tcptrace diagnose --fail-on warning --json
      for a check: exit code 10 if there is a warning or worse";

/// Of `leaks`.
pub(crate) const LEAKS: &str = "\
READING IT
  growing +38/min     the group has become greater from the start over the middle to the end
  acquired at         where the thread was that connected; the innermost function is the first
  usually closed at   where others that were acquired at the same place were closed
  ~                   an estimate: an inferred owner, an age, or a line of Python that was read later

EXAMPLES
  sudo tcptrace leaks -d 60s
      sockets in CLOSE_WAIT, where they were acquired, and where others like them are closed
  sudo tcptrace leaks -p 4711 --min-age 30s --full-stacks --record leak.rec
      of one process, and in a file, for other questions
  tcptrace leaks leak.rec --by peer --growing
      grouped by peer, and only what grows
  tcptrace leaks /var/log/tcp.rec.* --from 02:41:00 --state close_wait,fin_wait2 --json
      of a rotation, for a program";

/// Of `diff`.
pub(crate) const DIFF: &str = "\
EXAMPLES
  tcptrace diff before.rec after.rec
      which sockets linger since the deployment, per program and peer
  tcptrace diff before.rec after.rec -s close_wait --by comm,container --all
      everybody's CLOSE_WAIT, those that have not grown included
  tcptrace diff monday.rec tuesday.rec --json
      one JSON object";

/// Of `export`.
pub(crate) const EXPORT: &str = "\
EXAMPLES
  tcptrace export perfetto night.rec -O night.pftrace
      open it in ui.perfetto.dev: a track per process, a slice per connection and state
  tcptrace export parquet night.rec -O night/
      then in DuckDB: select end_cause, count(*) from 'night/connections.parquet' group by all
  tcptrace export csv night.rec -s close_wait --comm 'java*' > close_wait.csv
      transitions from and to CLOSE_WAIT, for a spreadsheet
  tcptrace export hlog night.rec --interval 1m -O night.hlog
      how long connections were in each state, for HistogramLogProcessor
  tcptrace export pcapng night.rec --from 02:41:00 --to 02:43:00 -O night.pcapng
      synthetic packets with comments, for Wireshark";

/// Of `snapshot`.
pub(crate) const SNAPSHOT: &str = "\
EXAMPLES
  tcptrace snapshot --summary
      how many sockets are in which state, and what `ss -s` and sockstat call them
  sudo tcptrace snapshot -s close_wait
      every CLOSE_WAIT with its process, descriptor, age and what is unread
  sudo tcptrace snapshot --by state,comm
      counts per state and program
  sudo tcptrace snapshot -s close_wait --min-age 10m --json
      JSON lines, one per socket that is older than ten minutes
  sudo tcptrace snapshot --all-netns --by pid,peer
      all containers: which process has how many connections to whom";

/// Of `kill`.
pub(crate) const KILL: &str = "\
EXAMPLES
  sudo tcptrace kill -p 4711 -s close_wait --min-age 10m
      what would be destroyed; nothing is done
  sudo tcptrace kill -p 4711 -s close_wait --min-age 10m --yes
      destroys them; what they were stands in tcptrace-kill-TIME.jsonl
  sudo tcptrace kill -s close_wait --role unaccepted -L 8080 --yes --rate 100/s
      what waits in the queue of a listener that does not accept, 100 a second
  sudo tcptrace kill -s established --raddr 10.0.0.9 -D 443 --yes --evidence it.jsonl
      connections to one server, with the evidence in this file
  sudo tcptrace kill --all-netns --comm 'java*' -s close_wait --json
      what would be destroyed in all containers, as JSON lines";

/// Of `doctor`.
pub(crate) const DOCTOR: &str = "\
EXAMPLES
  sudo tcptrace doctor
      what the kernel offers, what will be attached, what each fallback costs
  tcptrace doctor
      the same without root: says which privileges are missing and how to grant them
  sudo tcptrace doctor --json
      one JSON object
  sudo tcptrace doctor --cost=10s --state all
      what the programs of `record --stacks none` cost on this host, in the next ten seconds
  sudo tcptrace doctor > /dev/null || echo 'tcptrace cannot trace here'
      exit code 0: it can; 3: it cannot";

/// Of `explain`.
pub(crate) const EXPLAIN: &str = "\
EXAMPLES
  tcptrace explain
      the topics, in groups, with a line each
  tcptrace explain close_wait
      what it is, what many of them mean, what to do, and what does not help
  tcptrace explain net.ipv4.tcp_tw_reuse
      a setting, with its value in this network namespace
  tcptrace explain Errno 99
      an error, by number or name
  tcptrace explain --json > topics.jsonl
      every text as JSON lines";

/// Of `completions`.
pub(crate) const COMPLETIONS: &str = "\
EXAMPLES
  tcptrace completions bash > /usr/share/bash-completion/completions/tcptrace
  tcptrace completions zsh > /usr/local/share/zsh/site-functions/_tcptrace
  tcptrace completions fish > ~/.config/fish/completions/tcptrace.fish
  source <(tcptrace completions bash)";

/// Of `man`.
pub(crate) const MAN: &str = "\
EXAMPLES
  tcptrace man | man -l -
  tcptrace man watch | man -l -
  tcptrace man > /usr/local/share/man/man1/tcptrace.1
  tcptrace man snapshot > /usr/local/share/man/man1/tcptrace-snapshot.1";
