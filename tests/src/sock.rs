//! The socket calls that a workload makes, by name.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType,
    ipproto, sockopt,
};

use crate::pace::patient;

/// Brings the loopback interface of the calling thread's namespace up.
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: all bits zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads the name and the flags of this ifreq.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) })
}

/// What to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// MPTCP, whose subflows look like TCP from inside the kernel.
    Mptcp,
}

/// A listener. One on `[::]` takes IPv4 too.
pub fn listen(protocol: Protocol, addr: SocketAddr, backlog: i32) -> io::Result<OwnedFd> {
    let socket = socket(protocol, addr)?;
    rustix::net::bind(&socket, &addr)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

/// A listener whose port others may have, too.
pub fn listen_shared(addr: SocketAddr, backlog: i32) -> io::Result<OwnedFd> {
    let socket = socket(Protocol::Tcp, addr)?;
    rustix::net::sockopt::set_socket_reuseport(&socket, true)?;
    rustix::net::bind(&socket, &addr)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

/// A connection to `addr`, from `from` if given.
pub fn connect(
    protocol: Protocol,
    addr: SocketAddr,
    from: Option<SocketAddr>,
) -> io::Result<OwnedFd> {
    let socket = socket(protocol, addr)?;
    if let Some(from) = from {
        rustix::net::bind(&socket, &from)?;
    }
    rustix::net::connect(&socket, &addr)?;
    Ok(socket)
}

/// A socket that sends a SYN to `addr` and never hears of an answer, so that the request stays half-open.
pub fn knock(addr: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket(Protocol::Tcp, addr)?;
    freeze(socket.as_fd())?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    match rustix::net::connect(&socket, &addr) {
        Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(e) => Err(e.into()),
        Ok(()) => Err(io::Error::other("it is connected")),
    }
}

fn socket(protocol: Protocol, addr: SocketAddr) -> io::Result<OwnedFd> {
    let protocol = match protocol {
        Protocol::Tcp => ipproto::TCP,
        Protocol::Mptcp => ipproto::MPTCP,
    };
    let family = match addr {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(protocol))?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    sockopt::set_socket_reuseaddr(&socket, true)?;
    Ok(socket)
}

/// Waits, but not for ever, until the listener has a connection to accept, so that an accept that
/// would block for ever fails instead.
pub fn wait_acceptable(listener: impl AsFd) -> io::Result<()> {
    let mut fds = [rustix::event::PollFd::new(
        &listener,
        rustix::event::PollFlags::IN,
    )];
    let limit = rustix::event::Timespec {
        tv_sec: patient(Duration::from_secs(10)).as_secs() as i64,
        tv_nsec: 0,
    };
    match rustix::event::poll(&mut fds, Some(&limit))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// Both ends, v4-mapped addresses as IPv4; what is not there is `None`.
pub fn ends(socket: impl AsFd) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let plain = |any: SocketAddrAny| {
        let addr = SocketAddr::try_from(any).ok()?;
        Some(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
    };
    let local = rustix::net::getsockname(&socket).ok();
    let remote = rustix::net::getpeername(&socket).ok().flatten();
    (local.and_then(plain), remote.and_then(plain))
}

/// SO_COOKIE.
pub fn cookie(socket: impl AsFd) -> io::Result<u64> {
    Ok(sockopt::socket_cookie(socket)?)
}

/// The TCP state by the kernel's number.
pub fn state(socket: BorrowedFd<'_>) -> io::Result<u8> {
    let mut state = 0u8;
    let mut len: libc::socklen_t = 1;
    // SAFETY: the kernel writes at most `len` bytes, the first of tcp_info, into `state`.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &mut len,
        )
    })?;
    Ok(state)
}

/// SO_LINGER with that many seconds.
pub fn linger(socket: impl AsFd, seconds: u64) -> io::Result<()> {
    let time = Some(Duration::from_secs(seconds));
    Ok(sockopt::set_socket_linger(socket, time)?)
}

/// TCP_LINGER2: seconds in FIN_WAIT2, negative for none at all.
pub fn linger2(socket: BorrowedFd<'_>, seconds: i32) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_LINGER2, &seconds)
}

/// Dissolves the connection (connect to AF_UNSPEC); the socket can connect again.
pub fn disconnect(socket: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::connect_unspec(socket)?)
}

/// Connects a socket that was disconnected.
pub fn reconnect(socket: impl AsFd, addr: SocketAddr) -> io::Result<()> {
    Ok(rustix::net::connect(socket, &addr)?)
}

/// Lets the socket drop every segment that comes, as if the wire were cut, until [`thaw`].
pub fn freeze(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut drop_all = libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let program = libc::sock_fprog {
        len: 1,
        filter: &mut drop_all,
    };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Ends [`freeze`].
pub fn thaw(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &0)
}

/// The listener makes a connection of a handshake only once data has come for it.
pub fn defer_accept(socket: BorrowedFd<'_>) -> io::Result<()> {
    let seconds = 60;
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &seconds)
}

fn set_option<T>(socket: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of `value`.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })
}

/// Sends a copy of `fd` to whoever waits in [`Mailbox::receive`] for `name`.
pub fn send_fd(name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    let socket = unix_socket()?;
    rustix::net::connect(
        &socket,
        &SocketAddrUnix::new_abstract_name(name.as_bytes())?,
    )?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let data = [io::IoSlice::new(b".")];
    rustix::net::sendmsg(&socket, &data, &mut control, SendFlags::empty())?;
    Ok(())
}

/// The waiting end of [`send_fd`].
#[derive(Debug)]
pub struct Mailbox(OwnedFd);

impl Mailbox {
    /// Opens the mailbox `name`, an abstract address of the network namespace.
    pub fn open(name: &str) -> io::Result<Mailbox> {
        let socket = unix_socket()?;
        rustix::net::bind(
            &socket,
            &SocketAddrUnix::new_abstract_name(name.as_bytes())?,
        )?;
        rustix::net::listen(&socket, 1)?;
        Ok(Mailbox(socket))
    }

    /// Waits for a descriptor.
    pub fn receive(&self) -> io::Result<OwnedFd> {
        wait_acceptable(&self.0)?;
        let socket = rustix::net::accept_with(&self.0, SocketFlags::CLOEXEC)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut data = [io::IoSliceMut::new(&mut byte)];
        rustix::net::recvmsg(&socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        control
            .drain()
            .find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            })
            .ok_or_else(|| io::Error::other("no descriptor came"))
    }
}

fn unix_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
