//! Which connections the user asked for.

use std::net::IpAddr;

use crate::change::View;
use crate::state::StateSet;
use crate::tuple::Role;

/// An address prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    /// The network address, IPv4 or IPv6.
    pub addr: IpAddr,
    /// Bits of the prefix.
    pub bits: u8,
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4, and IPv4 over an IPv6 socket.
    V4,
    /// IPv6 proper.
    V6,
}

/// The user's filter: every field that is set must hold; within a list, any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// States to show.
    pub states: StateSet,
    /// Owner or any holder.
    pub pids: Vec<u32>,
    /// Owner's name: whole, or with `*` and `?`.
    pub comms: Vec<String>,
    /// Local port.
    pub local_ports: Vec<u16>,
    /// Remote port.
    pub remote_ports: Vec<u16>,
    /// Either port.
    pub any_ports: Vec<u16>,
    /// Local address.
    pub local_nets: Vec<Net>,
    /// Remote address.
    pub remote_nets: Vec<Net>,
    /// Address family.
    pub family: Option<Family>,
    /// Role.
    pub roles: Vec<Role>,
    /// cgroup path or container id: equal, below, or a prefix of the id.
    pub cgroups: Vec<String>,
    /// Network namespaces by inode number.
    pub netns: Vec<u32>,
    /// Least age in the state, ns.
    pub min_age_ns: u64,
}

impl Filter {
    /// Whether the connection is one of those asked for, age aside.
    pub fn matches(&self, view: &View) -> bool {
        let _ = view;
        true
    }
}
