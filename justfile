# The gate's steps by name; `just` alone lists them. See .ci/run for what each does.

_:
    @just --list --unsorted

# everything, as a change has to pass it
ci:
    bash .ci/run

# what takes seconds once it is built: format, layers, lints, tests
quick:
    bash .ci/run fmt layering clippy tests

# the format
fmt:
    bash .ci/run fmt

# who imports whom
layering:
    bash .ci/run layering

# licences, sources and versions of the dependencies
deny:
    bash .ci/run deny

# lints, all targets
clippy:
    bash .ci/run clippy

# each role on its own
features:
    bash .ci/run features

# the documentation, without warnings
doc:
    bash .ci/run doc

# the README's first command: install and show
demo:
    bash .ci/run demo

# the README's second command: all tests
tests:
    bash .ci/run tests

# the mailbox against its promises, two steps deeper and fifty times longer than in the gate
model:
    CLAUDE_PEERS_MODEL_DEEPER=2 CLAUDE_PEERS_MODEL_RUNS=50000 CLAUDE_PEERS_TEST_SEED="$(od -An -N4 -tu4 /dev/urandom | tr -d ' ' | tee /dev/stderr)" cargo test --locked --release --lib mailbox::model -- --nocapture

# the fuzz targets of the gate for SECONDS each, with other inputs
fuzz SECONDS="60":
    FUZZ_SECONDS={{SECONDS}} FUZZ_SEED="$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')" bash .ci/run fuzz

# 100,000 disks of a power cut; docs/reliability.md has the last figures
power:
    CLAUDE_PEERS_TEST_POWER_DISKS=100000 cargo test --locked --test power survives -- --nocapture

# other agents in their newest versions, 100 messages from each to the next
agents VERSION="latest":
    CLAUDE_PEERS_AGENTS_MESSAGES=100 CLAUDE_PEERS_AGENTS_VERSION={{VERSION}} cargo test --locked --test agents

# the figures of docs/benchmarks.md
bench:
    cargo bench --locked --bench figures --bench host --bench inbox --bench agents

# 10,000 kills of the broker and 5,000 of sessions under a mixed load; prints a table
chaos kills="15000":
    CLAUDE_PEERS_TEST_KILLS={{kills}} cargo test --locked --test suite chaos:: -- --nocapture

# messages both ways between two machines while hub, links and brokers are killed; needs nats-server
link messages="10000":
    CLAUDE_PEERS_TEST_LINK_MESSAGES={{messages}} cargo test --locked --features link --test link kills:: -- --nocapture

# a week in an hour: what the broker and a session's server use must stay flat; prints a table
soak seconds="3600":
    CLAUDE_PEERS_TEST_SOAK={{seconds}} cargo test --locked --test suite soak:: -- --ignored --nocapture
