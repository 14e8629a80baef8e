"""One endpoint: answers, retries, errors in plain words, limits, and a key that never shows."""

from __future__ import annotations

import logging
import random
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest

from rmft.errors import AnswerError, ConfigError, EndpointError, HostedError
from rmft.providers.answers import Answer, TokenLogprob
from rmft.providers.connection import Connection
from rmft.providers.faults import asked_to_wait
from rmft.providers.keys import Key, find_key, hide
from vendor import KEY, Vendor, serving

REQUEST = {"model": "base-model", "messages": [{"role": "user", "content": "Choose."}]}


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    with serving(Vendor()) as running:
        yield running


def connect(vendor: Vendor, **settings: Any) -> Connection:
    settings = {"key": Key("VENDOR_KEY", KEY), "retries": 4, "first_pause": 0.01, "timeout": 60.0} | settings
    return Connection(base_url=vendor.url, **settings)


def test_an_answer_is_what_the_endpoint_said(vendor: Vendor) -> None:
    with connect(vendor) as connection:
        assert connection.chat(REQUEST) == Answer("7", "stop", prompt_tokens=12, completion_tokens=1)
    assert vendor.bodies == [REQUEST]


def test_logprobs_are_read(vendor: Vendor) -> None:
    """Of tokens without probability, which JSON has no number for, none."""
    found = {"7": -0.5, "8": -1.25, "9": -np.inf, "10": None}
    top = [{"token": token, "logprob": logprob} for token, logprob in found.items()]
    content = [{"token": "7", "logprob": -0.5, "top_logprobs": top}]
    choice = {"message": {"content": "7"}, "finish_reason": "stop", "logprobs": {"content": content}}
    vendor.reply = {"choices": [choice]}
    with connect(vendor) as connection:
        assert connection.chat(REQUEST).logprobs == (TokenLogprob("7", -0.5, {"7": -0.5, "8": -1.25}),)


def test_tokens_that_are_not_counted_are_estimated(vendor: Vendor) -> None:
    vendor.reply = {"usage": None, "choices": [{"message": {"content": "123456789"}}]}
    with connect(vendor) as connection:  # 9 characters and "Choose.", 7: 3 and 2 tokens of four
        assert connection.chat(REQUEST) == Answer("123456789", "", prompt_tokens=2, completion_tokens=3)


@pytest.mark.parametrize(
    "fault",
    [
        *(
            "status:429",
            "status:429:retry-after-ms=20",
            "status:408",
            "status:409",
            "status:500",
            "status:503",
        ),
        *("drop", "half", "torn", "wrong", 'wrong:{"choices": []}', "wrong:[1]", "wrong:<html>"),
        'wrong:{"choices": [{"message": {"content": 3}}]}',
        'wrong:{"choices": [{"message": {"content": "x"}, "logprobs": {"content": [3]}}]}',
    ],
)
def test_what_passes_is_tried_again(vendor: Vendor, fault: str) -> None:
    vendor.faults = [("chat", fault)] * 2
    with connect(vendor) as connection:
        assert connection.chat(REQUEST).text == "7"
    assert len(vendor.seen) == 3


def test_a_call_in_five_may_go_wrong(vendor: Vendor) -> None:
    luck = random.Random(0)
    kinds = ["status:429:retry-after-ms=10", "status:500", "drop", "half", "torn", "wrong"]
    vendor.chance = lambda: luck.choice(kinds) if luck.random() < 0.2 else None
    with connect(vendor, concurrency=16, retries=8) as connection, ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(connection.chat, [REQUEST] * 200))
    assert [answer.text for answer in answers] == ["7"] * 200
    assert len(vendor.bodies) == 200  # nothing was answered twice
    assert len(vendor.seen) > 220


def test_a_stall_ends_with_the_time_limit(vendor: Vendor) -> None:
    vendor.faults = [("chat", "stall")]
    with connect(vendor, timeout=0.2) as connection:
        assert connection.chat(REQUEST).text == "7"


def test_a_call_that_never_succeeds_is_an_answer_error(vendor: Vendor) -> None:
    vendor.faults = [("chat", "status:500")] * 9
    with connect(vendor) as connection:
        with pytest.raises(AnswerError, match="failed 5 times; at last HTTP 500") as caught:
            connection.chat(REQUEST)
        assert caught.value.status == 500
        vendor.faults = []
        assert connection.chat(REQUEST).text == "7"  # the connection goes on


def test_an_endpoint_that_is_not_there_is_told() -> None:
    with (
        Connection(base_url="http://127.0.0.1:9/v1", retries=8, first_pause=0.01) as connection,
        pytest.raises(
            EndpointError, match=r"127.0.0.1:9: .* failed 4 times; at last the connection failed.*address"
        ),
    ):
        connection.chat(REQUEST)


def test_retry_after_is_honoured(vendor: Vendor) -> None:
    vendor.faults = [("chat", "status:429:retry-after=0.4")]
    with connect(vendor) as connection:
        begun = time.monotonic()
        connection.chat(REQUEST)
        assert time.monotonic() - begun >= 0.4


def test_retry_after_is_read_in_all_its_forms() -> None:
    later = datetime.now(UTC) + timedelta(seconds=30)
    assert asked_to_wait({"retry-after": "1.5"}) == 1.5
    assert asked_to_wait({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert 28 < asked_to_wait({"retry-after": format_datetime(later, usegmt=True)}) <= 30
    for senseless in ("", "soon", "-5", "nan", "inf", "1e999"):
        assert asked_to_wait({"retry-after": senseless}) == 0


def test_an_endpoint_that_asks_for_an_hour_stops_the_run(vendor: Vendor) -> None:
    vendor.faults = [("chat", "status:429:retry-after=3600")]
    with connect(vendor) as connection, pytest.raises(EndpointError, match="wait 3600 s"):
        connection.chat(REQUEST)


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("status:429:code=insufficient_quota", EndpointError, "no money or quota left"),
        ("status:402", EndpointError, "no money or quota left"),
        ("status:403", EndpointError, r"refused the key \(VENDOR_KEY\)"),
        ("status:404", EndpointError, "knows no such model"),
        ("status:400", EndpointError, "does not take what was sent"),
        ("status:400:code=context_length_exceeded", AnswerError, "refused"),  # this conversation alone
    ],
)
def test_what_cannot_pass_stops_at_once(
    vendor: Vendor, fault: str, error: type[HostedError], words: str
) -> None:
    vendor.faults = [("chat", fault)]
    with connect(vendor) as connection, pytest.raises(error, match=words) as caught:
        connection.chat(REQUEST)
    assert caught.value.status == int(fault.split(":")[1])
    assert (caught.value.code or "") == fault.partition("code=")[2]
    assert len(vendor.seen) == 1


def test_what_must_not_be_done_twice_is_retried_only_where_nothing_was_done(vendor: Vendor) -> None:
    def read(body: Any) -> Any:
        return body["data"]

    vendor.faults = [("models", "status:429"), ("models", "drop")]
    with connect(vendor) as connection, pytest.raises(AnswerError, match="failed 2 times"):
        connection.request("GET", "/models", read, repeatable=False)
    assert len(vendor.seen) == 2


@pytest.mark.parametrize("fault", [None, "status:403", "status:500", "status:400"])
def test_the_key_never_shows(vendor: Vendor, fault: str | None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = KEY if fault else "sk-wrong-9876543210"  # the vendor echoes what it was sent
    vendor.faults = [("chat", fault or "none-of-them")] * 9 if fault else []
    with (
        connect(vendor, key=Key("VENDOR_KEY", secret), retries=1) as connection,
        pytest.raises((EndpointError, AnswerError)) as caught,
    ):
        connection.chat(REQUEST)
    told = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(connection.__dict__)
    assert secret not in told
    assert "[key]" in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_key_hides_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", f" {KEY}\n")
    key = find_key("SOME_KEY")
    assert key.reveal() == KEY
    assert KEY not in f"{key} {key!r} {[key]}"
    with pytest.raises(EndpointError, match="NO_SUCH_KEY is neither in the environment nor in the keyring"):
        find_key("NO_SUCH_KEY")
    monkeypatch.setenv("SOME_KEY", "sk with spaces")
    with pytest.raises(EndpointError, match="SOME_KEY holds is no key") as caught:
        find_key("SOME_KEY")
    assert "with spaces" not in str(caught.value).partition("it is empty")[0]


def test_keys_are_hidden_whole_and_as_servers_mask_them() -> None:
    said = f"Incorrect API key provided: sk-ab****************wxyz. You sent {KEY}!"
    assert hide(Key("K", KEY), said) == "Incorrect API key provided: [key] You sent [key]!"
    assert hide(None, said).endswith(f"[key] You sent {KEY}!")


def test_64_calls_are_on_the_way_at_once(vendor: Vendor) -> None:
    vendor.together = threading.Barrier(64, timeout=120)  # nobody is answered until all have asked
    settings = {"concurrency": 64, "retries": 0, "timeout": 120.0}
    with connect(vendor, **settings) as connection, ThreadPoolExecutor(64) as threads:
        answers = list(threads.map(connection.chat, [REQUEST] * 64))
    assert len(answers) == 64


def test_no_more_than_allowed_are_on_the_way_at_once(vendor: Vendor) -> None:
    vendor.delay = 0.02
    with connect(vendor, concurrency=3) as connection, ThreadPoolExecutor(12) as threads:
        list(threads.map(connection.chat, [REQUEST] * 12))
    assert vendor.most_in_flight == 3


def test_requests_and_tokens_per_minute_are_kept(vendor: Vendor) -> None:
    with connect(vendor, requests_per_minute=600) as connection, ThreadPoolExecutor(65) as threads:
        begun = time.monotonic()
        list(threads.map(connection.chat, [REQUEST] * 65))  # 60 at once, then 10 a second
        assert time.monotonic() - begun >= 0.4
    with connect(vendor, tokens_per_minute=60_000) as connection:  # 1000 a second, at most 6000 at once
        connection.chat(REQUEST, tokens=6500)
        level = connection._tokens._now()
        assert 5987 - 1 <= level <= 6000  # 13 were used, so that the rest has come back
        begun = time.monotonic()
        vendor.reply = {"usage": {"prompt_tokens": 6000, "completion_tokens": 400}}
        connection.chat(REQUEST, tokens=100)
        vendor.reply = {}
        connection.chat(REQUEST, tokens=1)  # 6400 were used, some 400 too many
        assert time.monotonic() - begun >= 0.3


def test_closing_ends_what_is_on_the_way(vendor: Vendor) -> None:
    vendor.gate = ("chat", "before")
    connection = connect(vendor)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(connection.chat, REQUEST)
        assert vendor.reached.wait(60)
        connection.close()
        with pytest.raises(AnswerError, match="closed"):
            answer.result(60)
    connection.close()
    with pytest.raises(AnswerError, match="closed"):
        connection.chat(REQUEST)


def test_azure_is_asked_by_deployment(vendor: Vendor) -> None:
    vendor.deployed = {"base-model"}
    url = vendor.url.removesuffix("/v1")
    with Connection(base_url=url, key=Key("K", KEY), azure_api_version="2024-10-21") as connection:
        assert connection.chat(REQUEST).text == "7"
    assert vendor.seen == [("POST", "/openai/deployments/base-model/chat/completions")]


@pytest.mark.parametrize("address", ["", "localhost:8000/v1", "ftp://x/v1", "http://"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="is no address") if address else pytest.raises(ConfigError):
        Connection(base_url=address or "x", key=None)
