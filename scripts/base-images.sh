#!/usr/bin/env bash
# Sees to it that the engine has the images that the Dockerfiles start from: those that it has are kept, those that a
# registry gives are pulled, and where there is no registry, images that do the same are made under the same names:
#   debian:bookworm-slim   Debian's smallest installation, by debootstrap
#   rust:1.95-bookworm     that with a C compiler and this machine's Rust: with the argument with-compiler, since
#                          Dockerfile.prebuilt does without
# Prints the names of those that were not there before, a line each. Takes about 75 s where both are made.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
. scripts/common.sh

SUITE=bookworm
SLIM=$(sed -n 's/^ARG RUNTIME_IMAGE=//p' Dockerfile)
RUST=$(sed -n 's/^ARG RUST_IMAGE=//p' Dockerfile)

main() {
    have docker || die "there is no docker command; install it (https://docs.docker.com/engine/install)"
    docker version >/dev/null 2>&1 || die "no Docker engine answers: start it (systemctl start docker)"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    provide "$SLIM" make_slim
    case "${1:-}" in
    with-compiler) provide "$RUST" make_rust ;;
    "") ;;
    *) die "usage: base-images.sh [with-compiler]" ;;
    esac
}

# provide IMAGE MAKE
provide() {
    docker image inspect "$1" >/dev/null 2>&1 && return 0
    # The engine itself gives up what does not move. An hour is for an engine that hangs.
    if ! timeout 3600 docker pull --quiet "$1" >/dev/null 2>&1; then
        say "$1 cannot be pulled here; making it"
        "$2" >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2 && die "$1 could not be made"; }
    fi
    echo "$1"
}

make_slim() {
    if ! have debootstrap; then
        in_ci || { say "debootstrap is not installed, which makes it (a package of that name)" && return 1; }
        scripts/install.sh debootstrap || return
    fi
    as_root debootstrap --variant=minbase "$SUITE" "$work/slim" || return
    # As the public image has it: packages that were installed are not kept.
    echo 'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };' |
        as_root tee "$work/slim/etc/apt/apt.conf.d/docker-clean" || return
    as_root tar -C "$work/slim" --exclude './var/cache/apt/archives/*' --exclude './var/lib/apt/lists/*' -c . |
        docker import --change 'CMD ["bash"]' - "$SLIM" || return
    as_root rm -rf "$work/slim"
}

make_rust() {
    local cargo_home=/usr/local/cargo rust=/usr/local/rust
    mkdir "$work/rust" || return
    # The build needs no documentation, no sources of the standard library and no editor's helper.
    tar -C "$(rustc --print sysroot)" --exclude ./share --exclude ./lib/rustlib/src --exclude ./bin/rust-analyzer -c . \
        >"$work/rust/toolchain.tar" || return
    # A machine behind a proxy trusts more certificates than Debian's list has.
    cp /etc/ssl/certs/ca-certificates.crt "$work/rust" || return
    docker build --quiet --tag "$RUST" --file - "$work/rust" <<DOCKERFILE || return
FROM $SLIM
RUN apt-get update -q && apt-get install -y -q --no-install-recommends ca-certificates gcc g++ libc6-dev make git pkg-config \
    && rm -rf /var/lib/apt/lists/*
ADD toolchain.tar $rust
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
ENV CARGO_HOME=$cargo_home PATH=$cargo_home/bin:$rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
DOCKERFILE
}

main "$@"
