#!/usr/bin/env bash
# The recipe of the shipped driver (docs/RESULTS.md): a first driver from random rollouts, then rounds in which V and M
# go on learning from what the driver sees and C goes on evolving with them (paper, section 5).
#
#   ./reproduce.sh [RUN FOLDER]        (default: reproduce; the rollouts go to datasets/<its name>)
#
# Stopped at any time, the same command goes on where it was.
set -euo pipefail
cd "$(dirname "$0")"
run=${1:-reproduce}
data=datasets/$(basename "$run")
python=${PYTHON:-python3}

# once NAME COMMAND...: a step that is done is not repeated, because rollouts are those of the driver of their time.
once() {
    local stamp=$run/done/$1
    shift
    [ -e "$stamp" ] && return
    echo "== $* =="
    "$@"
    mkdir -p "$run/done"
    touch "$stamp"
}

# round NUMBER V_EPOCHS M_EPOCHS GENERATIONS [OPTIONS OF C]: the models learn from all rollouts so far; epochs and
# generations count from the beginning.
round() {
    once "vae_$1" "$python" trainvae.py --logdir "$run" --dataset "$data" --epochs "$2"
    once "mdrnn_$1" "$python" trainmdrnn.py --logdir "$run" --dataset "$data" --epochs "$3"
    once "ctrl_$1" "$python" traincontroller.py --logdir "$run" --generations "$4" "${@:5}"
}

once data_0 "$python" data/generation_script.py --rootdir "$data/round_0" --rollouts 300
round 0 3 6 30
once data_1 "$python" data/generation_script.py --rootdir "$data/round_1" --rollouts 400 --seed 1 \
    --policy controller --logdir "$run"
round 1 6 30 200 --tracks 16
"$python" test_controller.py --logdir "$run" --json "$run/score.json" --record "$run/driver.gif"
