# What the recipes share: to be sourced by a script whose first lines, up to an empty one, are its help, with
# RUN FOLDER as $1. Stopped at any time, a recipe goes on where it was.
set -euo pipefail
case $1 in -*)
    sed -n '/^# /s/^# //p;/^$/q' "$0"
    exit
    ;;
esac
cd "$(dirname "$0")"
run=${1%/}
data=datasets/${run//\//_}
python=${PYTHON:-python3}

# once NAME COMMAND...: a step that is done is not repeated, because rollouts are those of the driver of their time. Its
# command is kept, but for the name of Python.
once() {
    local stamp=$run/done/$1 command="${*:2}"
    command=${command#"$python "}
    shift
    if [ -e "$stamp" ]; then
        [ "$(cat "$stamp")" = "$command" ] && return
        echo "error: $stamp was done otherwise, by another version of $0: choose another run folder" >&2
        exit 1
    fi
    echo "== $(date +%T) $command =="
    "$@"
    mkdir -p "$run/done"
    echo "$command" > "$stamp"
}

# rollouts NUMBER COUNT [OPTION...]: what the driver of the round before sees.
rollouts() {
    once "data_$1" "$python" data/generation_script.py "$preset" --rootdir "$data/round_$1" --rollouts "$2" \
        --seed "$1" --policy controller --logdir "$run" "${@:3}"
}
