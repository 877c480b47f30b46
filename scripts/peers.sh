#!/usr/bin/env bash
# Installs what other people's programs are made of. For the tests that call a coordinator with them, or that it calls: Python's
# grpcio and moto, which speaks S3's protocol, into target/peers, and OpenSSL. For those that read exported models, and for the
# tables of the examples: Keras, ONNX Runtime, NumPy and scikit-learn into target/readers.
# Where one can't be had it says so and ends well; with CI=true that is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
. scripts/common.sh

main() {
    have openssl || ! in_ci || scripts/install.sh openssl
    have openssl || missing openssl "a package of that name"
    python_environment target/peers tests/peers/requirements.txt ||
        missing "Python's grpcio with moto" "it needs python3, python3-venv, and a way to pip's packages"
    python_environment target/readers tests/readers/requirements.txt ||
        missing "a reader of exported models" "it needs Python 3.11 or newer, python3-venv, and a way to pip's packages"
}

# The others may be had all the same.
missing() {
    in_ci && die "$1 is not installed ($2)"
    skip "$@"
}

main
