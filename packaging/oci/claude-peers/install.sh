#!/bin/sh
# Installs claude-peers into an image of Debian or Ubuntu. It runs as root while the image is built, with the options of
# devcontainer-feature.json as VERSION, REPOSITORY and PACKAGE. The broker starts later, as the user of the container.
set -eu
version=${VERSION:-latest}
repository=${REPOSITORY:-https://claude-peers.github.io/claude-peers/apt}
package=${PACKAGE:-}
export DEBIAN_FRONTEND=noninteractive

fail() { echo "claude-peers: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "install.sh installs for all users: run it as root"
command -v apt-get >/dev/null || fail "this feature needs an image of Debian or Ubuntu, which have apt-get"

install() { apt-get install --yes --no-install-recommends "$@"; }

if [ -z "$package" ]; then
    apt-get update
    command -v curl >/dev/null || install curl ca-certificates
    curl -fsSL "$repository/claude-peers.sources" -o /etc/apt/sources.list.d/claude-peers.sources ||
        fail "$repository has no claude-peers.sources: check the address"
    package=claude-peers
    [ "$version" = latest ] || package=claude-peers=$version
elif [ ! -f "$package" ]; then
    fail "there is no package $package in the image"
else
    package=$(realpath "$package")
fi
apt-get update
install "$package"
rm -rf /var/lib/apt/lists/*
