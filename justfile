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
    CLAUDE_PEERS_MODEL_DEEPER=2 CLAUDE_PEERS_MODEL_RUNS=50000 cargo test --locked --release --lib mailbox::model -- --nocapture

# the figures of docs/benchmarks.md
bench:
    cargo bench --locked --bench figures --bench host --bench inbox
