# shellcheck shell=bash
# Sourced by the other scripts: how they speak, and where they look for tools.

# rustup puts cargo here; a terminal that was open before does not know it yet.
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

have() { command -v "$1" >/dev/null 2>&1; }

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# sudo may ask for a password where somebody is there to type it, and never waits for one elsewhere.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif ! have sudo; then
        say "this needs root, and there is no sudo"
        return 1
    elif [ -t 0 ]; then
        sudo "$@" # asks on the terminal
    else
        sudo -n "$@"
    fi
}

# The project's files that find's conditions pick, without what was built, trained or fetched.
own_files() {
    find . \( -name .git -o -name target -o -name runs -o -name .venv \) -prune -o -type f "$@" -print
}
