#!/usr/bin/env bash
# Fuzzes, and makes the corpus of the repository anew from what was found.
#
#   fuzz/corpus.sh SECONDS [TARGET...]     each target so long (all, if none is named)
#
# Finds are kept in target/corpus/TARGET; into fuzz/corpus/TARGET go as few and as small ones of them as cover the
# same, inputs up to 512 bytes. Ends with an error at the first crash: mend it, and keep the input as a test.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTC_BOOTSTRAP=1
seconds=${1:?seconds}
shift
(($#)) || mapfile -t < <(sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | grep -v fuzz) && set -- "${@:-${MAPFILE[@]}}"
for target in "$@"; do
    found=target/corpus/$target kept=fuzz/corpus/$target
    mkdir -p "$found" "$kept"
    cargo fuzz run --fuzz-dir fuzz "$target" "$found" "$kept" -- \
        -max_total_time="$seconds" -max_len=512 -timeout=60 -print_final_stats=1
    rm -rf "$kept.new" && mkdir "$kept.new"
    cargo fuzz run --fuzz-dir fuzz "$target" "$kept.new" "$found" "$kept" -- -merge=1 -use_counters=0 -max_len=512
    rm -rf "$kept" && mv "$kept.new" "$kept"
done
