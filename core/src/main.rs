//! The `tailwater` binary.

use std::process::ExitCode;

use tailwater::cli::{Next, begin};

fn main() -> ExitCode {
    match begin() {
        Next::Exit(code) => code,
        Next::Run(_) => {
            eprintln!("tailwater: run is not part of this build");
            ExitCode::FAILURE
        }
    }
}
