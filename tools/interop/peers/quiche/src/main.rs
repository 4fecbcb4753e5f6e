//! quiche as an endpoint of the interop runner: hq-interop client and server.
//!
//! quiche is a state machine without sockets; `net` has the loop around it.

mod client;
mod net;
mod server;

use corelane_hq::{Args, Case};
use std::process::ExitCode;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let args = match corelane_hq::parse(std::env::args().skip(1), |n| std::env::var(n).ok()) {
        Ok(Some(args)) => args,
        Ok(None) => return corelane_hq::UNSUPPORTED.into(),
        Err(why) => {
            eprintln!("{why}");
            return 2.into();
        }
    };
    let outcome = match &args {
        // It offers no preferred address, no version 2 and no ECN counts.
        Args::Server(a) if matches!(a.case, Case::ConnectionMigration | Case::V2 | Case::Ecn) => {
            return corelane_hq::UNSUPPORTED.into();
        }
        // Nor can it choose cipher suites or update keys by itself.
        Args::Client(a)
            if matches!(
                a.case,
                Case::ConnectionMigration | Case::V2 | Case::Ecn | Case::ChaCha20 | Case::KeyUpdate
            ) =>
        {
            return corelane_hq::UNSUPPORTED.into();
        }
        Args::Server(a) => server::run(a),
        Args::Client(a) => client::run(a),
        Args::Help => {
            println!("{}", corelane_hq::USAGE);
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
