//! stand-in
#![allow(missing_docs)]
use crate::state::TcpState;
use crate::time::Age;
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    pub span_ns: u64,
    pub states: Vec<StateLine>,
    pub groups: Vec<Group>,
    pub completeness: Completeness,
}
#[derive(Clone, Debug, PartialEq)]
pub struct StateLine {
    pub state: TcpState,
    pub entered: u64,
    pub left: u64,
    pub open: u64,
    pub estimated: u64,
    pub oldest_open: Option<Age>,
    pub durations: Option<Durations>,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Durations {
    pub min_ns: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
}
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub key: Vec<String>,
    pub lines: Vec<StateLine>,
}
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Completeness {
    pub ring_full: u64,
    pub recursion_missed: u64,
    pub map_full: u64,
    pub read_faults: u64,
    pub undecodable: u64,
    pub reconciled: u64,
    pub mptcp: u64,
    pub estimated: u64,
    pub mode: String,
    pub notes: Vec<String>,
}
