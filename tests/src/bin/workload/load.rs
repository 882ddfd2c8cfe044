//! Loads for measurements: connections that come and go, and sockets that are held.
//!
//! They log no truth, and print one line of JSON when they are done.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use tcptrace_tests::sock::{self, Protocol};

use super::crowd::{read_end, say, wait_for_end};

/// Connections to one address and listener: each may take a local port for the 60 s of its
/// TIME_WAIT.
const PER_ADDRESS: u64 = 5000;

/// Descriptors that are no held sockets.
const OTHER_FILES: u64 = 64;

/// How connections come and go.
struct Shape {
    seconds: f64,
    threads: u64,
    /// Connections per second, all threads together; 0: as many as can be.
    rate: f64,
    server_first: bool,
    reset: bool,
    v6: bool,
    /// Bytes that the client sends, and the server sends back.
    payload: usize,
}

impl Shape {
    /// Of words like `threads=2`.
    fn read(words: &[&str]) -> Shape {
        let mut shape = Shape {
            seconds: 2.0,
            threads: 1,
            rate: 0.0,
            server_first: false,
            reset: false,
            v6: false,
            payload: 0,
        };
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                "seconds" => shape.seconds = value.parse().expect("seconds"),
                "threads" => shape.threads = value.parse().expect("threads"),
                "rate" => shape.rate = value.parse().expect("connections per second"),
                "payload" => shape.payload = value.parse().expect("bytes"),
                "server-first" => shape.server_first = true,
                "reset" => shape.reset = true,
                "v6" => shape.v6 = true,
                _ => panic!("{word}: seconds=, threads=, rate=, payload=, server-first, reset, v6"),
            }
        }
        shape
    }

    /// Where the connection of this number goes: many addresses have many ports.
    fn address(&self, number: u64) -> IpAddr {
        match self.v6 {
            true => Ipv6Addr::LOCALHOST.into(),
            false => {
                let slot = (number / PER_ADDRESS % 60_000) as u32;
                Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + slot).into()
            }
        }
    }

    fn listen(&self) -> io::Result<OwnedFd> {
        let any: IpAddr = match self.v6 {
            true => Ipv6Addr::UNSPECIFIED.into(),
            false => Ipv4Addr::UNSPECIFIED.into(),
        };
        sock::listen(Protocol::Tcp, SocketAddr::new(any, 0), 128)
    }
}

/// Opens and closes connections in the namespace that it runs in, whose loopback it brings up, and
/// prints `{"connections", "seconds", "cpu_ns", "p50_ns", "p99_ns", "max_ns"}`: how many, in what
/// time, with how much processor time of its own, and how long one took from connect() to the last
/// close(). Both ends are here: one that closes properly changes its state ten times.
pub(crate) fn churn(words: &[&str]) -> io::Result<()> {
    let shape = Shape::read(words);
    sock::loopback_up()?;
    let next = AtomicU64::new(0);
    let cpu = cpu_ns();
    let begin = Instant::now();
    let mut took = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..shape.threads)
            .map(|_| scope.spawn(|| worker(&shape, begin, &next)))
            .collect();
        let mut took = Vec::new();
        for worker in workers {
            took.extend(worker.join().expect("a worker")?);
        }
        io::Result::Ok(took)
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    let cpu = cpu_ns() - cpu;
    took.sort_unstable();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    say(&format!(
        r#"{{"connections":{},"seconds":{seconds},"cpu_ns":{cpu},"p50_ns":{},"p99_ns":{},"max_ns":{}}}"#,
        took.len(),
        at(0.5),
        at(0.99),
        at(1.0),
    ))?;
    wait_for_end()
}

/// Each worker is client and server of its own connections, one after the other. How long each
/// took, ns.
fn worker(shape: &Shape, begin: Instant, next: &AtomicU64) -> io::Result<Vec<u64>> {
    let end = begin + Duration::from_secs_f64(shape.seconds);
    let mut listener = shape.listen()?;
    let mut took = Vec::new();
    let mut data = vec![0; shape.payload.max(1)];
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if shape.rate > 0.0 {
            let due = begin + Duration::from_secs_f64(number as f64 / shape.rate);
            std::thread::sleep(due.min(end).saturating_duration_since(Instant::now()));
        }
        let start = Instant::now();
        if start >= end && !took.is_empty() {
            return Ok(took);
        }
        if took.len() as u64 % PER_ADDRESS == PER_ADDRESS - 1 {
            listener = shape.listen()?;
        }
        let port = sock::ends(&listener).0.expect("bound").port();
        let to = SocketAddr::new(shape.address(number), port);
        let client = sock::connect(Protocol::Tcp, to, None)?;
        let server = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC)?;
        if shape.payload > 0 {
            pass(&client, &server, &mut data)?;
            pass(&server, &client, &mut data)?;
        }
        let (first, second) = match shape.server_first {
            true => (server, client),
            false => (client, server),
        };
        if shape.reset {
            sock::linger(&first, 0)?;
        }
        drop(first);
        let end_of_it = rustix::net::recv(&second, &mut data[..], RecvFlags::empty());
        assert_eq!(end_of_it.is_err(), shape.reset, "{end_of_it:?}");
        drop(second);
        took.push(start.elapsed().as_nanos() as u64);
    }
}

fn pass(from: &OwnedFd, to: &OwnedFd, data: &mut [u8]) -> io::Result<()> {
    rustix::net::send(from, data, SendFlags::NOSIGNAL)?;
    let mut left = data.len();
    while left > 0 {
        let (got, _) = rustix::net::recv(to, &mut data[..left], RecvFlags::empty())?;
        left -= got;
    }
    Ok(())
}

/// Holds `count` sockets in CLOSE_WAIT and prints `{"held", "seconds"}`. Closes nothing before stdin
/// ends.
pub(crate) fn hold(count: u64) -> io::Result<()> {
    sock::loopback_up()?;
    let limit = Rlimit {
        current: Some(count + OTHER_FILES),
        ..getrlimit(Resource::Nofile)
    };
    setrlimit(Resource::Nofile, limit)?;
    let shape = Shape::read(&[]);
    let listener = shape.listen()?;
    let port = sock::ends(&listener).0.expect("bound").port();
    let begin = Instant::now();
    let mut held = Vec::with_capacity(count as usize);
    for number in 0..count {
        let to = SocketAddr::new(shape.address(number), port);
        // A port that the kernel chose could be that of one which is held: it would be reset.
        let from = SocketAddr::new(
            shape.address(number),
            10_000 + (number % PER_ADDRESS) as u16,
        );
        let client = sock::connect(Protocol::Tcp, to, Some(from))?;
        let server = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC)?;
        drop(client);
        // An end that is not read takes a page of what the kernel has for all TCP.
        read_end(&server)?;
        held.push(server);
    }
    let seconds = begin.elapsed().as_secs_f64();
    say(&format!(r#"{{"held":{count},"seconds":{seconds}}}"#))?;
    wait_for_end()
}

/// Processor time of this process.
fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
