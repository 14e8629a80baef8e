"""What is done with a target (`rmft.targets`): it is evaluated, played, exported."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, get_args

from rmft.config import load_config, parse_config
from rmft.errors import ConfigError, MissingExtraError, RunDirectoryError, UnknownNameError, command
from rmft.evaluation.conversations import KeptConversations
from rmft.evaluation.evaluate import evaluate, evaluate_seeds
from rmft.evaluation_files import EvaluationFiles
from rmft.messages import estimate_tokens
from rmft.models.catalogue import find_model
from rmft.play import Game, play
from rmft.policies.baselines.catalogue import baselines_for, make_baseline
from rmft.policies.config import HostedConfig, LocalConfig
from rmft.problems.suites import Suite, as_data, load_suite
from rmft.problems.tasks import CONFIG_FILE, task_file
from rmft.records.files import FOLDER, read_lines
from rmft.results import Evaluation
from rmft.rivals import baselines, by_strength, optima
from rmft.rollout import MakePolicy
from rmft.run_directory import RunDirectory, policy_in
from rmft.scenarios.wording import Wording
from rmft.seeds import Experiment, is_experiment
from rmft.targets import check_path, of_run, players, policies_of, rivals_in
from rmft.task_check import describe_task
from rmft.tracking.config import NoTracking
from rmft.tracking.send import Sender
from rmft.training_data import DataFormat, write_training_data
from rmft.wiring.policies import extra, token_counter, torch_threads
from rmft.wiring.suites import seated, suites_of

MAX_PLAYED = 10**7  # rollouts of one policy


def evaluate_target(
    target: str,
    suite_name: str | None,
    against: list[str] | None,
    part: str,
    num_problems: int | None,
    num_rollouts: int,
    seed: int,
    progress: Callable[[str], None],
    trust: bool = False,
    opponent: str | None = None,
) -> tuple[Evaluation, Callable[[], Path | None]]:
    """Evaluate a run, a folder of seeds, a checkpoint's folder or a baseline.

    Returns the result, and what writes it into the run or the folder of seeds, of the latter also each seed's
    into its run, and returns the file: first the result can be shown, whatever becomes of the disk. trust:
    whether the classes that a run directory's suite names may be run. opponent: who plays the other side of
    games, unless it is whom the suite names.
    """
    if part not in ("held_out", "validation"):
        raise UnknownNameError("part", part, ["held_out", "validation"])
    check_path(target)
    where = Path(target)
    several = Experiment.open(where) if is_experiment(where) else None
    runs = {} if several is None else _begun(several, progress)
    run = next(iter(runs.values()), None)
    if os.path.exists(where / "run.json"):
        run = RunDirectory.open(where, lock=False)
        _check_result(run, progress)
    if suite_name is not None:
        suite = load_suite(suite_name, trust=trust)
    elif run is not None:
        suite = suites_of(run, trust=trust, say=progress)[run.config.suite]
    else:
        raise ConfigError(f"'{target}' is no run, so name the problems to play with --suite.")
    suite = seated(suite, opponent)
    if run is not None and run.config.policy.kind != "hosted":
        torch_threads(run.config.num_threads)
    count = num_problems or (suite.held_out if part == "held_out" else suite.validation).num_problems
    settings = {"num_problems": count, "num_rollouts": num_rollouts, "seed": seed, "against": against}
    if not (num_rollouts > 0 and 0 < count * num_rollouts <= MAX_PLAYED):
        raise ConfigError(
            f"found {count:,} problems x {num_rollouts:,} rollouts; expected 1 to {MAX_PLAYED:,} in all."
        )
    usual = {"num_problems": suite.held_out.num_problems, "num_rollouts": 1, "seed": 0, "against": None}
    (data,) = as_data({"": suite}).values()
    own = suite_name is None or (run is not None and data == run.suites[run.config.suite])
    files = EvaluationFiles()
    if not own or (part, settings) != ("held_out", usual):
        files = EvaluationFiles.named(data, part, settings)
    for folder in [each.path for each in (run, several, *runs.values()) if each is not None]:
        files.check(folder)
    problems = suite.draw("held_out" if part == "held_out" else "validation", count)
    if several is not None:
        kept_of = {seed: KeptConversations() for seed in runs}
        with players(suite, one_at_a_time=True) as playing:
            by_seed = {seed: of_run(each, against, playing) for seed, each in runs.items()}
            others = rivals_in(list(against or suite.baselines), suite, playing, progress)
            known = optima(problems, progress)
            result, of_seeds = evaluate_seeds(
                by_seed, others, problems, num_rollouts, seed, progress,
                suite=suite.name, part=part, keep=kept_of, optima=known,
            )  # fmt: skip
            rivals = _rivals(others, suite, progress)
            result = result.model_copy(update=rivals)
            of_seeds = {seed: each.model_copy(update=rivals) for seed, each in of_seeds.items()}

        def keep() -> Path:
            for each, found in of_seeds.items():
                files.write(runs[each].path, found.to_json(), kept_of[each].lines)
            files.write(several.path, result.to_json())
            return files.results(several.path)

        return result, keep
    kept = KeptConversations()
    with players(suite) as playing:
        policies = policies_of(target, run, suite, against, playing, progress)
        known = optima(problems, progress)
        result = evaluate(
            policies, problems, num_rollouts, seed, progress,
            suite=suite.name, part=part, keep=kept, optima=known,
        )  # fmt: skip
        others = {name: policies[name] for name in list(policies)[1:]}
        result = result.model_copy(update=_rivals(others, suite, progress))

    def keep_one() -> Path | None:
        if run is None:
            return None
        files.write(run.path, result.to_json(), kept.lines)
        return files.results(run.path)

    return result, keep_one


def _check_result(run: RunDirectory, say: Callable[[str], None]) -> None:
    """Whether the run has ended, and its result is what its metrics say. Raises RunDirectoryError."""
    best, result = run.best_iteration(), run.read_json("result.json")
    if result is None:
        say(f"'{run.path}' has not ended; the best iteration so far, {best}, plays.")
    elif result.get("best_iteration") != best:
        raise RunDirectoryError(
            f"By '{run.path / 'metrics.jsonl'}' iteration {best} is the best, by result.json "
            f"{result.get('best_iteration')}: one of them was changed. Restore it."
        )


def _rivals(
    rivals: Mapping[str, MakePolicy], suite: Suite, progress: Callable[[str], None]
) -> dict[str, list[str]]:
    """What an evaluation says of its rivals: the baselines among them by strength."""
    named = {name: make for name, make in rivals.items() if name != "start" and not os.path.isdir(name)}
    return {"rivals": by_strength(named, suite, progress)}


def _begun(experiment: Experiment, progress: Callable[[str], None]) -> dict[int, RunDirectory]:
    """The runs of an experiment that hold a policy, by seed. Raises RunDirectoryError when none does."""
    runs = {seed: RunDirectory.open(experiment.run(seed), lock=False) for seed in experiment.seeds}
    for seed, run in runs.items():
        if run.read_json("result.json") is None:
            progress(f"Seed {seed} has not ended; finish it with: {command('resume', experiment.path)}")
    begun = {seed: run for seed, run in runs.items() if run.metrics()}
    if not begun:
        raise RunDirectoryError(
            f"'{experiment.path}' holds no policy yet. Go on with: {command('resume', experiment.path)}"
        )
    if left_out := sorted(runs.keys() - begun.keys()):
        progress(f"Left out, since they hold no policy yet: seeds {', '.join(map(str, left_out))}")
    return begun


def play_problem(
    target: str,
    suite_name: str | None,
    setting: str | None,
    problem: int,
    contexts: str | None,
    seed: int,
    person: Callable[[str], str] | None,
    say: Callable[[str], None],
    pause: Callable[[], None],
    trust: bool = False,
) -> dict[str, float]:
    """Play one validation problem of a suite: a person first, if asked by `person`, then the target.

    suite_name: unless given, a run's own. Returns regret by player; see `rmft.play`. trust: whether the
    classes that a run directory's suite names may be run. Raises UnknownNameError, ConfigError.
    """
    check_path(target)
    if suite_name is None and os.path.exists(Path(target) / "run.json"):
        run = RunDirectory.open(Path(target), lock=False)
        suite = suites_of(run, trust=trust, say=say)[run.config.suite]
    else:
        suite = seated(load_suite(suite_name or "words/bandits", trust=trust))
    settings = suite.settings("validation")
    names = [each.name for each in settings]
    if setting is not None and setting not in names:
        raise UnknownNameError("setting", setting, names)
    place, first = (problem, names.index(setting)) if setting else divmod(problem, len(names))
    groups = settings[first].groups
    if groups is not None and place >= len(groups):
        raise ConfigError(
            f"found problem {problem}; the part has {len(groups)} problems in '{settings[first].name}'."
        )
    game = Game.of(suite.problem("validation", place * len(names) + first), 0, contexts, seed)
    suited = "thompson" in baselines_for(settings[first].rules)
    thompson = partial(make_baseline, "thompson") if suited else None
    with players(suite) as playing:
        if os.path.isdir(target):
            name, make_policy = Path(target).name, playing(policy_in(Path(target)))
        else:
            name, make_policy = target, baselines([target], suite).popitem()[1]
        agent = make_policy(game.problem.table)
        return play(game, name, agent, thompson, person=person, say=say, pause=pause)


def check_task(folder: Path) -> list[str]:
    """What there is to say about a task; see `rmft.task_check`. Raises ConfigError for what is wrong with it.

    Told in the wording, and counted with the tokenizer, that the task's train.yaml names, where it has one.
    """
    file = task_file(folder)
    suite, settings = load_suite(file), file.parent / CONFIG_FILE
    policy = load_config(settings, ["suite=smoke"]).policy if settings.exists() else None
    wording = policy.wording if isinstance(policy, LocalConfig | HostedConfig) else Wording()
    count: Callable[[str], int] = estimate_tokens
    counted_by = "about 4 characters each"
    if isinstance(policy, LocalConfig):
        with suppress(ConfigError, UnknownNameError, MissingExtraError):  # which the check can do without
            if os.path.isdir(model := find_model(policy.model)):
                count, counted_by = token_counter(model), f"of {policy.model}"
    return list(describe_task(suite, wording, count, counted_by))


def export_run(
    path: Path, target: Path, say: Callable[[str], None], *, merge: bool, check: bool = False
) -> None:
    """Write a run's best language model to `target` for other programs; see `rmft.training.export`.

    check: whether it is then loaded, as a merged one always is, and compared with the policy. Raises
    ConfigError when it does not answer as the policy does.
    """
    run = RunDirectory.open(path, lock=False)
    if not isinstance(run.config.policy, LocalConfig):
        trains = "a hosted model" if isinstance(run.config.policy, HostedConfig) else "a numeric network"
        raise ConfigError(f"'{path}' trains {trains}; only language models in this process can be exported.")
    iteration, history = run.best_iteration(), run.metrics()
    if iteration == 0 and not merge and run.config.policy.lora is not None:
        raise ConfigError(
            f"By its validation the best policy of '{path}' is that before training, which has no adapter. "
            "Train longer, or export the whole model with --merge."
        )
    with extra("llm"):
        from rmft.training.export import compare, export_policy

    about: dict[str, Any] = {
        "run": run.config.name,
        "suite": run.config.suite,
        "settings": [str(setting["name"]) for setting in run.suites[run.config.suite]["train"]["settings"]],
        "iteration": iteration,
        "validation": {"before": history[0]["validation"], "after": history[iteration]["validation"]},
        "evaluation": run.read_json("evaluation.json"),
        "rounds": _recorded_rounds(run),
    }
    export_policy(run.policy(iteration), target, merge, about)
    if not (check or merge):
        return
    found = compare(run.policy(iteration), target, about["rounds"])
    say(
        f"Probabilities of legal answers in {found.num_decisions} decisions: at most {found.from_policy:.1e} "
        f"from the policy's, {found.from_base:.1e} from those before training."
    )
    if found.from_policy > found.tolerance:
        raise ConfigError(
            f"'{target}' does not answer as the policy does; expected at most {found.tolerance:g} between."
        )
    if iteration > 0 and found.from_base == 0:
        raise ConfigError(f"'{target}' answers as the model did before training: its adapter does nothing.")


def _recorded_rounds(run: RunDirectory) -> list[dict[str, Any]]:
    """The rounds of the first rollout that a run recorded in words."""
    for file in sorted((run.path / FOLDER).glob("*.jsonl.gz")):
        with suppress(ValueError, TypeError, LookupError, StopIteration):
            return list(json.loads(next(read_lines(file)))["rounds"])
    return []


def track_run(path: Path, overrides: Sequence[str] = ()) -> tuple[str, int]:
    """Send what a run's tracker does not have yet; the run's id there, and how many lines were sent.

    overrides: of the run's own setting `tracking`. Raises ConfigError, where there is no tracker too.
    """
    run = RunDirectory.open(path, lock=False)
    values = {"tracking": run.config.tracking.model_dump(mode="json")}
    config = parse_config(values, list(overrides), source=str(path)).tracking
    if isinstance(config, NoTracking):
        raise ConfigError(f"'{path}' names no tracker; name one, such as --set tracking.kind=tensorboard.")
    with closing(Sender(path, config)) as sender:
        return sender.id, sender.send()


def export_training_data(path: Path, form: str, target: Path, iterations: Sequence[int] = ()) -> int:
    """Write what a run was trained on to the file `target`; see `rmft.training_data`."""
    if form not in (known := ["model", *get_args(DataFormat)]):
        raise UnknownNameError("form of export", form, known)
    return write_training_data(RunDirectory.open(path, lock=False), form, target, iterations)
