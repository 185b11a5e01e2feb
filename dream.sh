#!/usr/bin/env bash
# A driver that has never driven while it learned: from random rollouts alone, V and M learn from what it sees, and C
# learns in M's dream. Rounds are small, so that C stays near what M has seen.
#
#   ./dream.sh [RUN FOLDER]        (default: dream; the rollouts go to datasets/<its path, / as _>)
#
# Stopped at any time, the same command goes on where it was.

preset=@presets/dream # what all rounds have in common
source "$(dirname "$0")/recipe.sh" "${1:-dream}"

# phase NUMBER FIRST_ROUND LAST_ROUND V_EPOCHS M_EPOCHS M_EPOCHS_A_ROUND GENERATIONS: V learns on from all rollouts so
# far. What it sees means something else to C then, which begins anew. A round is some epochs of M, 8 generations of C,
# and 10 rollouts of it; M has M_EPOCHS and C GENERATIONS after the first one. Epochs count from the beginning.
phase() {
    local round
    once "vae_$1" "$python" trainvae.py "$preset" --logdir "$run" --dataset "$data" --epochs "$4"
    once "forget_$1" rm -rf "$run/ctrl"
    for round in $(seq "$2" "$3"); do
        once "mdrnn_$round" "$python" trainmdrnn.py "$preset" --logdir "$run" --dataset "$data" \
            --epochs $(($5 + $6 * (round - $2)))
        once "ctrl_$round" "$python" traincontroller.py "$preset" --logdir "$run" \
            --generations $(($7 + 8 * (round - $2)))
        rollouts "$round" 10 --noise 0.2
    done
}

once data_0 "$python" data/generation_script.py "$preset" --rootdir "$data/round_0" --rollouts 100
phase 0 1 25 3 20 6 16
phase 1 26 50 5 184 3 80
phase 2 51 75 7 276 3 80
"$python" test_controller.py "$preset" --logdir "$run" --json "$run/score.json" --record "$run/driver.gif"
