//! What the live tests stand on: private network namespaces, scripted peers that log the truth,
//! a handle on the tracer, and oracles that this project did not write.
//!
//! A test opens a [`lab::Lab`], lets [`peer::Peer`]s act in it, and compares what
//! [`tcptrace::Tracer`] said with the [`truth::Act`]s and with an [`oracle`].
//!
//! Everything panics instead of returning errors: a test that cannot go on has failed, and the
//! backtrace says where.

pub mod child;
pub mod diagnosis;
pub mod export;
pub mod kernel;
pub mod lab;
pub mod leaks;
pub mod maps;
pub mod netns;
pub mod oracle;
pub mod pace;
pub mod peer;
pub mod recording;
pub mod require;
pub mod sock;
pub mod software;
pub mod stage;
pub mod tcptrace;
pub mod truth;
pub mod uring;
