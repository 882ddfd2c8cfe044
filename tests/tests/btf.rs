//! `--btf`: field offsets from a file.

use std::path::PathBuf;
use std::process::{Command, Output};

use tcptrace_tests::lab::Lab;
use tcptrace_tests::require;
use tcptrace_tests::tcptrace::command;

const OWN: &str = "/sys/kernel/btf/vmlinux";

#[test]
fn the_kernels_own_btf_may_come_from_a_file() {
    require!(root, tracer, btf);
    let dir = tempfile::tempdir().expect("a directory");
    let copy = dir.path().join("vmlinux.btf");
    std::fs::copy(OWN, &copy).expect("a copy");
    let copy = copy.to_str().expect("UTF-8");
    let lab = Lab::new();
    let watch = lab.watch(&["--btf", copy, "--min-age", "0"]);
    let mut conn = lab.connect();
    conn.client.act("close C");
    conn.server.act("wait S 8");
    let stuck = watch.stuck(&conn.s.id(), "close_wait");
    assert_eq!(stuck.number("pid"), u64::from(conn.server.pid()));
    assert!(watch.stop().complete());

    let doctor = run(command(&["doctor", "--json", "--btf", copy]));
    assert_eq!(doctor.status.code(), Some(0), "{doctor:?}");
}

#[test]
fn a_file_that_is_no_btf_is_a_usage_error() {
    require!(root, tracer);
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    };
    let mut foreign = std::fs::read(OWN).unwrap_or_else(|_| vec![0x9f, 0xeb, 1, 0]);
    foreign.swap(0, 1);
    for (path, word) in [
        (dir.path().join("missing"), "No such file"),
        (dir.path().to_owned(), "directory"),
        (write("text", b"hello, this is not BTF at all"), "not BTF"),
        (write("short", &[0x9f, 0xeb, 1]), "cut off"),
        // Of a machine with the other byte order.
        (write("foreign", &foreign), "not BTF"),
        (PathBuf::from("/dev/zero"), "larger"),
    ] {
        let name = path.to_str().expect("UTF-8");
        for verb in ["watch", "doctor"] {
            let output = run(command(&[verb, "--btf", name]));
            let err = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{name}: {output:?}");
            assert!(err.contains(name) && err.contains(word), "{name}: {err}");
            assert!(err.contains("hint: "), "{name}: {err}");
        }
    }
}

/// Well-formed BTF whose offsets are not this kernel's: no number must come of it.
#[test]
fn the_btf_of_another_kernel_is_refused() {
    require!(root, tracer, btf);
    let dir = tempfile::tempdir().expect("a directory");
    let own = std::fs::read(OWN).expect("BTF");
    for (name, renames, word) in [
        // `sock` has both, of the same size: the wrong field is read.
        (
            "swapped",
            &[("sk_socket", "sk_filter"), ("sk_filter", "sk_socket")][..],
            "self-check",
        ),
        ("without", &[("tcp_sock", "xxx_sock")], "tcp_sock"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, renamed(&own, renames)).expect("a file");
        let path = path.to_str().expect("UTF-8");
        let watch = run(command(&["watch", "-d", "1s", "--btf", path]));
        let err = String::from_utf8_lossy(&watch.stderr);
        assert_eq!(watch.status.code(), Some(3), "{name}: {watch:?}");
        assert!(watch.stdout.is_empty(), "{name}: {watch:?}");
        assert!(err.contains(path) && err.contains(word), "{name}: {err}");
        let doctor = run(command(&["doctor", "--json", "--btf", path]));
        assert_eq!(doctor.status.code(), Some(3), "{name}: {doctor:?}");
    }
}

/// The BTF with names of its string section replaced by others of the same length.
fn renamed(btf: &[u8], renames: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = btf.to_vec();
    for (old, new) in renames {
        assert_eq!(old.len(), new.len());
        let old = [b"\0", old.as_bytes(), b"\0"].concat();
        // Found in the original, so that two names can change places.
        let found = btf.windows(old.len()).position(|w| w == old);
        let at = found.expect("the name") + 1;
        bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
    }
    bytes
}

#[track_caller]
fn run(mut command: Command) -> Output {
    command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"))
}
