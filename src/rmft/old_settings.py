"""Settings of version 0.1 by their new names; read until version 0.3.

selection.kind lowest_regret, ...    credit.kind top_k_regret, ...
selection.trace, strength            credit.advantage_lambda, advantage_scale
selection.unlearn: u                 credit.advantage_clip: [-u, 5]
selection.every_arm                  credit.all_actions
training.anchor: c                   training.objective: {kind: policy_gradient, kl_coef: c}
training.format                      training.legality_coef
policy.kind transformer              policy.kind arm_encoder
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from rmft import credit
from rmft.errors import ConfigError
from rmft.training.config import LocalTraining, NumericTraining

KINDS = {
    "lowest_regret": "top_k_regret",
    "lowest_regret_to_go": "top_k_regret_to_go",
    "excess_regret_to_go": "policy_gradient",
    "highest_reward": "top_k_reward",
}
CREDIT = {"trace": "advantage_lambda", "strength": "advantage_scale", "every_arm": "all_actions"}
OF_KIND: dict[str, set[str]] = {
    str(model.model_fields["kind"].default): model.model_fields.keys() - {"kind"} for model in credit.KINDS
}
LANGUAGE = LocalTraining.model_fields.keys() - NumericTraining.model_fields.keys()


def renamed(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Settings with the names of this version. Warns (FutureWarning) of each old group, naming `source`.

    What did nothing for its kind in 0.1 is left out. Raises ConfigError when old and new names are mixed.
    """
    found = dict(values)
    selection, training, policy = found.get("selection"), found.get("training"), found.get("policy", {})
    kind = policy.get("kind", "arm_encoder") if isinstance(policy, Mapping) else "arm_encoder"
    told = []
    if isinstance(policy, Mapping) and kind == "transformer":
        found["policy"] = {**policy, "kind": "arm_encoder"}
        told.append("policy.kind transformer is now arm_encoder")
    if isinstance(selection, Mapping):
        if "credit" in found:
            raise ConfigError(
                f"{source}: found selection and credit; selection is credit's old name: keep one."
            )
        found["credit"] = _credit(selection)
        del found["selection"]
        told.append(f"selection is now credit: {found['credit']}")
    if isinstance(training, Mapping) and ("anchor" in training or "format" in training):
        for old, new in (("anchor", "objective"), ("format", "legality_coef")):
            if old in training and new in training:
                raise ConfigError(
                    f"{source}: found training.{old} and training.{new}; {old} is the old name: keep one."
                )
        found["training"] = _training(training, kind)
        told.append(f"training.anchor and training.format are now {found['training']}")
    for text in told:
        warnings.warn(
            f"{source}: {text}. The old names are read until version 0.3.", FutureWarning, stacklevel=3
        )
    return found


def _credit(old: Mapping[str, Any]) -> dict[str, Any]:
    kind = KINDS.get(str(old.get("kind", "lowest_regret")), old.get("kind"))
    new = {"kind": kind} | {CREDIT.get(key, key): value for key, value in old.items() if key != "kind"}
    if "unlearn" in new:
        unlearn = new.pop("unlearn")
        new["advantage_clip"] = [-unlearn if isinstance(unlearn, int | float) else unlearn, 5.0]
    known = set().union(*OF_KIND.values())
    mine = OF_KIND.get(str(kind), known)
    return {key: value for key, value in new.items() if key in mine or key not in known}


def _training(old: Mapping[str, Any], kind: str) -> dict[str, Any]:
    if kind == "hosted":
        return {"epochs": old["epochs"]} if "epochs" in old else {}
    new = {key: value for key, value in old.items() if key != "anchor"}
    if "format" in new:
        new["legality_coef"] = new.pop("format")
    if kind != "local":
        new = {key: value for key, value in new.items() if key not in LANGUAGE}
    if anchor := old.get("anchor"):
        new["objective"] = {"kind": "policy_gradient", "kl_coef": anchor}
    return new
