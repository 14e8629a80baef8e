"""Every adapter speaks the same protocol; what is known of providers is data; training files are checked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from hosted_client import a_batch, connection_to, facts
from rmft.config import parse_config
from rmft.errors import AnswerError, ConfigError, EndpointError, UnknownNameError
from rmft.messages import count_tokens
from rmft.policies.config import HostedConfig
from rmft.providers.adapters import adapter, connect
from rmft.providers.catalogue import ModelFacts, find_provider, providers
from rmft.providers.config import EndpointConfig
from rmft.providers.provider import Checkpoint, FineTuneProvider, JobRequest
from rmft.reading import parse_yaml
from rmft.training.conversations import Conversation, check, conversations, to_jsonl
from vendor import Vendor, serving

APIS = ("openai", "azure", "together")


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    with serving(Vendor()) as running:
        yield running


@pytest.fixture(params=APIS)
def provider(request: pytest.FixtureRequest, vendor: Vendor) -> Iterator[FineTuneProvider]:
    with connection_to(vendor.url, request.param, retries=1) as connection:
        yield adapter(facts(request.param), connection)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "000001.jsonl"
    path.write_bytes(to_jsonl(conversations([a_batch([[1.0]])])))
    return path


def a_request(file: str, **more: Any) -> JobRequest:
    facts = {
        "base": "base-model",
        "model": "base-model",
        "job": None,
        "epochs": 1,
        "seed": 2**40,
        "suffix": "s",
    }
    return JobRequest(file=file, **(facts | more))


def test_a_model_is_checked(provider: FineTuneProvider) -> None:
    told = date(2097, 1, 14) if provider.facts.api != "together" else None
    assert provider.check("base-model") == told
    with pytest.raises(EndpointError, match="bse-model") as caught:
        provider.check("bse-model")
    if provider.facts.api != "together":
        assert "Did you mean 'base-model'?" in str(caught.value)


def test_a_file_arrives_as_it_is(provider: FineTuneProvider, vendor: Vendor, file: Path) -> None:
    uploaded = provider.upload(file)
    head, content = vendor.files[uploaded]
    assert 'filename="000001.jsonl"' in head
    assert content.rstrip() == file.read_bytes().rstrip()


def test_a_job_goes_its_way(provider: FineTuneProvider, vendor: Vendor, file: Path) -> None:
    job = provider.create(a_request(provider.upload(file)))
    states = [provider.poll(job) for _ in range(4)]
    assert [state.status for state in states] == ["waiting", "running", "succeeded", "succeeded"]
    assert [state.model is None for state in states] == [True, True, False, False]
    assert states[-1].trained_tokens == 120
    assert vendor.jobs[0].body["training_file"] == "file-0"


def test_a_job_is_found_by_its_file_among_many(provider: FineTuneProvider, file: Path) -> None:
    files = [provider.upload(file) for _ in range(6)]
    jobs = [provider.create(a_request(each)) for each in files[:5]]
    assert [provider.find_job(each) for each in files] == [*jobs, None]


def test_a_job_is_cancelled(provider: FineTuneProvider, vendor: Vendor, file: Path) -> None:
    job = provider.create(a_request(provider.upload(file)))
    provider.cancel(job)
    assert provider.poll(job).status == "cancelled"
    vendor.faults = [("cancel", "status:400")]
    provider.cancel(job)  # that it has ended is no mistake


def test_a_failed_job_tells_its_reason(provider: FineTuneProvider, vendor: Vendor, file: Path) -> None:
    vendor.script = ("failed",)
    job = provider.create(a_request(provider.upload(file)))
    state = provider.poll(job)
    assert (state.status, state.model, state.reason) == ("failed", None, "it broke")


def test_checkpoints_come_in_order(provider: FineTuneProvider, file: Path) -> None:
    job = provider.create(a_request(provider.upload(file)))
    found = provider.checkpoints(job)
    assert [each.step for each in found] == [10, 20]
    if provider.facts.api != "together":
        assert found[1] == Checkpoint("job-0:20", 20, pytest.approx(0.8))


SENSELESS = [
    "[]",
    "null",
    "3",
    "{}",
    '{"data": 3}',
    '{"data": [3]}',
    '{"id": 3, "status": 4}',
    '"x"',
    "{" * 9000,
]


@pytest.mark.parametrize("reply", SENSELESS, ids=range(len(SENSELESS)))
def test_senseless_replies_are_answer_errors(
    provider: FineTuneProvider, vendor: Vendor, file: Path, reply: str
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: provider.check("base-model"),
        lambda: provider.upload(file),
        lambda: provider.create(a_request("file-0")),
        lambda: provider.find_job("file-0"),
        lambda: provider.poll("job-0"),
        lambda: provider.checkpoints("job-0"),
    ]
    for call in calls:
        vendor.faults = [("/", f"wrong:{reply}")] * 9
        with pytest.raises((AnswerError, EndpointError)):
            call()


def test_a_job_that_succeeds_without_a_model_is_not_believed(vendor: Vendor) -> None:
    vendor.faults = [("job-0", 'wrong:{"id": "job-0", "status": "succeeded"}')] * 9
    with connection_to(vendor.url) as connection, pytest.raises(AnswerError, match="names no model"):
        adapter(facts(), connection).poll("job-0")


def test_names_cannot_leave_their_path(vendor: Vendor) -> None:
    with connection_to(vendor.url) as connection, pytest.raises(EndpointError):
        adapter(facts(), connection).poll("../../models")
    assert vendor.seen == [("GET", "/v1/fine_tuning/jobs/..%2F..%2Fmodels")]


def test_a_together_model_is_called_by_its_endpoint(vendor: Vendor) -> None:
    told: list[str] = []
    with connection_to(vendor.url, "together") as connection:
        provider = adapter(facts("together"), connection)
        assert provider.serve("me/tuned", told.append) is None
        vendor.endpoints = [{"model": "me/tuned", "state": "STARTING", "name": "me/tuned-1"}]
        assert provider.serve("me/tuned", told.append) is None
        vendor.endpoints = [{"model": "me/tuned", "state": "STARTED", "name": "me/tuned-1"}]
        assert provider.serve("me/tuned", told.append) == "me/tuned-1"
    assert "together endpoints create --model me/tuned" in told[0]
    assert "STARTING" in told[1]


def test_learning_rate_multipliers_reach_the_provider(vendor: Vendor, file: Path) -> None:
    for api in ("openai", "together"):
        with connection_to(vendor.url, api) as connection:
            provider = adapter(facts(api), connection)
            provider.create(a_request(provider.upload(file), learning_rate_multiplier=2.5))
    openai, together = (job.body for job in vendor.jobs)
    assert openai["method"]["supervised"]["hyperparameters"]["learning_rate_multiplier"] == 2.5
    assert together["learning_rate"] == pytest.approx(2.5e-5)
    assert openai["seed"] == together["random_seed"] == 2**40 % 2**31


# what is known of providers


def test_the_catalogue_is_whole() -> None:
    known = providers()
    assert set(known) == {"openai", "azure", "together", "compatible"}
    for name, each in known.items():
        assert each.name == name
        if name != "compatible":
            assert each.looked_up is not None
            assert each.sources
            assert all(facts.unverified or facts.training is not None for facts in each.models.values())


def test_the_documents_tell_what_the_catalogue_knows() -> None:
    text = (Path(__file__).parents[1] / "docs" / "hosted.md").read_text("utf-8")
    table = text.partition("## Providers")[2].partition("\n## ")[0]
    rows = {line.split("|")[1].strip(" `"): line for line in table.splitlines() if line.startswith("| `")}
    del rows["policy.provider"]
    assert set(rows) == set(providers())
    for name, each in providers().items():
        for model, known in each.models.items():
            days = [day for day in (known.trains_until, known.retires) if day is not None]
            assert all(str(day) in rows[name] for day in days), model
    prices = find_provider("openai").model("gpt-4o-mini")
    row = next(line for line in text.splitlines() if line.startswith("| openai, gpt-4o-mini"))
    told = [float(cell.strip(" *")) for cell in row.split("|")[2:-1]]
    listed = [prices.input, prices.output, prices.tuned_input, prices.tuned_output, prices.training]
    assert told == listed


def test_the_documents_examples_can_be_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "hosted.md").read_text("utf-8")
    prices, *runs = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    own = tmp_path / "own.yaml"
    own.write_text(prices)
    assert find_provider("together", own).model("Qwen/Qwen3-8B").training == 0.5
    policies = [parse_config(parse_yaml(run, "example")).policy for run in runs]
    assert [policy.provider for policy in policies if isinstance(policy, HostedConfig)] == [
        *("openai", "azure", "together")
    ]


def test_openai_ends_when_its_pages_say() -> None:
    model = find_provider("openai").model("gpt-4o-mini")
    assert (model.trains_until, model.retires) == (date(2027, 1, 6), date(2027, 1, 14))
    assert model == find_provider("openai").model("gpt-4o-mini-2024-07-18")
    assert find_provider("openai").model("another") == ModelFacts()


def test_prices_are_per_million_tokens() -> None:
    model = ModelFacts(input=0.15, output=0.6, tuned_input=0.3, tuned_output=1.2, training=3.0)
    assert model.usd(1_000_000, 500_000, tuned=False) == pytest.approx(0.15 + 0.30)
    assert model.usd(1_000_000, 500_000, tuned=True) == pytest.approx(0.30 + 0.60)
    assert model.training_usd(2_000_000) == pytest.approx(6.0)
    assert ModelFacts(input=1.0).usd(1, 1, tuned=False) is None
    assert ModelFacts().training_usd(1) is None


def test_own_facts_go_before(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "openai: {models: {gpt-4o-mini-2024-07-18: {training: 4.5}}}\n"
        "mine: {api: openai, base_url: 'http://127.0.0.1:1/v1', other: {input: 0, output: 0}}\n"
    )
    model = find_provider("openai", own).model("gpt-4o-mini")
    assert (model.training, model.input) == (4.5, 0.15)
    assert find_provider("mine", own).model("any").usd(10, 10, tuned=False) == 0
    assert find_provider("openai").model("gpt-4o-mini").training == 3.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("openai: {min_exampels: 3}", "Did you mean 'min_examples'"),
        ("openai: {models: {x: {training: -1}}}", "training"),
        ("openai: 3", "3"),
        ("- 1", "expected settings"),
        ("new: {about: no api}", "api"),
    ],
)
def test_wrong_facts_are_told(tmp_path: Path, text: str, words: str) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(text)
    with pytest.raises(ConfigError, match=words):
        providers(own)


def test_an_unknown_provider_is_told() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'together'"):
        find_provider("togehter")


def test_connections_are_made_of_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"set policy\.base_url"):
        connect(find_provider("compatible"), None, None, EndpointConfig())
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(EndpointError, match="OPENAI_API_KEY"):
        connect(find_provider("openai"), None, None, EndpointConfig())
    monkeypatch.setenv("MY_KEY", "sk-x")
    with connect(
        find_provider("compatible"), "http://127.0.0.1:1/v1", "MY_KEY", EndpointConfig()
    ) as connection:
        assert connection.host == "127.0.0.1:1"


# training files


def test_a_conversation_is_told_whole() -> None:
    first, second = conversations([a_batch([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])])
    assert first == [
        {"role": "system", "content": "Two arms, A and B."},
        {"role": "user", "content": "Choose."},
        {"role": "assistant", "content": "Hm?", "weight": 0},
        {"role": "user", "content": "Reply with one letter."},
        {"role": "assistant", "content": "B", "weight": 1},
        {"role": "user", "content": "0 hits. Choose."},
        {"role": "assistant", "content": "B", "weight": 0},
    ]
    assert [message.get("weight") for message in second if message["role"] == "assistant"] == [0, 1]
    assert count_tokens(first) == 5 + 2 + 1 + 6 + 1 + 4 + 1 + 7 * 4


def test_a_training_file_is_the_same_every_time() -> None:
    batch = a_batch([[1.0, 0.0], [1.0, 1.0]])
    content = to_jsonl(conversations([batch]))
    assert content == to_jsonl(conversations([batch]))
    assert [json.loads(line)["messages"] for line in content.splitlines()] == conversations([batch])
    assert b"weight" not in to_jsonl(conversations([batch]), weights=False)


def test_odd_characters_survive() -> None:
    said: Conversation = [{"role": "user", "content": 'é "\n\u2028 \ud800'}]
    (line,) = to_jsonl([said]).decode().split("\n")[:-1]
    assert json.loads(line)["messages"][0]["content"] == 'é "\n\u2028 ?'


@pytest.mark.parametrize("advantage", [-1.0, 0.5, 2.0])
def test_advantages_that_no_provider_knows_are_refused(advantage: float) -> None:
    with pytest.raises(ConfigError, match=f"advantage {advantage:g}; providers imitate whole answers"):
        conversations([a_batch([[advantage]])])


def test_failed_rollouts_are_left_out() -> None:
    batch = a_batch([[1.0], [1.0]])
    batch.trajectories.histories.failed[0] = "no answer"
    assert len(conversations([batch])) == 1


def a_conversation(*roles: str, content: str = "x", weight: int = 1) -> Conversation:
    answered: dict[str, Any] = {"weight": weight}
    return [{"role": role, "content": content, **(answered if role == "assistant" else {})} for role in roles]  # type: ignore[typeddict-item]


GOOD = a_conversation("system", "user", "assistant")


@pytest.mark.parametrize(
    ("training", "size", "more", "words"),
    [
        ([GOOD], 10, {}, "found 1 conversations, vendor expects at least 2: raise"),
        ([GOOD] * 2, 3_000_001, {"max_file_mb": 3}, "has 3 MB, vendor takes at most 3"),
        ([GOOD, a_conversation("user", "assistant", content="x" * 4000)], 10, {}, "about 2008 tokens"),
        (
            [GOOD, a_conversation("user", "assistant", weight=0)],
            10,
            {"weights": False},
            "learns from all answers",
        ),
    ],
)
def test_what_would_be_refused_is_told_before(
    training: list[Conversation], size: int, more: dict[str, Any], words: str
) -> None:
    models = {"base-model": {"example_tokens": 1000}}
    with pytest.raises(ConfigError, match=words):
        check(training, size, facts(models=models, **more), "base-model")
    check([GOOD] * 2, 10, facts(models=models), "base-model")
