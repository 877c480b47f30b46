#!/usr/bin/env bash
# Checks the relative links of every Markdown file: that the file is there, and the heading in it.
# Links to other sites are not followed.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/common.sh
. scripts/common.sh

main() {
    local file broken=0
    while IFS= read -r file; do
        check_file "$file" || broken=1
    done < <(own_files -name '*.md')
    return $broken
}

check_file() {
    local file=$1 broken=0 line target path anchor
    while IFS=: read -r line target; do
        path=${target%%#*}
        anchor=${target#"$path"}
        anchor=${anchor#\#}
        if [ -z "$path" ]; then
            path=$file
        elif [ "${path#/}" != "$path" ]; then
            path=${path#/}
        else
            path=$(dirname "$file")/$path
        fi
        if [ ! -e "$path" ]; then
            printf '%s:%s: the link %s leads to no file\n' "$file" "$line" "$target" >&2
            broken=1
        elif [ -n "$anchor" ] && [ -f "$path" ] && [ "${path%.md}" != "$path" ] && ! headings "$path" | grep -qxF -- "$anchor"; then
            printf '%s:%s: the link %s leads to no heading\n' "$file" "$line" "$target" >&2
            broken=1
        fi
    done < <(relative_links "$file")
    return $broken
}

# line:target of every link and picture, as Markdown writes them and as HTML does.
relative_links() {
    prose "$1" | awk '{
        gsub(/`[^`]*`/, "")
        while (match($0, /\]\([^() ]+(\)| ")|^ *\[[^]]+\]: *[^ ]+|(href|src|srcset)="[^" ]+"/)) {
            link = substr($0, RSTART, RLENGTH)
            $0 = substr($0, RSTART + RLENGTH)
            sub(/^\]\(|^ *\[[^]]+\]: *|^[a-z]+="/, "", link)
            sub(/(\)| "|")$/, "", link)
            if (link !~ /^[a-z]+:/) print NR ":" link
        }
    }'
}

# As GitHub names them: small letters, no punctuation, hyphens for spaces, -1 after the second of a name.
headings() {
    prose "$1" | sed -n 's/^##* *//p' | tr '[:upper:]' '[:lower:]' |
        LC_ALL=C tr -d '!-,./:-@[\\]^`{|}~' | tr ' ' '-' |
        awk '{ print (seen[$0]++ ? $0 "-" (seen[$0] - 1) : $0) }'
}

# The file with as many lines, those of code blocks empty.
prose() {
    awk '/^ *```/ { code = !code; print ""; next } { print (code ? "" : $0) }' "$1"
}

main
