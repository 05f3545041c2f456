//! `claude-peers-link`: links the brokers of several machines.

fn main() -> std::process::ExitCode {
    claude_peers::link::main()
}
