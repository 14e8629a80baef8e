"""Every reward process by its kind, and how a config becomes one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Discriminator, Tag

from rmft.errors import UnknownNameError
from rmft.problems.alternating import Alternating
from rmft.problems.contextual import Linear, Logistic
from rmft.problems.games import MatrixGame
from rmft.problems.logged import Logged
from rmft.problems.moving import AbruptSwitches, Drift, LinearTrend, SineTrend
from rmft.problems.own import OwnProcess
from rmft.problems.process import RewardProcess
from rmft.problems.stationary import Bernoulli, Gaussian, ListedMeans, Uniform
from rmft.reading import read

KINDS = (
    "bernoulli",
    "listed_means",
    "gaussian",
    "uniform",
    "linear_trend",
    "sine_trend",
    "abrupt_switches",
    "drift",
    "alternating",
    "linear",
    "logistic",
    "matrix_game",
    "logged",
)


def _kind(config: Any) -> str | None:
    """The tag of a config or a process; None, which pydantic reports, when it has no kind."""
    if isinstance(config, BaseModel):
        kind: Any = config.model_dump(include={"kind"}).get("kind")
    else:
        kind = config.get("kind") if isinstance(config, Mapping) else None
    if not isinstance(kind, str):
        return None
    if ":" in kind:
        return "own"
    if kind not in KINDS:
        raise UnknownNameError("reward process", kind, (*KINDS, "module:Class"))
    return kind


AnyProcess = Annotated[
    Annotated[Bernoulli, Tag("bernoulli")]
    | Annotated[ListedMeans, Tag("listed_means")]
    | Annotated[Gaussian, Tag("gaussian")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LinearTrend, Tag("linear_trend")]
    | Annotated[SineTrend, Tag("sine_trend")]
    | Annotated[AbruptSwitches, Tag("abrupt_switches")]
    | Annotated[Drift, Tag("drift")]
    | Annotated[Alternating, Tag("alternating")]
    | Annotated[Linear, Tag("linear")]
    | Annotated[Logistic, Tag("logistic")]
    | Annotated[MatrixGame, Tag("matrix_game")]
    | Annotated[Logged, Tag("logged")]
    | Annotated[OwnProcess, Tag("own")],
    Discriminator(
        _kind,
        custom_error_type="no_kind",
        custom_error_message="a mapping with the key 'kind', such as {kind: bernoulli}",
    ),
]
"""The type of a config's `reward_process`: one model per kind, told apart by the key `kind`."""


def resolve_process(config: Mapping[str, Any], folder: str = ".", *, trust: bool = False) -> RewardProcess:
    """The reward process that `config` names by `kind` and sets with its other keys.

    Relative file names in it start from `folder`. trust: whether a class of one's own that it names may be
    run. Raises ConfigError, and UnknownNameError for a kind nobody has.
    """
    process: RewardProcess = read(
        AnyProcess,  # type: ignore[arg-type]
        config,
        "reward_process",
        folder,
        trust=trust,
    )
    return process
