#!/usr/bin/env bash
# The recipe of the driver in pretrained/ (docs/RESULTS.md). Round 0: a driver from random rollouts. Rounds 1 and 2: V and
# M learn on from what the driver sees, and another evolves with them (the iterative training of the paper's section 5).
#
#   ./reproduce.sh [RUN FOLDER]        (default: reproduce; the rollouts go to datasets/<its path, / as _>)
#
# The drivers of rounds 0 and 1 stay in <RUN FOLDER>/round_0 and round_1, run folders of their own.
# Stopped at any time, the same command goes on where it was.

preset=@presets/shipped # what all rounds have in common
source "$(dirname "$0")/recipe.sh" "${1:-reproduce}"

# round NUMBER V_EPOCHS M_EPOCHS GENERATIONS [OPTION...]: V and M learn on from all rollouts so far (their epochs count
# from the beginning), and then C evolves, because what the C before saw with the old ones means something else now.
round() {
    once "vae_$1" "$python" trainvae.py "$preset" --logdir "$run" --dataset "$data" --epochs "$2"
    once "mdrnn_$1" "$python" trainmdrnn.py "$preset" --logdir "$run" --dataset "$data" --epochs "$3"
    once "ctrl_$1" "$python" traincontroller.py "$preset" --logdir "$run" --generations "$4" "${@:5}"
}

# keep ROUND: its driver gets a folder of its own. V and M learn on in their place, so they are copied; C is moved.
keep() {
    mkdir -p "$run/round_$1"
    cp -r "$run/vae" "$run/mdrnn" "$run/round_$1"
    [ -e "$run/round_$1/ctrl" ] || mv "$run/ctrl" "$run/round_$1"
}

once data_0 "$python" data/generation_script.py --rootdir "$data/round_0" --rollouts 300
round 0 3 6 20
rollouts 1 400
once keep_0 keep 0
round 1 6 30 30
rollouts 2 400
once keep_1 keep 1
# By the size of differences: by rank, a driver as good as this gets faster and faster and leaves the road more often.
# One mean is better than another by little now, which many tracks must show.
round 2 12 54 10 --warm-start "$run/round_1" --search mirrored-by-size --eval-episodes 256
# Small steps: near a good mean the search need not look far.
once fine "$python" traincontroller.py "$preset" --logdir "$run" --sigma 0.0125 0.05 --generations 30 \
    --search mirrored-by-size --eval-episodes 256
"$python" test_controller.py "$preset" --logdir "$run" --json "$run/score.json" --record "$run/driver.gif"
