//! Programs that are not ours, as they are run in the field.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::child::{LIMIT, Process, until};
use crate::export::{directory, output, python_path};
use crate::lab::Lab;
use crate::oracle::proc_net;

/// Where Debian has Tomcat for embedding.
pub const TOMCAT: &str = "/usr/share/java/tomcat10-embed-core.jar";

/// Where Debian has HttpClient 4, and what it needs.
pub const HTTPCLIENT: [&str; 4] = [
    "/usr/share/java/httpclient.jar",
    "/usr/share/java/httpcore.jar",
    "/usr/share/java/commons-logging.jar",
    "/usr/share/java/commons-codec.jar",
];

/// A Python program of `programs/` in the lab. It waits to be told.
#[track_caller]
pub fn program(lab: &Lab, name: &str, args: &[&str]) -> Process {
    let mut command = lab.ns.command(python_path());
    command.arg(directory("programs").join(name)).args(args);
    command.env("PYTHONWARNINGS", "ignore");
    let process = Process::spawn(&mut command);
    wait_said(&process, "here");
    process
}

/// Tells a program something, and waits for its answer: the line with these words.
#[track_caller]
pub fn tell(program: &mut Process, line: &str, answer: &str) -> String {
    let from = program.out.len();
    writeln!(program.stdin(), "{line}").expect("the pipe to it");
    let found = program.out.find(from, LIMIT, |line| {
        line.text.contains(answer).then(|| line.text.clone())
    });
    found.unwrap_or_else(|| panic!("no {answer}: {}", program.err.text()))
}

/// Waits until a program has printed this.
#[track_caller]
pub fn wait_said(program: &Process, text: &str) {
    let found = program
        .out
        .find(0, LIMIT, |line| line.text.contains(text).then_some(()));
    assert!(found.is_some(), "no {text}: {}", program.err.text());
}

/// nginx in the lab.
#[derive(Debug)]
pub struct Nginx {
    /// Its one process.
    pub process: Process,
    _directory: TempDir,
}

impl Nginx {
    /// With these `server` blocks, and a certificate for those with TLS. Waits until it listens on `ports`.
    #[track_caller]
    pub fn start(lab: &Lab, servers: &str, ports: &[u16]) -> Nginx {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path();
        certificate(place, lab.ip);
        let place = place.display();
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let paths = paths.map(|name| format!("{name}_temp_path {place}/{name};"));
        let text = format!(
            "daemon off; master_process off; pid {place}/pid; error_log stderr warn;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; {} ssl_certificate {place}/crt; ssl_certificate_key {place}/key; {servers} }}\n",
            paths.concat()
        );
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, text).expect("nginx.conf");
        let mut command = lab.ns.command("/usr/sbin/nginx");
        command.args(["-e", "stderr", "-c"]).arg(&file);
        let process = Process::spawn(&mut command);
        wait_listening(lab, ports, &process);
        Nginx {
            process,
            _directory: directory,
        }
    }
}

/// A key, and a certificate that is signed by it.
#[track_caller]
fn certificate(place: &Path, ip: Ipv4Addr) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-newkey", "ec"]);
    command.args(["-pkeyopt", "ec_paramgen_curve:P-256"]);
    command.args(["-subj", &format!("/CN={ip}"), "-keyout"]);
    command
        .arg(place.join("key"))
        .arg("-out")
        .arg(place.join("crt"));
    output(&mut command);
}

/// Waits until there are listeners on these ports, without connecting to them.
#[track_caller]
pub fn wait_listening(lab: &Lab, ports: &[u16], process: &Process) {
    let what = format!("listeners on {ports:?}: {}", process.err.text());
    until(LIMIT, &what, || {
        let sockets = proc_net::sockets(&lab.ns);
        let listens = |port: &u16| {
            let is_it = |s: &proc_net::Socket| s.state == "listen" && s.local.port() == *port;
            sockets.iter().any(is_it)
        };
        ports.iter().all(listens).then_some(())
    });
}

/// Java programs of `programs/`, compiled once, since that takes longer than what they do.
#[derive(Debug)]
pub struct Java {
    directory: TempDir,
    class_path: String,
}

impl Java {
    /// Compiles these classes, which use these jars.
    #[track_caller]
    pub fn compile(classes: &[&str], jars: &[&str]) -> Java {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().to_str().expect("UTF-8");
        let class_path = [&[place], jars].concat().join(":");
        let mut compiler = Command::new("javac");
        compiler.args(["-cp", &class_path, "-d", place]);
        let programs = crate::export::directory("programs");
        let sources = classes
            .iter()
            .map(|name| programs.join(format!("{name}.java")));
        output(compiler.args(sources));
        Java {
            directory,
            class_path,
        }
    }

    /// Runs a class in the lab.
    #[track_caller]
    fn start(&self, lab: &Lab, class: &str, args: &[&str]) -> Process {
        let mut command = lab.ns.command("java");
        // Nothing here runs for long enough to be worth more.
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
        command.args(["-cp", &self.class_path, class]).args(args);
        Process::spawn(&mut command)
    }

    /// A program in the lab. It waits to be told.
    #[track_caller]
    pub fn program(&self, lab: &Lab, class: &str, args: &[&str]) -> Process {
        let process = self.start(lab, class, args);
        wait_said(&process, "here");
        process
    }

    /// `Server` in the lab: Tomcat, with a connector for each of these ports, which closes connections that
    /// are idle for so long. Waits until it listens.
    #[track_caller]
    pub fn tomcat(&self, lab: &Lab, connectors: &[(u16, Duration)]) -> Process {
        let place = self.directory.path().to_str().expect("UTF-8");
        let mut args = vec![lab.ip.to_string(), place.to_owned()];
        for (port, keep_alive) in connectors {
            args.extend([port.to_string(), keep_alive.as_millis().to_string()]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let process = self.start(lab, "Server", &args);
        let ports: Vec<u16> = connectors.iter().map(|(port, _)| *port).collect();
        wait_listening(lab, &ports, &process);
        process
    }
}
