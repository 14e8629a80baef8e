"""Configs: what is valid survives YAML, what is not is refused with a ConfigError and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rmft.config import RunConfig, load_config, parse_config, read_mapping
from rmft.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))

HOSTILE_YAML = [
    "2001-13-45",  # a date that is none: PyYAML raises ValueError, not YAMLError
    "!!int x",
    "!!bool x",
    "!!timestamp x",
    "!!python/object/apply:os.getcwd []",
    "9" * 5000,
    "[" * 3000,
    "[a",
    "*nobody",
    "\x00",
]


def share(low: float = 0.0, high: float = 1.0, **keys: bool) -> st.SearchStrategy[float]:
    return st.floats(low, high, **keys)


@st.composite
def valid_configs(draw: st.DrawFn) -> dict[str, Any]:
    """Settings within every documented range."""
    heads, rollouts = draw(st.integers(1, 8)), draw(st.integers(2, 100_000))
    kind = draw(
        st.sampled_from(
            [
                *("lowest_regret", "lowest_regret_to_go", "excess_regret_to_go"),
                *("highest_reward", "random", "all"),
            ]
        )
    )
    return {
        "name": draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)),
        "seed": draw(st.integers(0, 2**63 - 1)),
        "suite": draw(st.text(min_size=1).filter(lambda text: text.strip())),
        "iterations": draw(st.integers(1, 1_000_000)),
        "policy": {"width": 8 * heads, "num_heads": heads, "num_layers": draw(st.integers(0, 24))},
        "rollout": {
            "num_problems": draw(st.integers(1, 1_000_000)),
            "num_rollouts": rollouts,
            "temperature": draw(share(0, 100, exclude_min=True)),
        },
        "selection": {
            "kind": kind,
            "num_selected": draw(st.integers(1, rollouts)),
            "discount": draw(share()),
            "trace": draw(share()),
            "strength": draw(share(0, 10, exclude_min=True)),
        },
        "training": {
            "anchor": draw(share(0, 100, exclude_min=kind == "excess_regret_to_go")),
            "epochs": draw(st.integers(1, 1000)),
            "batch_size": draw(st.integers(1, 10**9)),
            "learning_rate": draw(share(exclude_min=True)),
            "warmup": draw(share(exclude_max=True)),
            "weight_decay": draw(share()),
            "max_gradient_norm": draw(share(0, 1e300, exclude_min=True)),
        },
        "validation": {
            "every": draw(st.integers(1, 10**9)),
            "num_problems": draw(st.integers(2, 1_000_000)),
            "patience": draw(st.none() | st.integers(1, 10**9)),
        },
        "num_threads": draw(st.integers(1, 1024)),
    }


@given(valid_configs())
@settings(deadline=None, max_examples=60)
def test_every_valid_config_survives_yaml(values: dict[str, Any]) -> None:
    config = parse_config(values)
    written = yaml.safe_load(config.to_yaml())
    assert parse_config(written) == config
    for group, inner in values.items():
        for key, value in inner.items() if isinstance(inner, dict) else ():
            assert written[group][key] == value


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
garbage = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3)
)
groups = st.fixed_dictionaries(
    {},
    optional={
        "policy": st.fixed_dictionaries(
            {}, optional={"kind": garbage, "width": garbage, "num_heads": garbage}
        ),
        "rollout": st.fixed_dictionaries({}, optional={"num_rollouts": garbage, "temperature": garbage}),
        "selection": st.fixed_dictionaries({}, optional={"kind": garbage, "num_selected": garbage}) | garbage,
        "training": st.dictionaries(st.sampled_from(["epochs", "anchor", "warmup"]) | scalars, garbage),
        **dict.fromkeys(("name", "seed", "suite", "iterations", "validation", "num_threads"), garbage),
    },
)


def refusal(read: Callable[[], RunConfig]) -> str | None:
    """The message with which a config was refused; any other error fails the test."""
    try:
        config = read()
    except ConfigError as error:
        return str(error)
    assert config == parse_config(yaml.safe_load(config.to_yaml()))
    return None


@given(groups | st.dictionaries(scalars, garbage))
@settings(deadline=None, max_examples=150)
def test_whatever_a_mapping_holds_it_is_a_config_or_a_config_error(values: dict[Any, Any]) -> None:
    message = refusal(lambda: parse_config(values, source="mine.yaml"))
    assert message is None or message.startswith("mine.yaml: ")


@given(
    content=st.binary(max_size=200) | (st.text(max_size=200) | garbage.map(yaml.safe_dump)).map(str.encode)
)
@settings(deadline=None, max_examples=150)
def test_whatever_a_file_holds_it_is_a_config_or_a_config_error(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "given.yaml"
    path.write_bytes(content)
    message = refusal(lambda: load_config(path))
    assert message is None or str(path) in message


@given(
    st.text(max_size=40)
    | st.builds("{}={}".format, st.sampled_from(["seed", "rollout.a", "name"]), st.text())
)
@settings(deadline=None, max_examples=150)
def test_whatever_set_is_given_it_is_a_config_or_a_config_error(override: str) -> None:
    refusal(lambda: parse_config({}, [override]))


@pytest.mark.parametrize("text", HOSTILE_YAML, ids=[text[:20] for text in HOSTILE_YAML])
def test_yaml_that_is_none_is_refused_in_one_message(text: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text(f"seed: {text}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"hostile\.yaml"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"--set seed|seed: found") as raised:
        parse_config({}, [f"seed={text}"])
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configs_that_come_along_are_valid(path: Path) -> None:
    assert load_config(path).name == path.stem


def test_defaults_are_the_plain_method() -> None:
    config = parse_config({})
    assert config.selection.kind == "lowest_regret"
    assert config.training.anchor == 0
    assert config == RunConfig()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"iteratons": 3}, "Unknown key 'iteratons'. Did you mean 'iterations'?"),
        ({"rollout": {"num_rollout": 3}}, "rollout: Unknown key 'num_rollout'. Did you mean 'num_rollouts'?"),
        ({"iterations": 0}, "iterations: found 0; expected: greater than or equal to 1"),
        ({"iterations": "many"}, "iterations: found 'many'; expected: a valid integer"),
        ({"iterations": 1.5}, "iterations: found 1.5; expected: a valid integer"),
        (
            {"training": {"learning_rate": float("nan")}},
            "training.learning_rate: found nan; expected: a finite",
        ),
        ({"rollout": []}, "rollout: found []; expected: a valid dictionary"),
        ({"rollout": {"num_rollouts": 2}}, "num_selected is 4 but rollout.num_rollouts is only 2"),
        ({"policy": {"width": 30, "num_heads": 4}}, "policy: num_heads 4 must divide width 30"),
        (
            {"policy": {"kind": "transfomer"}},
            "policy: found {'kind': 'transfomer'}; expected: settings whose kind",
        ),
        ({"selection": {"kind": "lowest"}}, "selection.kind: found 'lowest'; expected: 'lowest_regret', "),
        ({"selection": {"kind": "excess_regret_to_go"}}, "set training.anchor"),
        ({"name": "a/b"}, "name: found 'a/b'; expected: "),
        ({"suite": " "}, "suite: the name or path of a suite is empty"),
        ({"validation": {"num_problems": 1}}, "validation.num_problems: found 1; expected: greater than"),
    ],
)
def test_a_mistake_says_what_was_found_and_what_expected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(values, source="mine.yaml")
    assert str(raised.value).startswith("mine.yaml: ")
    assert message in str(raised.value)


def test_every_mistake_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config({"iterations": 0, "seed": -1, "training": {"epochs": 0}}, source="mine.yaml")
    lines = str(raised.value).splitlines()
    assert [line.split(":")[1].strip() for line in lines] == ["seed", "iterations", "training.epochs"]


def test_overrides_reach_into_groups_and_the_last_one_wins() -> None:
    values = {"rollout": {"num_problems": 5}}
    overrides = ["rollout.num_rollouts=16", "seed=1", "seed=2", "validation.patience=null", "suite=a=b.yaml"]
    config = parse_config(values, [*overrides, "training.learning_rate=1e-3"])
    assert (config.rollout.num_problems, config.rollout.num_rollouts) == (5, 16)
    assert config.seed == 2
    assert config.validation.patience is None
    assert config.suite == "a=b.yaml"
    assert config.training.learning_rate == 1e-3
    assert values == {"rollout": {"num_problems": 5}}, "the mapping given is left alone"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "--set takes KEY=VALUE such as rollout.num_rollouts=16; found 'seed'."),
        ("=3", "--set takes KEY=VALUE"),
        ("seed=[1", "--set seed: the value '[1' is not valid YAML"),
        ("name.first=a", "--set name.first: 'name' holds no settings."),
        (
            "rollout.num_rollouts.x=3",
            "--set rollout.num_rollouts.x: 'rollout.num_rollouts' holds no settings.",
        ),
        ("rollout=3", "rollout: found 3; expected: a valid dictionary"),
        ("rollout.num_rolouts=3", "Did you mean 'num_rollouts'?"),
        ("seed=", "seed: found None; expected: a valid integer"),
    ],
)
def test_an_override_that_can_not_be_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config({"name": "mine", "rollout": {"num_rollouts": 8}}, [override])
    assert message in str(raised.value)


def test_files_that_hold_no_settings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text("")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name, message in {
        "demo.yaml": "holds an empty file; expected settings such as 'suite: smoke'",
        "list.yaml": "holds a list; expected settings",
        "binary.yaml": "is not valid YAML",
        "dmeo.yaml": f"No such file or directory. Did you mean '{tmp_path / 'demo.yaml'}'?",
        ".": "Is a directory",
    }.items():
        with pytest.raises(ConfigError) as raised:
            read_mapping(tmp_path / name)
        assert message in str(raised.value)
