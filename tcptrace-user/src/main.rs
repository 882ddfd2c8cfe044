//! tcptrace.
mod kernel;
mod command {
    pub(crate) mod doctor;
}

fn main() -> anyhow::Result<std::process::ExitCode> {
    let args: Vec<String> = std::env::args().collect();
    let options = command::doctor::DoctorOptions {
        json: args.iter().any(|a| a == "--json"),
        width: args.iter().find_map(|a| a.parse().ok()),
        ..Default::default()
    };
    command::doctor::run(&options, None, &mut std::io::stdout())
}
