//! How long the core's work takes.
#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tcptrace_bench::{Load, Work};

/// As many as a busy host has in a second or two.
const CONNECTIONS: u64 = 20_000;

fn core(criterion: &mut Criterion) {
    let load = Load::new(CONNECTIONS);
    let mut group = criterion.benchmark_group("core");
    group.throughput(Throughput::Elements(load.records()));
    for work in Work::ALL {
        group.bench_function(work.name(), |bencher| {
            bencher.iter(|| black_box(&load).run(black_box(work)));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = core
}
criterion_main!(benches);
