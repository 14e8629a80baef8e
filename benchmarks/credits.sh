#!/usr/bin/env bash
# Every kind of credit with the same budget of rollouts and steps, on mab/uniform-means; then one table.
# Usage: benchmarks/credits.sh [FOLDER]     about 10 minutes on 2 cores
set -euo pipefail
folder=${1:-runs/credits}
rmft=${RMFT:-rmft}

train() { # NAME, then settings
    local name=$1
    shift
    "$rmft" train configs/demo-numeric.yaml --run-dir "$folder/$name" --set name="$name" --set iterations=40 \
        --set rollout.num_problems=64 --set rollout.num_rollouts=32 "$@"
    "$rmft" evaluate "$folder/$name" --against start --against thompson
}

plain=(--set training.objective.kind=cross_entropy --set training.learning_rate=0.002)
train regret-4 "${plain[@]}" --set credit.kind=top_k_regret --set credit.num_selected=4
train regret-16 "${plain[@]}" --set credit.kind=top_k_regret --set credit.num_selected=16
train regret-to-go-16 "${plain[@]}" --set credit.kind=top_k_regret_to_go --set credit.num_selected=16
train reward-16 "${plain[@]}" --set credit.kind=top_k_reward --set credit.num_selected=16
train random-16 "${plain[@]}" --set credit.kind=random --set credit.num_selected=16
train policy-gradient
"$rmft" compare "$folder"/*/
