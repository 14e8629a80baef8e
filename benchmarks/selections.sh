#!/usr/bin/env bash
# Every selection with the same budget of rollouts and steps, on mab/uniform-means; then one table.
# Usage: benchmarks/selections.sh [FOLDER]     about 10 minutes on 2 cores
set -euo pipefail
folder=${1:-runs/selections}
rmft=${RMFT:-rmft}

train() { # NAME, then settings
    local name=$1
    shift
    "$rmft" train configs/demo-numeric.yaml --run-dir "$folder/$name" --set name="$name" --set iterations=40 \
        --set rollout.num_problems=64 --set rollout.num_rollouts=32 "$@"
    "$rmft" evaluate "$folder/$name" --against start --against thompson
}

plain=(--set training.anchor=0 --set training.learning_rate=0.002)
train lowest-regret-4 "${plain[@]}" --set selection.kind=lowest_regret --set selection.num_selected=4
train lowest-regret-16 "${plain[@]}" --set selection.kind=lowest_regret --set selection.num_selected=16
train to-go-16 "${plain[@]}" --set selection.kind=lowest_regret_to_go --set selection.num_selected=16
train highest-reward-16 "${plain[@]}" --set selection.kind=highest_reward --set selection.num_selected=16
train random-16 "${plain[@]}" --set selection.kind=random --set selection.num_selected=16
train excess
"$rmft" compare "$folder"/*/
