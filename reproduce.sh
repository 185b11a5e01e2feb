#!/usr/bin/env bash
# The recipe (docs/RESULTS.md): a first driver from random rollouts; then V and M learn on from what it sees, and a
# second driver evolves with them (the iterative training of the paper's section 5).
#
#   ./reproduce.sh [RUN FOLDER]        (default: reproduce; the rollouts go to datasets/<its path, / as _>)
#
# The first driver stays in <RUN FOLDER>/round_0, a run folder of its own.
# Stopped at any time, the same command goes on where it was.
set -euo pipefail
cd "$(dirname "$0")"
run=${1:-reproduce}
run=${run%/}
data=datasets/${run//\//_}
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

# round NUMBER V_EPOCHS M_EPOCHS GENERATIONS: V and M learn on from all rollouts so far (their epochs count from the
# beginning), and C starts anew, because what it saw with the old ones means something else now.
round() {
    once "vae_$1" "$python" trainvae.py --logdir "$run" --dataset "$data" --epochs "$2" --kl-weight 0.01
    once "mdrnn_$1" "$python" trainmdrnn.py --logdir "$run" --dataset "$data" --epochs "$3"
    once "ctrl_$1" "$python" traincontroller.py --logdir "$run" --generations "$4"
}

# V and M learn on in their place, so they are copied; C is moved.
keep_first_driver() {
    mkdir -p "$run/round_0"
    cp -r "$run/vae" "$run/mdrnn" "$run/round_0"
    [ -e "$run/round_0/ctrl" ] || mv "$run/ctrl" "$run/round_0"
}

once data_0 "$python" data/generation_script.py --rootdir "$data/round_0" --rollouts 300
round 0 3 6 20
once data_1 "$python" data/generation_script.py --rootdir "$data/round_1" --rollouts 400 --seed 1 \
    --policy controller --logdir "$run"
once keep_0 keep_first_driver
round 1 6 30 30
# Small steps now: near a good mean the search need not look far.
once fine "$python" traincontroller.py --logdir "$run" --sigma 0.0125 --generations 80
"$python" test_controller.py --logdir "$run" --json "$run/score.json" --record "$run/driver.gif"
