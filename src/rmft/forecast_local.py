"""What a run with a language model in this process, or on servers, will take, before it starts.

The run's own policy plays a few of its problems with the model's own tokenizer, and an engine that counts
tokens in place of the model. Operations are counted as usual: two for each weight and each token that is read
or written; in training two more where gradients flow back, and two for each weight that is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from rmft.config import RunConfig
from rmft.generators.counting import CountingEngine
from rmft.policies.config import LocalConfig
from rmft.policies.language import LanguagePolicy
from rmft.problems.logged import PartName
from rmft.problems.suites import Suite
from rmft.rollout import rollout
from rmft.stages import StageConfig
from rmft.streams import Streams
from rmft.training.config import LocalTraining
from rmft.training.outline import Outline

SEED = 0xF0CA  # of made-up answers
SAMPLED = 4  # problems of each setting that are played


@dataclass(frozen=True)
class Work:
    """One row of a forecast. operations: of floating point. seconds: None where unknown."""

    what: str
    decisions: float = 0
    read: float = 0
    written: float = 0
    trained: float = 0
    operations: float = 0
    seconds: float | None = None


@dataclass(frozen=True)
class OneRollout:
    """The mean rollout of a part: its decisions, and tokens of its opening, told after it, and written."""

    decisions: float
    opening: float
    told: float
    written: float


def forecast_work(
    config: RunConfig, policy: LocalConfig, suites: Mapping[str, Suite], model: Outline
) -> list[Work]:
    """What rollouts, training and validation of the whole run take, and all of it together, the last.

    An upper bound where the policy reasons (as long as it may), and where rounds or pairs are selected (every
    rollout is then trained on).
    """
    works: list[Work] = []
    for stage in config.schedule():
        suite = suites[stage.suite]
        one, problems = played(policy, suite, "train", model), stage.iterations * stage.rollout.num_problems
        works.append(playing("rollouts", one, problems, stage.rollout.num_rollouts, model))
        works.append(_training(stage, len(suite.settings("train")), one, model))
    one = played(policy, suites[config.suite], "validation", model)
    judged = sum(config.validates(iteration) for iteration in range(config.iterations + 1))
    works.append(playing("validation", one, judged * config.validation.num_problems, 1, model))
    counts = [each.name for each in fields(Work)[1:-1]]
    return [*works, Work("together", *(sum(getattr(each, name) for each in works) for name in counts))]


def timed(works: list[Work], speed: float) -> list[Work]:
    """The same with the time that they take at so many operations a second."""
    return [replace(each, seconds=each.operations / speed) for each in works]


def memory_gb(policy: LocalConfig, model: Outline) -> dict[str, float]:
    """GB that this process holds at once, by what, but for activations."""
    width = 2 if policy.precision == "bfloat16" and policy.lora is not None else 4
    found = {"weights": model.weights * width, "gradients and optimizer": model.trained * 3 * 4}
    if policy.lora is not None:
        found["weights below adapters, kept beside"] = model.adapted * width
    gigabytes = {name: size / 1e9 for name, size in found.items()}
    return gigabytes if policy.engine else gigabytes | {"keys and values, at most": policy.memory_gb}


def played(policy: LocalConfig, suite: Suite, part: PartName, model: Outline) -> OneRollout:
    """The mean of some problems of every setting, which are an even mixture."""
    engine = CountingEngine(model.context, model.stop_ids, model.filler)
    player = LanguagePolicy(engine, model.tokenizer, policy, sample_arms=True)
    rollouts = decisions = 0
    for batch in suite.draw(part, SAMPLED * len(suite.settings(part))):
        streams = Streams.at(SEED, [(int(index),) for index in batch.indices])
        rollout(player, batch.setting.play(batch.table, player), streams, batch.words)
        rollouts += len(batch.indices)
        decisions += len(batch.indices) * batch.setting.horizon
    counts = (decisions, engine.openings, engine.told, engine.written)
    return OneRollout(*(count / rollouts for count in counts))


def playing(what: str, one: OneRollout, problems: int, rollouts: int, model: Outline) -> Work:
    """So many rollouts of each problem, which read its opening once."""
    read = problems * (one.opening + rollouts * one.told)
    written = problems * rollouts * one.written
    operations = 2 * model.per_token * (read + written)
    return Work(what, problems * rollouts * one.decisions, read, written, operations=operations)


def _training(stage: StageConfig, num_settings: int, one: OneRollout, model: Outline) -> Work:
    assert isinstance(stage.training, LocalTraining)
    problems = stage.iterations * stage.rollout.num_problems * stage.training.epochs
    kept = stage.share_learned(num_settings) * stage.rollout.num_rollouts
    tokens = problems * (min(kept, 1.0) * one.opening + kept * (one.told + one.written))
    return Work("training", trained=tokens, operations=tokens * (4 * model.per_token + 2 * model.trained))
