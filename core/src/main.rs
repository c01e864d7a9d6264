//! The `tailwater` binary.

use std::process::ExitCode;

use tailwater::cli::{Next, begin, run};

fn main() -> ExitCode {
    match begin() {
        Next::Exit(code) => code,
        Next::Run(config) => run::run(*config),
    }
}
