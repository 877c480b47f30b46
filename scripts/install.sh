#!/usr/bin/env bash
# Installs what a build needs and is missing: a C compiler, OpenBLAS with its linker name, Rust.
# Says what it installs. Prints nothing, and takes a moment only, where everything is there.
# Other packages that the caller needs are named as arguments: `install.sh shellcheck`.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
. scripts/common.sh

RUST_NEEDED=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

main() {
    local wanted=("$@")
    cc_found || wanted+=(cc)
    openblas_found || wanted+=(openblas)
    rust_found || have curl || wanted+=(curl)
    if [ ${#wanted[@]} -gt 0 ]; then
        install_packages "${wanted[@]}"
    fi
    rust_found || install_rust
}

# On a Mac `cc` is always there, if only to say that the developer tools are not.
cc_found() {
    if [ "$(uname)" = Darwin ]; then xcode-select -p >/dev/null 2>&1; else have cc; fi
}

# The header is not needed, the name that the linker looks for is: libopenblas.so.0 alone does not do.
openblas_found() {
    if have pkg-config && pkg-config --exists openblas; then
        return 0
    fi
    if [ "$(uname)" = Darwin ]; then
        # Homebrew keeps OpenBLAS out of the usual folders; the build asks `brew --prefix`, too.
        [ -e /opt/homebrew/opt/openblas/lib ] || [ -e /usr/local/opt/openblas/lib ]
    else
        case "$(cc -print-file-name=libopenblas.so 2>/dev/null)" in /*) ;; *) return 1 ;; esac
    fi
}

# There, and new enough.
rust_found() {
    local version
    version=$(cargo --version 2>/dev/null) || return 1
    version=${version#cargo }
    at_least "${version%% *}" "$RUST_NEEDED"
}

# at_least 1.96.0 1.95: whether the first version is not older than the second, by its first two numbers.
at_least() {
    local major=${1%%.*} minor=${1#*.} needed_major=${2%%.*} needed_minor=${2#*.}
    minor=${minor%%.*} needed_minor=${needed_minor%%.*}
    [ "$major" -gt "$needed_major" ] || { [ "$major" -eq "$needed_major" ] && [ "$minor" -ge "$needed_minor" ]; }
}

# What a thing is called by a package manager. What has no name of its own here is a package by that name.
package_names() {
    local manager=$1 thing
    shift
    for thing in "$@"; do
        case "$manager:$thing" in
        apt:cc) echo gcc libc6-dev ;;
        apt:openblas) echo libopenblas-dev pkg-config ;;
        apt:curl) echo curl ca-certificates ;;
        dnf:cc) echo gcc glibc-devel ;;
        dnf:openblas) echo openblas-devel pkgconf-pkg-config ;;
        dnf:shellcheck) echo ShellCheck ;;
        *:promtool) echo prometheus ;;
        brew:cc) die "the developer tools are missing: run xcode-select --install" ;;
        brew:openblas) echo openblas libomp pkgconf ;;
        *) echo "$thing" ;;
        esac
    done
}

install_packages() {
    local manager packages
    manager=$(package_manager) ||
        die "no apt-get, dnf or brew here; please install by hand: a C compiler, OpenBLAS with its development files," \
            "pkg-config, curl (missing: $*)"
    packages=$(package_names "$manager" "$@" | tr '\n' ' ')
    packages=${packages% }
    say "Installing with $manager: $packages"
    # shellcheck disable=SC2086  # a list of words
    "install_with_$manager" $packages || die "$manager could not install: $packages; please install them by hand"
}

package_manager() {
    if [ "$(uname)" = Darwin ]; then
        have brew && echo brew
    elif have apt-get; then
        echo apt
    elif have dnf; then
        echo dnf
    elif have brew; then
        echo brew
    else
        return 1
    fi
}

# The lists of packages are fetched only where those at hand are missing or too old for the download.
install_with_apt() {
    local get=(env DEBIAN_FRONTEND=noninteractive apt-get -qq)
    as_root "${get[@]}" install -y --no-install-recommends "$@" >/dev/null 2>&1 && return 0
    as_root "${get[@]}" update && as_root "${get[@]}" install -y --no-install-recommends "$@" >/dev/null
}

install_with_dnf() { as_root dnf install -y -q "$@"; }

install_with_brew() { HOMEBREW_NO_AUTO_UPDATE=1 brew install --quiet "$@"; }

# By rustup, as rust-lang.org advises. A Rust of the distribution that is too old stays where it is, unused.
install_rust() {
    if have rustup; then
        say "Updating Rust with rustup: stable ($RUST_NEEDED or newer is needed)"
        rustup toolchain install stable --profile minimal --component clippy,rustfmt --no-self-update
    else
        say "Installing Rust with rustup: the stable toolchain, into ${CARGO_HOME:-$HOME/.cargo}"
        curl --proto '=https' --tlsv1.2 --silent --show-error --fail --retry 2 https://sh.rustup.rs |
            RUSTUP_INIT_SKIP_PATH_CHECK=yes sh -s -- -y --quiet --profile minimal --component clippy,rustfmt ||
            die "could not install Rust: follow https://rustup.rs by hand"
        say "cargo will be on the PATH of new terminals; make finds it already"
    fi
    rust_found ||
        die "Rust $RUST_NEEDED or newer is needed, and cargo --version says: $(cargo --version 2>&1 | head -n 1)"
}

main "$@"
