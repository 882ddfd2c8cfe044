//! Records of the ring buffer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tcptrace_core::cause::Cause;
use tcptrace_core::decode::Decoder;

fuzz_target!(|bytes: &[u8]| {
    let decoder = Decoder {
        hz: u64::from(bytes.first().copied().unwrap_or(250)),
        observer: None,
        mini_death: Box::new(|_, _| Cause::Unknown),
    };
    let _ = decoder.decode(bytes.get(1..).unwrap_or_default());
});
