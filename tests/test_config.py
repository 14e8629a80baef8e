"""Configs: what is valid survives YAML, what is not is refused with a ConfigError and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rmft.config import RunConfig, load_config, parse_config
from rmft.credit import PolicyGradientCredit, TopKRegret
from rmft.errors import ConfigError
from rmft.policies.config import LocalConfig
from rmft.reading import read_mapping
from rmft.tracking.config import TensorBoardTracking
from rmft.training.config import CrossEntropy, NumericTraining, PolicyGradient
from rmft.wiring.backends import backend
from rmft.wiring.suites import load_suites

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


def credits_of(rollouts: int) -> st.SearchStrategy[dict[str, Any]]:
    """Settings of every kind of credit that goes with so many rollouts of a problem."""
    selected = {"num_selected": st.integers(1, rollouts)}
    plain = {
        "top_k_regret": selected,
        "top_k_regret_to_go": selected | {"discount": share()},
        "top_k_reward": selected | {"reward": st.sampled_from(["realised", "expected"])},
        "random": selected,
        "all": {},
        "policy_gradient": {
            "discount": share(),
            "advantage_lambda": share(),
            "advantage_scale": share(0, 10, exclude_min=True),
            "advantage_clip": st.tuples(share(-100, 0), share(0, 100, exclude_min=True)).map(list),
            "all_actions": st.booleans(),
        },
        "grpo": {"reward": st.sampled_from(["realised", "expected"])},
        "preference_pairs": {"reward": st.sampled_from(["realised", "expected"])},
    }
    return st.one_of(
        *(st.fixed_dictionaries({"kind": st.just(kind), **keys}) for kind, keys in plain.items())
    )


objectives = st.fixed_dictionaries(
    {"kind": st.just("policy_gradient"), "kl_coef": share(0, 100, exclude_min=True)}
)
clipped = st.fixed_dictionaries(
    {
        "kind": st.just("ppo_clip"),
        "clip_range": share(exclude_min=True, exclude_max=True),
        "kl_coef": share(0, 100),
    }
)
paired = st.fixed_dictionaries({"kind": st.just("dpo"), "beta": share(0, 100, exclude_min=True)})
plain = st.just({"kind": "cross_entropy"})
OBJECTIVES = {
    "policy_gradient": objectives | clipped,
    "grpo": objectives | clipped,
    "preference_pairs": paired,
}
"""Of a kind of credit; of others plain | objectives."""


@st.composite
def valid_configs(draw: st.DrawFn) -> dict[str, Any]:
    """Settings within every documented range."""
    heads, rollouts = draw(st.integers(1, 8)), draw(st.integers(2, 100_000))
    credit = draw(credits_of(rollouts))
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
        "credit": credit,
        "training": {
            "objective": draw(OBJECTIVES.get(credit["kind"], plain | objectives)),
            "epochs": draw(st.integers(1, 1000)),
            "batch_size": 2 * draw(st.integers(1, 10**9)),
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
        "credit": st.fixed_dictionaries({}, optional={"kind": garbage, "num_selected": garbage}) | garbage,
        "training": st.dictionaries(st.sampled_from(["epochs", "objective", "warmup"]) | scalars, garbage),
        "stages": st.lists(st.dictionaries(st.sampled_from(["iterations", "rollout"]) | scalars, garbage)),
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


def test_a_run_is_named_like_the_file_of_its_config(tmp_path: Path) -> None:
    for file, own, name in (
        ("mine.yaml", {}, "mine"),
        ("mine.yaml", {"name": "own"}, "own"),
        ("a b.yaml", {}, "run"),
    ):
        (tmp_path / file).write_text(yaml.safe_dump({"suite": "smoke"} | own))
        assert load_config(tmp_path / file).name == name


def test_defaults_are_the_plain_method() -> None:
    config = parse_config({})
    assert config.credit == TopKRegret(num_selected=4)
    assert config.training == NumericTraining(objective=CrossEntropy())
    assert config == RunConfig()


def test_more_than_a_setting_has_are_refused_before_anything_is_played() -> None:
    values = {
        "suite": "words/bandits",  # of two settings
        "rollout": {"num_problems": 5, "num_rollouts": 2},
        "credit": {"num_selected": 5, "per": "setting"},
    }
    config = parse_config(values)
    with pytest.raises(ConfigError, match=r"num_selected is 5 but a setting .* has only 4: keep at most"):
        backend(config, load_suites(config))


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
        (
            {
                "rollout": {"num_problems": 2, "num_rollouts": 2},
                "credit": {"num_selected": 5, "per": "setting"},
            },
            "5 but a setting (rollout.num_problems / settings x rollout.num_rollouts) has only 4",
        ),
        (
            {"rollout": {"num_problems": 1, "num_rollouts": 3}, "credit": {"per": "iteration"}},
            "an iteration (rollout.num_problems x rollout.num_rollouts) has only 3",
        ),
        ({"policy": {"width": 30, "num_heads": 4}}, "policy: num_heads 4 must divide width 30"),
        (
            {"policy": {"kind": "arm_encodre"}},
            "policy: Unknown kind of policy 'arm_encodre'. Did you mean 'arm_encoder'?",
        ),
        (
            {"credit": {"kind": "top_regret"}},
            "Unknown kind of credit 'top_regret'. Did you mean 'top_k_regret'?",
        ),
        ({"credit": {"kind": "policy_gradient"}}, "set training.objective"),
        (
            {
                "credit": {"kind": "policy_gradient"},
                "rollout": {"num_rollouts": 1},
                "training": {"objective": {"kind": "policy_gradient"}},
            },
            "rollout.num_rollouts is 1, needs at least 2",
        ),
        ({"credit": {"kind": "policy_gradient", "advantage_clip": [1, 5]}}, "advantage_clip"),
        ({"credit": {"kind": "all", "num_selectd": 3}}, "Unknown key 'num_selectd'"),
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


def test_off_is_a_word_where_a_setting_has_it_and_false_elsewhere() -> None:
    values = {"policy": {"kind": "local"}}
    config = parse_config(values, ["policy.wording.reasoning=off"])
    assert isinstance(config.policy, LocalConfig)
    assert config.policy.wording.reasoning == "off"
    with pytest.raises(ConfigError, match="reasoning: found true"):
        parse_config(values, ["policy.wording.reasoning=on"])


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


HOSTED = {"policy": {"kind": "hosted", "model": "m"}, "credit": {"kind": "top_k_regret"}}
LOCAL = {"policy": {"kind": "local"}}
USELESS = [
    (
        {"credit": {"kind": "policy_gradient", "num_selected": 99_999}},
        "credit: 'num_selected' does nothing with kind policy_gradient: it is a setting of top_k_regret, "
        "top_k_regret_to_go, top_k_reward, random.",
    ),
    ({"credit": {"kind": "all", "num_selected": 1}}, "'num_selected' does nothing with kind all"),
    ({"credit": {"kind": "top_k_regret", "discount": 0.9}}, "setting of top_k_regret_to_go, policy_gradient"),
    ({"credit": {"kind": "random", "advantage_clip": [-1, 5]}}, "it is a setting of policy_gradient"),
    ({"credit": {"reward": "expected"}}, "it is a setting of top_k_reward, grpo, preference_pairs."),
    (
        {"training": {"objective": {"kind": "dpo", "clip_range": 0.1}}},
        "'clip_range' does nothing with kind dpo: it is a setting of ppo_clip.",
    ),
    (
        {"training": {"objective": {"kind": "regret_loss", "power": 2}}},
        "power does nothing with num_sequences 1",
    ),
    ({"credit": {"all_actions": True}}, "'all_actions' does nothing with kind top_k_regret"),
    ({"training": {"legality_coef": 1}}, "training: 'legality_coef' does nothing with kind numeric: "),
    ({"training": {"num_processes": 2}}, "does nothing with kind numeric: it is a setting of local."),
    (
        {"training": {"objective": {"kl_coef": 1}}},
        "objective: 'kl_coef' does nothing with kind cross_entropy: it is a setting of policy_gradient, "
        "ppo_clip.",
    ),
    (
        HOSTED | {"training": {"learning_rate": 0.1}},
        "training: 'learning_rate' does nothing with kind hosted: it is a setting of numeric, local.",
    ),
    (
        HOSTED | {"training": {"objective": {"kind": "cross_entropy"}}},
        "'objective' does nothing",
    ),
    ({"policy": {"kind": "arm_encoder", "lora": {"rank": 2}}}, "'lora' does nothing with kind arm_encoder"),
    (LOCAL | {"policy": {"kind": "local", "width": 64}}, "'width' does nothing with kind local"),
]


@pytest.mark.parametrize(("values", "message"), USELESS)
def test_settings_that_do_nothing_are_refused_by_the_kinds_that_have_them(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(values, source="mine.yaml")
    assert message in str(raised.value)


def test_training_is_of_the_kind_of_the_policy() -> None:
    assert [parse_config(each).training.kind for each in ({}, LOCAL, HOSTED)] == [
        "numeric",
        "local",
        "hosted",
    ]
    with pytest.raises(
        ConfigError, match=r"training\.kind is local; that of policy\.kind arm_encoder is numeric"
    ):
        parse_config({"training": {"kind": "local"}})


def test_how_sure_legality_is_follows_the_objective() -> None:
    def legality(**training: Any) -> float:
        return parse_config(LOCAL | {"training": training}).training.legality  # type: ignore[union-attr]

    assert (legality(), legality(objective={"kind": "policy_gradient"})) == (1.0, 0.1)
    assert legality(legality_coef=0.5) == 0.5


def test_another_kind_that_is_set_starts_from_its_own_defaults() -> None:
    values = {"credit": {"kind": "top_k_regret", "num_selected": 2}}
    objective = "training.objective={kind: policy_gradient}"
    config = parse_config(values, ["credit.kind=policy_gradient", "credit.discount=0.9", objective])
    assert config.credit == PolicyGradientCredit(discount=0.9)
    assert parse_config(values, ["credit.num_selected=3"]).credit == TopKRegret(num_selected=3)


# stages


def test_a_stage_takes_what_it_leaves_out_from_the_run() -> None:
    config = parse_config({
        "suite": "smoke",
        "rollout": {"num_problems": 10, "num_rollouts": 8, "temperature": 1.5},
        "credit": {"kind": "policy_gradient", "discount": 0.9},
        "training": {"objective": {"kind": "policy_gradient", "kl_coef": 2}, "learning_rate": 0.01},
        "stages": [
            {"iterations": 3},
            {"suite": "fol/mixture", "iterations": 4, "rollout": {"temperature": 1.0},
             "training": {"learning_rate": 0.001}},
            {"iterations": 5, "credit": {"kind": "all"},
             "training": {"objective": {"kind": "cross_entropy"}}},
        ],
    })  # fmt: skip
    first, second, third = config.schedule()
    assert config.iterations == 12
    assert (first.suite, second.suite, third.suite) == ("smoke", "fol/mixture", "smoke")
    assert (first.rollout.temperature, second.rollout.temperature) == (1.5, 1.0)
    assert (second.rollout.num_problems, second.rollout.num_rollouts) == (10, 8)
    assert second.credit == first.credit == PolicyGradientCredit(discount=0.9)
    objective = PolicyGradient(kl_coef=2)
    assert second.training == NumericTraining(objective=objective, learning_rate=0.001)
    assert third.credit.kind == "all"
    assert third.training == NumericTraining(learning_rate=0.01)
    assert parse_config(yaml.safe_load(config.to_yaml())) == config
    assert config.stage_of(1) == (first, 1 / 3)
    assert config.stage_of(3) == (first, 1.0)
    assert config.stage_of(4) == (second, 1 / 4)
    assert config.stage_of(12) == (third, 1.0)
    with pytest.raises(ConfigError, match="no iteration 13"):
        config.stage_of(13)


def test_the_suite_of_a_run_is_that_of_its_last_stage_unless_given() -> None:
    stages = [{"iterations": 1, "suite": "words/bandits"}, {"iterations": 1, "suite": "fol/mixture"}]
    assert parse_config({"stages": stages}).suite == "fol/mixture"
    assert parse_config({"stages": stages, "suite": "smoke"}).suite == "smoke"
    first = parse_config({"stages": [stages[0], {"iterations": 1}]})
    assert (first.suite, first.stages[1].suite) == ("words/bandits", "words/bandits")


def test_a_run_without_stages_is_one_stage() -> None:
    config = parse_config({"iterations": 7})
    stage, progress = config.stage_of(7)
    assert config.schedule() == (stage,)
    assert (stage.suite, stage.iterations, progress) == (config.suite, 7, 1.0)
    assert (stage.rollout, stage.credit, stage.training) == (config.rollout, config.credit, config.training)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stages": [{"iterations": 2}], "iterations": 3}, "iterations is 3, but the stages have 2"),
        ({"stages": [{"iterations": 2, "validation": {}}]}, "Unknown key 'validation'"),
        ({"stages": [{"suite": "smoke"}]}, "iterations: this key is missing"),
        ({"stages": [{"iterations": 2, "rollout": {"num_rollouts": 2}}]}, "num_selected is 4 but"),
        ({"stages": [{"iterations": 2, "credit": {"kind": "policy_gradient"}}]}, "set training.objective"),
        ({"stages": [{"iterations": 2, "training": {"legality_coef": 1}}]}, "does nothing with kind numeric"),
        ({"stages": [{"iterations": 2, "training": {"kind": "local"}}]}, "that of policy.kind arm_encoder"),
    ],
)
def test_stages_that_do_not_fit_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(values, source="mine.yaml")
    assert message in str(raised.value)


def test_a_file_that_unfolds_without_end_is_refused(tmp_path: Path) -> None:
    steps = [f"k{step}: &k{step} [{', '.join([f'*k{step - 1}'] * 9)}]" for step in range(1, 30)]
    path = tmp_path / "laughs.yaml"
    path.write_text("\n".join(["k0: &k0 [x]", *steps]))
    with pytest.raises(ConfigError, match="unfolds to more than"):
        load_config(path)
    path.write_text("name: &a [*a]")
    with pytest.raises(ConfigError, match="unfolds to more than"):
        load_config(path)


def test_paths_in_a_file_start_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From whatever directory it is read; and as before, for a version, those of that directory are taken."""
    for name in ("mine/suite.yaml", "mine/base/x", "mine/policy/x", "old/suite.yaml", "mine/smoke/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    file = tmp_path / "mine" / "config.yaml"
    file.write_text(
        "{init_from: policy, suite: suite.yaml, stages: [{iterations: 1, suite: smoke}, {iterations: 1}],"
        " policy: {kind: local, model: base, engine: {urls: ['http://a/v1'], adapter_folder: new}},"
        " tracking: {kind: tensorboard, folder: /board}}"
    )
    for directory, start in {".": "mine/", "old": f"{tmp_path}/mine/", "mine": ""}.items():
        monkeypatch.chdir(tmp_path / directory)
        found = load_config(Path("config.yaml") if directory == "mine" else file, ["name=n"])
        assert isinstance(found.policy, LocalConfig)
        assert found.policy.engine is not None
        paths = (found.init_from, found.suite, found.policy.model, str(found.policy.engine.adapter_folder))
        assert paths == tuple(f"{start}{name}" for name in ("policy", "suite.yaml", "base", "new"))
        assert [stage.suite for stage in found.stages] == ["smoke", f"{start}suite.yaml"], "a name is no path"
        assert found.tracking == TensorBoardTracking(folder="/board")
        assert load_config(file, ["suite=suite.yaml"]).suite == "suite.yaml", "from where one is"
    monkeypatch.chdir(tmp_path)
    file.write_text("suite: old/suite.yaml")
    with pytest.warns(FutureWarning, match=r"suite 'old/suite.yaml' .* write ../old/suite.yaml"):
        assert load_config(file).suite == "old/suite.yaml"
    file.write_text("suite: smok")
    assert load_config(file).suite == "smok", "which may be a mistyped name"
