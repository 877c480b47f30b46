#!/bin/sh
# The image's entry point: takes `coordinator …`, `worker …` or `millefeuille …`, and becomes that process, so that the engine's signals
# reach it and its exit code is the container's.
case "${1-}" in
coordinator | worker | millefeuille) exec "$@" ;;
*)
    echo "error: ${1-nothing} is no program of this image: say coordinator … or worker …, such as coordinator --help" \
        "(for a shell: --entrypoint sh)" >&2
    exit 2
    ;;
esac
