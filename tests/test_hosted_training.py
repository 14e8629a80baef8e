"""Fine-tuning at a provider: one job for every iteration, whatever happens."""

from __future__ import annotations

import codecs
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosted_client import BASE, a_batch, connection_to, facts, train, trainer_at
from rmft.errors import EndpointError, RunDirectoryError, TrainingJobError
from rmft.providers.adapters import adapter
from rmft.providers.hosted_model import read_hosted, write_hosted
from rmft.types import PolicyRef, Trainer, TrainingStep
from serving import PATIENCE, Server
from vendor import KEY, Vendor, serving

CLIENT = Path(__file__).with_name("hosted_client.py")
APIS = ("openai", "together")
JOBS = {"openai": "fine_tuning/jobs", "together": "fine-tunes"}

STEP = TrainingStep(1, 7, 0.5)


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    with serving(Vendor()) as running:
        for job in range(4):
            started = {"model": f"me/job-{job}", "state": "STARTED", "name": f"endpoint-{job}"}
            running.endpoints.append(started)
        yield running


def record(run: Path) -> dict[str, object]:
    found = json.loads((run / "fine-tuning" / "000001.json").read_text("utf-8"))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("api", APIS)
def test_an_iteration_uploads_trains_and_names_the_new_model(
    vendor: Vendor, tmp_path: Path, api: str
) -> None:
    policy, figures = train(tmp_path, vendor.url, api, byte_order_mark=api == "together")
    expected = {"openai": ("tuned:job-0", "tuned:job-0"), "together": ("me/job-0", "endpoint-0")}[api]
    made = read_hosted(policy.path)
    assert (made.model, made.called, made.job, made.base) == (*expected, "job-0", "base-model")
    assert figures["examples"] == 2
    assert figures["tokens"] == 120
    assert figures.get("loss") == ({"openai": pytest.approx(0.8)}.get(api))  # the last of two checkpoints
    ((_, content),) = vendor.files.values()
    kept = (tmp_path / "fine-tuning" / "000001.jsonl").read_bytes()
    assert content.rstrip() == kept.rstrip()
    assert kept.startswith(codecs.BOM_UTF8) == (api == "together")
    lines = [json.loads(line) for line in kept.removeprefix(codecs.BOM_UTF8).splitlines()]
    assert [[m["weight"] for m in line["messages"] if m["role"] == "assistant"] for line in lines] == [
        [0, 1, 1],  # a refused answer, then two that were selected
        [0, 1],
    ]


@pytest.mark.parametrize("api", APIS)
def test_the_next_iteration_goes_on_from_the_model_before(vendor: Vendor, tmp_path: Path, api: str) -> None:
    policy, _ = train(tmp_path, vendor.url, api)
    policy.path.rename(tmp_path / "checkpoints" / "000001")
    train(tmp_path, vendor.url, api, iteration=2)
    first, second = (job.body for job in vendor.jobs)
    if api == "together":
        assert (first["model"], second["from_checkpoint"]) == ("base-model", "job-0")
        assert "model" not in second
    else:
        assert (first["model"], second["model"]) == ("base-model", "tuned:job-0")
        assert second["method"]["supervised"]["hyperparameters"] == {"n_epochs": 2}


MOMENTS = [
    *(("openai", part, when) for part in ("files", JOBS["openai"]) for when in ("before", "after")),
    ("openai", "job-0", "before"),
    ("together", JOBS["together"], "after"),
    ("together", "job-0", "before"),
]


@pytest.mark.parametrize(("api", "part", "when"), MOMENTS)
def test_a_killed_client_finds_its_job_again(
    vendor: Vendor, tmp_path: Path, api: str, part: str, when: str
) -> None:
    vendor.gate = (part, when)
    command = [sys.executable, str(CLIENT), str(tmp_path), vendor.url, api]
    client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert vendor.reached.wait(PATIENCE)
    finally:
        client.kill()
        client.wait()
        vendor.opened.set()
    if part == "job-0":
        assert record(tmp_path)["job"] == "job-0"  # on disk before the first look
    policy, _ = train(tmp_path, vendor.url, api)
    assert read_hosted(policy.path).job == "job-0"
    assert len(vendor.jobs) == 1
    if part != "files":
        assert len(vendor.files) == 1
    again, _ = train(tmp_path, vendor.url, api)  # of an iteration that was killed before its commit
    assert read_hosted(again.path) == read_hosted(policy.path)
    assert len(vendor.files) <= 2


@pytest.mark.parametrize("fault", ["after", "drop", "torn", "status:500", "wrong", "status:429"])
def test_a_job_whose_creation_is_in_doubt_is_not_created_twice(
    vendor: Vendor, tmp_path: Path, fault: str
) -> None:
    vendor.faults = [("fine_tuning/jobs", fault)]
    policy, _ = train(tmp_path, vendor.url, "openai")
    assert len(vendor.jobs) == 1
    assert read_hosted(policy.path).job == "job-0"


def test_faults_all_along_change_nothing(vendor: Vendor, tmp_path: Path) -> None:
    vendor.faults = [
        (part, fault) for part in ("files", "job-0", "jobs") for fault in ("status:500", "drop", "torn")
    ]
    train(tmp_path, vendor.url, "openai")
    assert len(vendor.jobs) == 1


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    ("end", "words"), [("failed", "has failed: it broke"), ("cancelled", "has been cancelled")]
)
def test_a_failed_job_says_why_and_is_followed_by_a_new_one(
    vendor: Vendor, tmp_path: Path, api: str, end: str, words: str
) -> None:
    vendor.script = ("queued", end)
    with pytest.raises(TrainingJobError, match=words):
        train(tmp_path, vendor.url, api)
    assert record(tmp_path)["job"] is None
    vendor.script = ("succeeded",)
    policy, _ = train(tmp_path, vendor.url, api)
    assert read_hosted(policy.path).job == "job-1"
    assert len(vendor.jobs) == 2
    (ended,) = record(tmp_path)["ended"]  # type: ignore[misc]
    assert ended.startswith(f"job-0 {end}")


def test_a_job_that_the_provider_lost_is_followed_by_a_new_one(vendor: Vendor, tmp_path: Path) -> None:
    vendor.faults = [("job-0", "status:404")]
    with pytest.raises(TrainingJobError, match="does not know the fine-tuning job job-0"):
        train(tmp_path, vendor.url, "openai")
    assert read_hosted(train(tmp_path, vendor.url, "openai")[0].path).job == "job-1"


def test_a_refused_job_can_be_asked_for_again(vendor: Vendor, tmp_path: Path) -> None:
    vendor.faults = [("fine_tuning/jobs", "status:429:code=insufficient_quota")]
    with pytest.raises(EndpointError, match="no money"):
        train(tmp_path, vendor.url, "openai")
    assert record(tmp_path)["asked"] is False
    train(tmp_path, vendor.url, "openai")
    assert (len(vendor.files), len(vendor.jobs)) == (1, 1)


def test_other_data_make_another_job(vendor: Vendor, tmp_path: Path) -> None:
    train(tmp_path, vendor.url, "openai")
    with connection_to(vendor.url) as connection:
        trainer = trainer_at(adapter(facts(), connection), tmp_path)
        assert isinstance(trainer, Trainer)
        before, target = tmp_path / "checkpoints" / "000000", tmp_path / "checkpoints" / ".000001"
        batch = a_batch([[1.0, 1.0], [1.0, 1.0]])
        policy, _ = trainer.train(PolicyRef("hosted", before), [batch], target, STEP)
    assert read_hosted(policy.path).job == "job-1"


@pytest.mark.parametrize("job", ["job-0", None])  # None: killed before its id was known
def test_a_job_on_other_data_is_cancelled(vendor: Vendor, tmp_path: Path, job: str | None) -> None:
    train(tmp_path, vendor.url, "openai")
    assert vendor.count("POST", "cancel") == 0
    going_on = record(tmp_path) | {"key": "of other data", "model": None, "job": job}
    (tmp_path / "fine-tuning" / "000001.json").write_text(json.dumps(going_on))
    policy, _ = train(tmp_path, vendor.url, "openai")
    assert vendor.jobs[0].status == "cancelled"
    assert read_hosted(policy.path).job == "job-1"


def test_a_job_is_charged_before_it_is_created_and_a_refusal_keeps_it_from_being(
    vendor: Vendor, tmp_path: Path
) -> None:
    charged: list[tuple[str, int]] = []

    def charge(key: str, tokens: int) -> None:
        charged.append((key, tokens))
        if len(charged) == 1:
            raise EndpointError("too dear")

    before, target = tmp_path / "before", tmp_path / "after"
    for folder in (before, target):
        folder.mkdir()
    write_hosted(before, BASE)
    with connection_to(vendor.url) as connection:
        trainer = trainer_at(adapter(facts(), connection), tmp_path, charge=charge)
        with pytest.raises(EndpointError, match="too dear"):
            trainer.train(
                PolicyRef("hosted", before), [a_batch([[1.0], [1.0]])], target, TrainingStep(1, 7, 0.5)
            )
        assert vendor.jobs == []
        trainer.train(PolicyRef("hosted", before), [a_batch([[1.0], [1.0]])], target, STEP)
    # a system of 18 characters, told of 7, said of 1: 5 + 2 + 1 and 4 for each of 3; the first with 2 more
    # messages of 3 and 22 characters: 1 + 6 + 8. Two epochs.
    assert charged == [("job file-0", 2 * (20 + 20 + 15))] * 2


def test_nothing_to_learn_from_makes_no_job(vendor: Vendor, tmp_path: Path) -> None:
    before, target = tmp_path / "before", tmp_path / "after"
    for folder in (before, target):
        folder.mkdir()
    write_hosted(before, BASE)
    with connection_to(vendor.url) as connection:
        trainer = trainer_at(adapter(facts(), connection), tmp_path)
        trainer.train(PolicyRef("hosted", before), [a_batch([[0.0], [0.0]])], target, STEP)
    assert read_hosted(target) == BASE
    assert vendor.seen == []


def test_azure_waits_for_the_deployment(
    vendor: Vendor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Deploying(set[str]):
        """Holds every deployment from the third look on."""

        looks = 0

        def __contains__(self, name: object) -> bool:
            self.looks += 1
            return self.looks > 2

    vendor.deployed = Deploying()
    policy, _ = train(tmp_path, vendor.url, "azure")
    called = read_hosted(policy.path).called
    assert called.startswith("rmft-")
    told = capsys.readouterr().out
    assert f"--deployment-name {called} --model-name 'tuned:job-0'" in told


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"key": 3}', b"\xff", b'{"key": "x", "more": 1}'])
def test_a_damaged_record_is_told(vendor: Vendor, tmp_path: Path, content: bytes) -> None:
    train(tmp_path, vendor.url, "openai")
    (tmp_path / "fine-tuning" / "000001.json").write_bytes(content)
    with pytest.raises(RunDirectoryError, match=r"000001\.json' is missing or damaged: .*look it up"):
        train(tmp_path, vendor.url, "openai")
    policy = tmp_path / "checkpoints" / ".000001"
    (policy / "hosted.json").write_bytes(content)
    with pytest.raises(RunDirectoryError, match=r"hosted\.json' is missing or damaged"):
        read_hosted(policy)


@pytest.mark.slow
def test_rmft_serve_is_a_provider(tiny_llama: Path, tmp_path: Path) -> None:
    server = Server(tiny_llama, tmp_path / "store", KEY)
    try:
        run = tmp_path / "run"
        before = run / "000000"
        before.mkdir(parents=True)
        base = {"base": "tiny", "model": "tiny", "called": "tiny"}
        write_hosted(before, BASE.model_copy(update=base))
        with connection_to(server.url) as connection:
            provider = adapter(facts(), connection)
            assert provider.check("tiny") is None
            for iteration in (1, 2):
                target = run / f"{iteration:06d}"
                target.mkdir()
                batches = [a_batch([[1.0, 1.0], [0.0, 1.0]])]
                trainer = trainer_at(provider, run)
                policy, figures = trainer.train(
                    PolicyRef("hosted", before), batches, target, TrainingStep(1, 7, 0.5)
                )
                assert figures["tokens"] > 0
                made = read_hosted(target)
                assert [each.name for each in provider.checkpoints(str(made.job))] == [made.model]
                ask = {"model": made.called, "max_tokens": 2}
                said = connection.chat({**ask, "messages": [{"role": "user", "content": "Choose."}]})
                assert said.completion_tokens == 2
                before = policy.path
        models = [read_hosted(run / f"{iteration:06d}").model for iteration in range(3)]
        assert models[0] == "tiny"
        assert len(set(models)) == 3
    finally:
        server.stop()
