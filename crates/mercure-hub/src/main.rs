//! The `mercure-hub` command.

mod cli;

use std::process::ExitCode;

/// musl's own allocator takes turns where several threads allocate at once; glibc's does not.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
