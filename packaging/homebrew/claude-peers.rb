# Builds claude-peers from source.
class ClaudePeers < Formula
  desc "Lets the coding-agent sessions on a machine find each other and talk"
  homepage "https://github.com/claude-peers/claude-peers"
  license "MIT"
  head "https://github.com/claude-peers/claude-peers.git", branch: "main"

  depends_on "rust" => :build
  depends_on :macos

  def install
    system "cargo", "install", *std_cargo_args
    system bin/"claude-peers", "manual", buildpath/"man"
    man1.install Dir["man/*.1"]
    generate_completions_from_executable(bin/"claude-peers", "completions")
    doc.install "docs"
    pkgshare.install "packaging/plugin"
  end

  # Under `brew services` the broker binds its own sockets, because a formula can give launchd only the TCP socket.
  # `claude-peers setup` gives launchd both.
  service do
    run opt_bin/"claude-peersd"
    keep_alive successful_exit: false
    error_log_path var/"log/claude-peers.log"
  end

  def caveats
    <<~EOS
      Each user runs this once:
        claude-peers setup
      It makes launchd start the broker with the first connection and registers the MCP server with your agents, so
      you do not need `brew services`. Run it again after an upgrade. `claude-peers doctor` checks the installation.

      Before `brew uninstall claude-peers`:
        claude-peers setup --undo
    EOS
  end

  test do
    ENV["CLAUDE_PEERS_SOCKET"] = testpath/"broker.sock"
    ENV["CLAUDE_PEERS_DB"] = testpath/"peers.db"
    ENV["CLAUDE_PEERS_PORT"] = free_port.to_s
    assert_match version.to_s, shell_output("#{bin}/claude-peers --version")
    # Without a broker, `status` says so and exits with code 3.
    assert_match "broker", shell_output("#{bin}/claude-peers status 2>&1", 3)
    # Two sessions with a private broker find each other, talk, and lose no message when the broker is killed.
    system bin/"claude-peers", "demo"
  end
end
