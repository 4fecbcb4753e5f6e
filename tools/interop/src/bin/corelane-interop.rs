//! `corelane-interop server|client`: an endpoint as quic-interop-runner wants it.

use corelane_hq::Args;
use corelane_interop::endpoint;
use std::process::ExitCode;

fn main() -> ExitCode {
    let env = |name: &str| std::env::var(name).ok();
    let args = match corelane_hq::parse(std::env::args().skip(1), env) {
        Ok(Some(args)) => args,
        Ok(None) => return corelane_hq::UNSUPPORTED.into(),
        Err(why) => {
            eprintln!("{why}");
            return 2.into();
        }
    };
    if args == Args::Help {
        println!("corelane-interop: corelane as an endpoint of interop tests\n");
        println!("{}", corelane_hq::USAGE);
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("corelane-interop: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(async {
        match args {
            Args::Server(args) => endpoint::serve(args).await,
            Args::Client(args) => endpoint::fetch(args).await.map(|_| ()),
            Args::Help => Ok(()),
        }
    })
}
