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

in_ci() { [ "${CI:-}" = true ]; }

# skipped WHAT: something is left out, for a reason that is named. It is also written into the file SKIPPED_LIST, if there is
# one, from which the end of a run takes what it says.
skipped() {
    say "skipped: $*"
    [ -z "${SKIPPED_LIST:-}" ] || printf '%s\n' "$*" >>"$SKIPPED_LIST"
}

skip() { skipped "$1 is not installed ($2)"; }

# python_environment DIRECTORY REQUIREMENTS: a Python environment with what a file lists; anew when the file changes. Where it
# can't be made, nothing of it stays. Bash forgets about `set -e` in whatever is called with ||, so every step here has its own.
python_environment() {
    cmp -s "$2" "$1/installed" && return 0
    if ! python_makes_environments; then
        in_ci || return 1
        scripts/install.sh python3 python3-venv || return 1
    fi
    say "Installing with pip, into $1: $(grep -v '^#' "$2" | tr '\n' ' ')"
    rm -rf "$1" || return 1
    mkdir -p "$(dirname "$1")" || return 1
    fill_python_environment "$1" "$2" && return 0
    rm -rf "$1"
    return 1
}

python_makes_environments() { have python3 && python3 -c "import venv, ensurepip" 2>/dev/null; }

fill_python_environment() {
    python3 -m venv "$1" || return 1
    "$1/bin/pip" install --quiet --disable-pip-version-check --requirement "$2" || return 1
    cp "$2" "$1/installed"
}

# The project's files that find's conditions pick, without what was built, trained or fetched.
own_files() {
    find . \( -name .git -o -name target -o -name runs -o -name .venv \) -prune -o -type f "$@" -print
}
