#!/usr/bin/env bash
# What the tests of containers need around them.
#   containers.sh prepare NAME   release binaries, and an image NAME of them, so that builds find their steps done
#   containers.sh sweep          removes what tests have left on the engine that were killed before they could
# `prepare` wants the base images (base-images.sh).
#
# Whatever tests put on the engine is called mftest-PID-…, PID being the process that will remove it. Where that process is
# gone, nobody will: this is what `sweep` goes by. What is of other names, or of a process that lives, it leaves alone.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
. scripts/common.sh

PREFIX=mftest-

main() {
    case "${1:-}" in
    prepare) prepare "${2:?the name of an image}" ;;
    sweep) sweep ;;
    *) die "usage: containers.sh prepare NAME | sweep" ;;
    esac
}

prepare() {
    cargo build --release --locked
    docker build --quiet --file Dockerfile.prebuilt --tag "$1" . >/dev/null
}

# Another run may sweep at the same time: what is gone already is no fault.
sweep() {
    docker ps --all --format '{{.Names}}' | abandoned | xargs -r docker rm --force --volumes || true
    docker volume ls --format '{{.Name}}' | abandoned | xargs -r docker volume rm --force || true
    docker network ls --format '{{.Name}}' | abandoned | xargs -r docker network rm || true
    docker image ls --format '{{.Repository}}:{{.Tag}}' | abandoned | xargs -r docker image rm || true
}

# Of these names, those of processes that are gone.
abandoned() {
    local name pid
    while read -r name; do
        pid=${name#"$PREFIX"}
        [ "$pid" != "$name" ] || continue
        pid=${pid%%[!0-9]*}
        [ -d "/proc/$pid" ] || echo "$name"
    done
}

main "$@"
