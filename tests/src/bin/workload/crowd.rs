//! Many connections at once, without a cookie asked for or a call per step logged.

use std::io::{self, BufRead as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use tcptrace_tests::sock::{self, Protocol};
use tcptrace_tests::truth::now_ns;

/// How many connections go to one address: each takes a local port for the 60 s of its
/// TIME_WAIT.
const PER_ADDRESS: usize = 5000;

/// Opens and closes `count` connections as fast as it can, the client first, and prints
/// `{"count", "before", "after"}` when the last one is closed on both sides. The server closes
/// when it has read the end, so every connection is once in FIN_WAIT2 and TIME_WAIT, at the
/// client, and once in CLOSE_WAIT, at the server.
pub(crate) fn burst(ip: &str, count: usize, threads: usize) -> io::Result<()> {
    let base: Ipv4Addr = ip.parse().expect("an IPv4 address");
    let before = now_ns();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| worker(base, count, &next)))
            .collect();
        workers
            .into_iter()
            .try_for_each(|w| w.join().expect("a worker"))
    })?;
    let after = now_ns();
    say(&format!(
        r#"{{"count":{count},"before":{before},"after":{after}}}"#
    ))?;
    wait_for_end()
}

/// Each worker is client and server of its own connections, one after the other.
fn worker(base: Ipv4Addr, count: usize, next: &AtomicUsize) -> io::Result<()> {
    let listener = sock::listen(
        Protocol::Tcp,
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        128,
    )?;
    let port = sock::ends(&listener).0.expect("bound").port();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return Ok(());
        }
        let ip = Ipv4Addr::from(u32::from(base) + (number / PER_ADDRESS) as u32);
        let client = sock::connect(Protocol::Tcp, SocketAddrV4::new(ip, port).into(), None)?;
        let server = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC)?;
        drop(client);
        read_end(&server)?;
    }
}

pub(crate) fn read_end(server: &OwnedFd) -> io::Result<()> {
    let (got, _) = rustix::net::recv(server, &mut [0u8; 1][..], RecvFlags::empty())?;
    assert_eq!(got, 0, "nobody sends here");
    Ok(())
}

/// Leaks `count` sockets into CLOSE_WAIT and prints for each
/// `{"local", "remote", "begin": [before, after]}`, then `done`. Closes nothing before stdin ends.
pub(crate) fn leak(ip: &str, count: usize) -> io::Result<()> {
    let address = SocketAddr::new(ip.parse().expect("an address"), 0);
    let listener = sock::listen(Protocol::Tcp, address, 128)?;
    let address = sock::ends(&listener).0.expect("bound");
    let mut leaked = Vec::with_capacity(count);
    let mut out = io::BufWriter::new(io::stdout().lock());
    for _ in 0..count {
        let client = sock::connect(Protocol::Tcp, address, None)?;
        let server = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC)?;
        let remote = sock::ends(&server).1.expect("connected");
        let before = now_ns();
        drop(client);
        wait_close_wait(&server)?;
        let after = now_ns();
        writeln!(
            out,
            r#"{{"local":"{address}","remote":"{remote}","begin":[{before},{after}]}}"#
        )?;
        leaked.push(server);
    }
    drop(out);
    say("done")?;
    wait_for_end()
}

fn wait_close_wait(server: &OwnedFd) -> io::Result<()> {
    const CLOSE_WAIT: u8 = 8;
    use std::os::fd::AsFd as _;
    while sock::state(server.as_fd())? != CLOSE_WAIT {
        std::thread::yield_now();
    }
    Ok(())
}

/// Burns the CPU and sends itself datagrams under the name `name`, so that softirq finds it
/// running.
pub(crate) fn busy(name: &str) -> io::Result<()> {
    rustix::thread::set_name(&std::ffi::CString::new(name)?)?;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(socket.local_addr()?)?;
    std::thread::spawn(|| {
        // Ends with the test, whatever happens to the test.
        let _ = wait_for_end();
        std::process::exit(0);
    });
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(60));
        std::process::exit(0);
    });
    say("busy")?;
    let mut data = [0; 64];
    loop {
        rustix::net::send(&socket, &data, SendFlags::empty())?;
        socket.recv(&mut data)?;
    }
}

pub(crate) fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

pub(crate) fn wait_for_end() -> io::Result<()> {
    io::stdin()
        .lock()
        .lines()
        .try_for_each(|line| line.map(drop))
}
