//! The scripted peer's commands.
//!
//! | command | does |
//! |---|---|
//! | `listen L ADDR [BACKLOG\|mptcp\|shared]` | opens the listener L; `shared`: SO_REUSEPORT |
//! | `connect C ADDR [FROM\|mptcp]` | connects C |
//! | `knock C ADDR` | C sends a SYN and never hears of an answer |
//! | `accept S L [accept\|accept4\|uring]` | accepts S from L |
//! | `close C`, `shutdown C rd\|wr\|rdwr` | |
//! | `send C BYTES`, `recv C BYTES` | one call; `value` is what it returned |
//! | `state C` | `value` is the state's number |
//! | `wait C STATE…` | until C is in one of the states, by number |
//! | `linger C SECONDS`, `linger2 C SECONDS` | |
//! | `defer_accept L` | connections come to be with their first data |
//! | `disconnect C`, `reconnect C ADDR` | |
//! | `freeze C`, `thaw C` | drops what comes in, or stops dropping |
//! | `mailbox M`, `take C M`, `give C M` | a descriptor over a unix socket |
//! | `name HEX` | names the process, any bytes |
//! | `on THREAD COMMAND…` | runs the command on a new thread of that name |
//! | `fork K` | a child K that inherits every descriptor; `value` is its pid |
//! | `in K COMMAND…` | runs the command in the child |

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags};
use tcptrace_tests::pace::patient;
use tcptrace_tests::sock::{self, Mailbox, Protocol};
use tcptrace_tests::truth::{Act, now_ns};
use tcptrace_tests::uring;

/// What a peer has open.
#[derive(Default)]
pub(crate) struct Script {
    sockets: BTreeMap<String, OwnedFd>,
    mailboxes: BTreeMap<String, Mailbox>,
    children: BTreeMap<String, Child>,
}

/// A forked child and the pipes to it.
struct Child {
    pid: libc::pid_t,
    /// `None` once the child is told to end.
    commands: Option<File>,
    answers: BufReader<File>,
}

/// Lets it end and reaps it; in a sibling, which inherited the pipes, only closes them.
impl Drop for Child {
    fn drop(&mut self) {
        self.commands = None;
        // SAFETY: waitpid may leave out the status.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
    }
}

impl Script {
    /// Does one command.
    pub(crate) fn run(&mut self, line: &str) -> Act {
        let words: Vec<&str> = line.split_whitespace().collect();
        let outcome = match words[..] {
            ["in", child, ..] => return self.relay(child, line),
            ["on", thread, ref command @ ..] => return self.on_thread(thread, &command.join(" ")),
            _ => self.one(&words),
        };
        outcome.unwrap_or_else(|e| Act {
            verb: words.first().copied().unwrap_or_default().to_owned(),
            error: Some(e.to_string()),
            ..actor()
        })
    }

    fn one(&mut self, words: &[&str]) -> io::Result<Act> {
        match *words {
            ["listen", name, at] => self.listen(name, Protocol::Tcp, at, 128),
            ["listen", name, at, "mptcp"] => self.listen(name, Protocol::Mptcp, at, 128),
            ["listen", name, at, "shared"] => {
                self.open(name, "listen", || sock::listen_shared(addr(at), 128))
            }
            ["listen", name, at, backlog] => {
                self.listen(name, Protocol::Tcp, at, number(backlog) as i32)
            }
            ["connect", name, to] => self.connect(name, Protocol::Tcp, to, None),
            ["connect", name, to, "mptcp"] => self.connect(name, Protocol::Mptcp, to, None),
            ["connect", name, to, from] => self.connect(name, Protocol::Tcp, to, Some(addr(from))),
            ["knock", name, to] => self.open(name, "knock", || sock::knock(addr(to))),
            ["accept", name, listener] => self.accept(name, listener, "accept"),
            ["accept", name, listener, flavour] => self.accept(name, listener, flavour),
            ["close", name] => self.close(name),
            ["mailbox", name] => {
                let (mailbox, act) = bracket("mailbox", || Mailbox::open(name))?;
                self.mailboxes.insert(name.to_owned(), mailbox);
                Ok(act)
            }
            ["take", name, mailbox] => {
                let mailbox = self.mailboxes.get(mailbox).ok_or_else(no_such)?;
                let (socket, act) = bracket("take", || mailbox.receive())?;
                let act = with_socket(act, socket.as_fd());
                self.sockets.insert(name.to_owned(), socket);
                Ok(act)
            }
            ["name", hex] => {
                let name = std::ffi::CString::new(unhex(hex))?;
                Ok(bracket("name", || Ok(rustix::thread::set_name(&name)?))?.1)
            }
            ["fork", name] => self.fork(name),
            [verb, name, ref rest @ ..] => on_socket(verb, self.socket(name)?, rest),
            _ => Err(io::Error::other("no such command")),
        }
    }

    fn socket(&self, name: &str) -> io::Result<BorrowedFd<'_>> {
        Ok(self.sockets.get(name).ok_or_else(no_such)?.as_fd())
    }

    fn open(
        &mut self,
        name: &str,
        verb: &str,
        call: impl FnOnce() -> io::Result<OwnedFd>,
    ) -> io::Result<Act> {
        let (socket, act) = bracket(verb, call)?;
        let act = with_socket(act, socket.as_fd());
        self.sockets.insert(name.to_owned(), socket);
        Ok(act)
    }

    fn listen(&mut self, name: &str, with: Protocol, at: &str, backlog: i32) -> io::Result<Act> {
        self.open(name, "listen", || sock::listen(with, addr(at), backlog))
    }

    fn connect(
        &mut self,
        name: &str,
        with: Protocol,
        to: &str,
        from: Option<SocketAddr>,
    ) -> io::Result<Act> {
        self.open(name, "connect", || sock::connect(with, addr(to), from))
    }

    fn accept(&mut self, name: &str, listener: &str, flavour: &str) -> io::Result<Act> {
        let listener = self.socket(listener)?.try_clone_to_owned()?;
        sock::wait_acceptable(&listener)?;
        self.open(name, "accept", || match flavour {
            "accept" => Ok(rustix::net::accept(&listener)?),
            "accept4" => Ok(rustix::net::accept_with(&listener, SocketFlags::CLOEXEC)?),
            "uring" => uring::accept(listener.as_fd()),
            _ => Err(io::Error::other("accept, accept4 or uring")),
        })
    }

    fn close(&mut self, name: &str) -> io::Result<Act> {
        let socket = self.sockets.remove(name).ok_or_else(no_such)?;
        let told = with_socket(Act::default(), socket.as_fd());
        let ((), act) = bracket("close", || {
            drop(socket);
            Ok(())
        })?;
        Ok(Act {
            verb: act.verb,
            before: act.before,
            after: act.after,
            pid: act.pid,
            tid: act.tid,
            ..told
        })
    }

    fn on_thread(&mut self, name: &str, command: &str) -> Act {
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn_scoped(scope, || self.run(command))
                .expect("a thread")
                .join()
                .expect("the thread")
        })
    }

    fn fork(&mut self, name: &str) -> io::Result<Act> {
        let (commands_out, commands_in) = rustix::pipe::pipe()?;
        let (answers_out, answers_in) = rustix::pipe::pipe()?;
        let before = now_ns();
        // SAFETY: the peer has no other thread while it does a command, so the child may go on
        // as a process like any other.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                drop((commands_in, answers_out));
                self.children.clear();
                self.serve(File::from(commands_out), File::from(answers_in))
            }
            _ => {
                let child = Child {
                    pid,
                    commands: Some(File::from(commands_in)),
                    answers: BufReader::new(File::from(answers_out)),
                };
                self.children.insert(name.to_owned(), child);
                Ok(Act {
                    verb: "fork".to_owned(),
                    before,
                    after: now_ns(),
                    value: Some(pid.into()),
                    ..actor()
                })
            }
        }
    }

    /// The life of a forked child: commands until the pipe ends.
    fn serve(&mut self, commands: File, mut answers: File) -> ! {
        for line in BufReader::new(commands).lines() {
            let act = self.run(&line.expect("a command"));
            writeln!(answers, "{}", act.to_json()).expect("an answer");
        }
        std::process::exit(0)
    }

    fn relay(&mut self, name: &str, line: &str) -> Act {
        let child = self.children.get_mut(name).expect("a child of that name");
        let (_, command) = line.split_once(name).expect("the command");
        let commands = child.commands.as_mut().expect("it has not ended");
        writeln!(commands, "{command}").expect("the pipe to the child");
        let mut answer = String::new();
        child
            .answers
            .read_line(&mut answer)
            .expect("the child's answer");
        Act::from_json(&answer)
    }
}

/// The commands on a socket that stays open.
fn on_socket(verb: &str, socket: BorrowedFd<'_>, rest: &[&str]) -> io::Result<Act> {
    let told = with_socket(Act::default(), socket);
    let (value, act) = bracket(verb, || call(verb, socket, rest))?;
    let now = with_socket(act, socket);
    let (local, remote) = match now.remote {
        Some(_) => (now.local, now.remote),
        None => (told.local, told.remote),
    };
    Ok(Act {
        local,
        remote,
        value,
        ..now
    })
}

fn call(verb: &str, socket: BorrowedFd<'_>, rest: &[&str]) -> io::Result<Option<i64>> {
    match (verb, rest) {
        ("shutdown", ["rd"]) => rustix::net::shutdown(socket, Shutdown::Read)?,
        ("shutdown", ["wr"]) => rustix::net::shutdown(socket, Shutdown::Write)?,
        ("shutdown", ["rdwr"]) => rustix::net::shutdown(socket, Shutdown::Both)?,
        ("send", [bytes]) => {
            let data = vec![b'x'; number(bytes) as usize];
            let sent = rustix::net::send(socket, &data, SendFlags::NOSIGNAL)?;
            return Ok(Some(sent as i64));
        }
        ("recv", [bytes]) => {
            let mut data = vec![0; number(bytes) as usize];
            let (got, _) = rustix::net::recv(socket, &mut data[..], RecvFlags::empty())?;
            return Ok(Some(got as i64));
        }
        ("state", []) => return Ok(Some(sock::state(socket)?.into())),
        ("wait", states) => {
            let wanted: Vec<u8> = states.iter().map(|s| number(s) as u8).collect();
            return Ok(Some(wait(socket, &wanted)?.into()));
        }
        ("linger", [seconds]) => sock::linger(socket, number(seconds) as u64)?,
        ("linger2", [seconds]) => sock::linger2(socket, number(seconds) as i32)?,
        ("disconnect", []) => sock::disconnect(socket)?,
        ("reconnect", [to]) => sock::reconnect(socket, addr(to))?,
        ("freeze", []) => sock::freeze(socket)?,
        ("thaw", []) => sock::thaw(socket)?,
        ("defer_accept", []) => sock::defer_accept(socket)?,
        ("give", [mailbox]) => sock::send_fd(mailbox, socket)?,
        _ => return Err(io::Error::other("no such command")),
    }
    Ok(None)
}

/// Waits, but not for ever, for one of the states.
fn wait(socket: BorrowedFd<'_>, wanted: &[u8]) -> io::Result<u8> {
    let limit = patient(Duration::from_secs(10));
    let end = Instant::now() + limit;
    loop {
        let state = sock::state(socket)?;
        if wanted.contains(&state) {
            return Ok(state);
        }
        if Instant::now() > end {
            return Err(io::Error::other(format!(
                "waited {} s for a state of {wanted:?}, it is {state}",
                limit.as_secs()
            )));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Calls, and writes down when.
fn bracket<T>(verb: &str, call: impl FnOnce() -> io::Result<T>) -> io::Result<(T, Act)> {
    let before = now_ns();
    let outcome = call()?;
    let after = now_ns();
    let act = Act {
        verb: verb.to_owned(),
        before,
        after,
        ..actor()
    };
    Ok((outcome, act))
}

fn actor() -> Act {
    Act {
        pid: rustix::process::getpid().as_raw_nonzero().get() as u32,
        tid: rustix::thread::gettid().as_raw_nonzero().get() as u32,
        ..Act::default()
    }
}

fn with_socket(act: Act, socket: BorrowedFd<'_>) -> Act {
    let (local, remote) = sock::ends(socket);
    Act {
        fd: Some(socket.as_raw_fd() as u32),
        cookie: sock::cookie(socket).ok(),
        local,
        remote,
        ..act
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("ip:port")
}

fn number(text: &str) -> i64 {
    text.parse().expect("a number")
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex"))
        .collect()
}

fn no_such() -> io::Error {
    io::Error::other("nothing of that name is open")
}
