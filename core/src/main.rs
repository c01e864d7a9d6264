//! The `tailwater` binary.

use std::process::ExitCode;

use tailwater::cli::{Next, begin, run};
use tailwater::plugin::bound_allocator;

fn main() -> ExitCode {
    bound_allocator();
    match begin() {
        Next::Exit(code) => code,
        Next::Run { config, path } => run::run(*config, path),
    }
}
