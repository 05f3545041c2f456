//! `claude-peersd`: the broker.

fn main() -> std::process::ExitCode {
    claude_peers::serve::main()
}
