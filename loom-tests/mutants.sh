#!/usr/bin/env bash
# Tries the mutations of mutants.txt: each is made in a copy of the repository, its model is run there, and has
# to fail.
#
#   loom-tests/mutants.sh [-j JOBS] [-l] [-m] [-c] [FILTER...]
#
#   FILTER  only mutants whose "file model: what" contains it (any of them)
#   -j N    so many at a time (2); each has a copy and a target directory of its own
#   -l      lists them and ends      -m  the table of MUTATIONS.md      -c  checks the texts only
#
# Copies and builds are kept in target/mutants (or $MUTANTS_DIR), so a second run is quicker: 15-30 s a mutant on a
# quiet machine. What came of it is in target/mutants/results.
# Before the mutants of a file its models are run as they are: what fails anyway catches nothing.
# Ends with 1 if a mutant is not caught, with 2 if one does not apply or compile, or a model fails as it is.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
data=$here/loom-tests/mutants.txt
place=${MUTANTS_DIR:-$here/target/mutants}
jobs=2 mode=run
# A model that runs longer than that is not caught.
limit=${MUTANTS_TIMEOUT:-900}

while getopts j:lmc option; do
    case $option in
        j) jobs=$OPTARG ;;
        l) mode=list ;;
        m) mode=table ;;
        c) mode=check ;;
        *) sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
shift $((OPTIND - 1))

# By mutant: file, model, title, what was seen; by change: mutant, path, old and new text.
files=() models=() titles=() seens=()
of=() paths=() olds=() news=()
part=none
while IFS= read -r line; do
    case $line in
        '# '* | '#') [[ $part == none ]] && continue ;;
        '== '*)
            head=${line#== }
            titles+=("${head#*: }")
            head=${head%%: *}
            files+=("${head% *}") models+=("${head#* }") seens+=("")
            part=head
            continue ;;
        '-- '*)
            of+=($((${#titles[@]} - 1))) paths+=("${line#-- }") olds+=("") news+=("")
            part=old
            continue ;;
        '++') part=new; continue ;;
        '~~ '*) seens[-1]=${line#\~~ }; part=none; continue ;;
    esac
    case $part in
        old) olds[-1]+=$line$'\n' ;;
        new) news[-1]+=$line$'\n' ;;
    esac
done <"$data"

wanted() {
    (($# == 1)) && return 0
    local name="${files[$1]} ${models[$1]}: ${titles[$1]}" filter
    for filter in "${@:2}"; do
        [[ $name == *"$filter"* ]] && return 0
    done
    return 1
}

# Makes the changes of mutant $1 in the tree $2.
apply() {
    local at file text old without
    for at in "${!of[@]}"; do
        ((of[at] == $1)) || continue
        file=$2/${paths[at]} old=${olds[at]%$'\n'}
        [[ -f $file ]] || { echo "no file ${paths[at]}" >&2; return 1; }
        text=$(<"$file")
        without=${text//"$old"/}
        if ((${#text} - ${#without} != ${#old})); then
            echo "found $(((${#text} - ${#without}) / ${#old})) times in ${paths[at]}, not once: $old" >&2
            return 1
        fi
        printf '%s\n' "${text/"$old"/"${news[at]%$'\n'}"}" >"$file"
    done
}

restore() {
    local at
    for at in "${!of[@]}"; do
        ((of[at] == $1)) && cp "$here/${paths[at]}" "$2/${paths[at]}"
    done
    return 0
}

copy() {
    mkdir -p "$1"
    # rsync is not everywhere; files that did not change keep their times.
    (cd "$here" && git ls-files -z --cached --others --exclude-standard -- . ':!traces' ':!docs' |
        while IFS= read -r -d '' name; do
            [[ -f $name ]] || continue
            if ! cmp -s "$name" "$1/$name"; then
                mkdir -p "$1/$(dirname "$name")"
                cp "$name" "$1/$name"
            fi
        done)
}

# The reason in what a failed model printed.
reason() {
    local text
    text=$(grep -aE -A3 'panicked at|signal:|SIG[A-Z]+' "$1" | grep -avE '^--$|panicked at|^note:|^\s*$|RUST_BACKTRACE' |
        head -n 1 | tr '|' '/' | cut -c 1-90)
    echo "${text:-failed}"
}

# Whether the models of file $1 pass as they are in copy $2.
declare -A sound=()
is_sound() {
    if [[ -z ${sound[$1]:-} ]]; then
        local log=$place/log-as-it-is-$1
        sound[$1]=no
        local test=(cargo test --quiet --profile loom -p loom-tests --test "$1")
        # Building is not counted: on a busy machine it takes longer than the models.
        (cd "$place/tree-$2" && "${test[@]}" --no-run && timeout "$limit" "${test[@]}") >"$log" 2>&1 && sound[$1]=yes
    fi
    [[ ${sound[$1]} == yes ]]
}

# Tries mutant $1 in copy $2: one line into $place/results.
try_one() {
    local tree=$place/tree-$2 log=$place/log-$1 result="" why="" code=0 began=$SECONDS
    export CARGO_TARGET_DIR=$place/target-$2 RUSTFLAGS="--cfg loom --cfg crossbeam_loom" RUST_BACKTRACE=0
    export CARGO_PROFILE_LOOM_DEBUG=false CARGO_PROFILE_LOOM_INCREMENTAL=true CARGO_PROFILE_LOOM_CODEGEN_UNITS=16
    local test=(cargo test --quiet --profile loom -p loom-tests --test "${files[$1]}")
    if ! is_sound "${files[$1]}" "$2"; then
        result="fails as it is" why=$(reason "$place/log-as-it-is-${files[$1]}")
    elif ! apply "$1" "$tree" 2>"$log"; then
        result="does not apply" why=$(head -n 1 "$log")
    elif ! (cd "$tree" && "${test[@]}" --no-run) >"$log" 2>&1; then
        result="does not compile" why=$(grep -m 1 '^error' "$log" || true)
    else
        (cd "$tree" && timeout "$limit" "${test[@]}" -- --exact "${models[$1]}" --nocapture) >"$log" 2>&1 || code=$?
        if ! grep -aq 'running 1 test' "$log"; then
            result="no such model"
        elif ((code == 124)); then
            result="NOT CAUGHT" why="still running after $limit s"
        elif ((code == 0)); then
            result="NOT CAUGHT"
        else
            result=caught why=$(reason "$log")
        fi
    fi
    restore "$1" "$tree"
    echo "$result|${files[$1]} ${models[$1]}|${titles[$1]}|$((SECONDS - began)) s|$why" | tee -a "$place/results"
}

case $mode in
    list)
        for at in "${!titles[@]}"; do
            wanted "$at" "$@" && echo "${files[at]} ${models[at]}: ${titles[at]}"
        done
        exit 0 ;;
    table)
        echo '| Model | Mutation | In | Seen |'
        echo '|---|---|---|---|'
        for at in "${!titles[@]}"; do
            where=""
            for change in "${!of[@]}"; do
                ((of[change] == at)) && [[ $where != *"${paths[change]}"* ]] && where+="${where:+, }\`${paths[change]}\`"
            done
            echo "| \`${files[at]}.rs\` \`${models[at]}\` | ${titles[at]} | $where | ${seens[at]} |"
        done
        exit 0 ;;
esac

mkdir -p "$place"
if [[ $mode == check ]]; then
    copy "$place/tree-0"
    bad=0
    for at in "${!titles[@]}"; do
        wanted "$at" "$@" || continue
        apply "$at" "$place/tree-0" || { echo "  ^ ${files[at]} ${models[at]}: ${titles[at]}"; bad=2; }
        restore "$at" "$place/tree-0"
    done
    exit $bad
fi

: >"$place/results"
for ((job = 0; job < jobs; job++)); do
    (
        copy "$place/tree-$job"
        turn=0
        for at in "${!titles[@]}"; do
            wanted "$at" "$@" || continue
            # Mutants of one file go to one copy: its models are run as they are only once.
            [[ ${files[at]} == "${last:-}" ]] || { last=${files[at]}; turn=$((turn + 1)); }
            ((turn % jobs == job)) && try_one "$at" "$job"
        done
        true
    ) &
done
wait

echo
awk -F'|' '{ n[$1]++ } END { for (r in n) printf "%d %s\n", n[r], r }' "$place/results"
if grep -qE '^(does not|no such|fails as)' "$place/results"; then exit 2; fi
if grep -q '^NOT CAUGHT' "$place/results"; then exit 1; fi
