#!/usr/bin/env bash
# Checks the Kubernetes manifests, offline: every kustomization renders, what it renders fits the schemas of three versions of
# Kubernetes and of the custom resources in it, and a security scanner finds nothing that is not explained in
# deploy/kubernetes/accepted-findings.txt. What no schema knows is checked by tests/tests/kubernetes.rs.
#
# Needs kubectl with kustomize 5 (kubectl 1.27 or newer), and Python, into which it installs what it needs, below target/.
# Where one is absent it says so and ends well; with CI=true that is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
. scripts/common.sh

ROOT=deploy/kubernetes
REQUIREMENTS=scripts/manifests-requirements.txt
TARGET=${CARGO_TARGET_DIR:-target}
RENDERED=$TARGET/manifests
VENV=$TARGET/manifests-venv

main() {
    kubectl_found || lacking "kubectl with kustomize 5 is needed (kubectl 1.27 or newer; here: $(kubectl_version))"
    render
    python_environment "$VENV" "$REQUIREMENTS" ||
        lacking "what $REQUIREMENTS lists is needed (python3, python3-venv, and a way to pip's packages)"
    "$VENV/bin/python" scripts/manifests.py "$RENDERED" "$ROOT/accepted-findings.txt" tests/schemas
}

lacking() {
    in_ci && die "$*"
    skipped "$*"
    exit 0
}

# Version 5 is the first whose `labels` and components do as the manifests need.
kubectl_found() {
    have kubectl && kubectl version --client -o json 2>/dev/null | grep -q '"kustomizeVersion": "v\([5-9]\|[1-9][0-9]\)'
}

kubectl_version() {
    have kubectl || { echo none && return; }
    kubectl version --client 2>&1 | tr '\n' ' '
}

# Components are no kustomizations of their own: each is rendered in the overlays that use it.
render() {
    local file directory
    rm -rf "$RENDERED"
    mkdir -p "$RENDERED"
    while IFS= read -r file; do
        directory=$(dirname "${file#"$ROOT/"}")
        kubectl kustomize "$ROOT/$directory" >"$RENDERED/${directory//\//-}.yaml" || die "$file does not render"
    done < <(find "$ROOT" -name kustomization.yaml -exec grep -l '^kind: Kustomization$' {} + | sort)
    say "rendered: $(find "$RENDERED" -type f | wc -l) kustomizations"
}

main
