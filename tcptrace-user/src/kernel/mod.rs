pub(crate) mod probes;
