//! Answers of sock_diag.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tcptrace_core::time::Mono;

/// The binary's own sources: it has no library.
#[path = "../../tcptrace-user/src/netlink"]
mod netlink {
    pub(crate) mod parse;
    mod wire;
}

fuzz_target!(|bytes: &[u8]| {
    for message in netlink::parse::Messages::new(bytes) {
        let Ok(message) = message else { return };
        if let netlink::parse::Body::Socket(payload) = message.body {
            let _ = netlink::parse::socket(payload, Mono(0), 1);
        }
    }
    let _ = netlink::parse::socket(bytes, Mono(0), 1);
});
