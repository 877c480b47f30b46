#!/usr/bin/env bash
# Installs what `make bench-peers` measures against, Keras and PyTorch, into ${XDG_CACHE_HOME:-~/.cache}/millefeuille/peers:
# outside of the tree, since it is large and the same for every clone. Deleting that directory is all it takes to be rid of it.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
. scripts/common.sh

environment="${XDG_CACHE_HOME:-$HOME/.cache}/millefeuille/peers"
requirements=bench/peers/requirements.txt

failed() { die "Keras and PyTorch are not installed: it needs Python 3.11 to 3.13, python3-venv, and a way to pip's packages"; }

cmp -s "$requirements" "$environment/installed" && exit
python_makes_environments || scripts/install.sh python3 python3-venv || failed
say "Keras and PyTorch are about 3.5 GB to download and 7 GB on disk, once"
python_environment "$environment" "$requirements" || failed
