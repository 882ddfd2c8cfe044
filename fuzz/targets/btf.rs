//! The BTF parser, and every question that is asked of it.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// The binary's own sources: it has no library.
#[path = "../../tcptrace-user/src/kernel"]
mod kernel {
    pub(crate) mod btf;
    pub(crate) mod layout;
    mod member;
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(btf) = kernel::btf::Btf::parse(bytes.to_vec()) {
        let _ = btf.types();
        let _ = kernel::layout::resolve(&btf);
        for name in ["inet_sock_set_state", "kfree_skb"] {
            let _ = btf.tracepoint(name);
        }
        let _ = btf.function("tcp_close");
    }
});
