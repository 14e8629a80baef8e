"""One endpoint: requests in flight, retries, rate limits, and errors in plain words.

The only file that imports the `openai` SDK and its HTTP client. The SDK builds the requests (addresses,
headers, Azure's differences, uploads) and sends them; its own retries are off, so that there is one place.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

import httpx2
import openai

from rmft.errors import AnswerError, ConfigError, EndpointError, HostedError
from rmft.providers.answers import Answer, read_answer
from rmft.providers.faults import Again, judge_connection, judge_status
from rmft.providers.keys import Key

Result = TypeVar("Result")
OPENAI_URL = "https://api.openai.com/v1"
LONGEST_PAUSE = 60.0  # seconds between two attempts, unless the endpoint asks for more
LONGEST_WAIT = 600.0  # seconds that an endpoint may ask to wait; beyond that the run stops, to be resumed
UPLOAD_SECONDS = 600.0
UNREACHED = 3  # retries while nothing has ever answered: most likely the address is wrong
BURST_SECONDS = 6.0  # of a rate may be used at once; providers enforce a minute's limit in shorter spans


class Connection:
    """Blocking calls from any thread; its event loop runs in a thread of its own until `close`."""

    def __init__(
        self,
        *,
        base_url: str | None = None,
        key: Key | None = None,
        azure_api_version: str | None = None,
        concurrency: int = 64,
        retries: int = 8,
        timeout: float = 120.0,
        first_pause: float = 0.5,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> None:
        """base_url: up to and without /chat/completions; None: OpenAI's. key: None where none is needed.

        azure_api_version: makes it an Azure OpenAI resource, at https://NAME.openai.azure.com. retries: after
        the first attempt, with pauses that double from first_pause (s); fewer while nothing has ever
        answered. timeout: of one attempt (s). concurrency: requests on the way at once. Raises ConfigError
        for an address that is none.
        """
        address = urlsplit(base_url or OPENAI_URL)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ConfigError(f"'{base_url}' is no address; expected one such as {OPENAI_URL}.")
        self.host = address.netloc.rpartition("@")[2]
        self.retries, self.timeout, self.first_pause = retries, timeout, first_pause
        self._key = key
        self._reached = False  # whether anything has ever answered
        self._client = _client(base_url or OPENAI_URL, key, azure_api_version, concurrency, timeout)
        self._slots = asyncio.Semaphore(concurrency)
        self._requests, self._tokens = Bucket(requests_per_minute), Bucket(tokens_per_minute)
        self._luck = random.Random()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rmft-connection", daemon=True)
        self._thread.start()

    def chat(self, request: Mapping[str, Any], tokens: int = 0) -> Answer:
        """The answer to a chat completion's `request`: model, messages, ... as the API names them.

        tokens: how many the request and its answer will have, about, for the limit on tokens per minute.
        Raises EndpointError when no call can succeed, AnswerError when this one failed after all retries.
        """

        def read(body: Any) -> Answer:
            answer = read_answer(body, request)
            self._tokens.correct(answer.prompt_tokens + answer.completion_tokens - tokens)
            return answer

        return self.request("POST", "/chat/completions", read, body=request, tokens=tokens)

    def request(
        self,
        method: Literal["GET", "POST"],
        path: str,
        read: Callable[[Any], Result],
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        file: Path | None = None,
        repeatable: bool = True,
        tokens: int = 0,
    ) -> Result:
        """What `read` makes of the JSON that the endpoint answers at `path`, such as /files.

        file: sent as the form's field `file`, beside the fields of `body`. repeatable: False for requests
        that must not be done twice; they are retried only where it is sure that nothing was done. `read`
        raises ValueError for what it can't use, which counts as a failed attempt; it is called in the loop.
        tokens: see `chat`. Raises as that does.
        """
        options: Any = {"params": dict(query or {})}
        seconds = self.timeout if file is None else UPLOAD_SECONDS
        if file is not None:
            options |= {"headers": {"Content-Type": "multipart/form-data"}, "timeout": seconds}

        async def send() -> httpx2.Response:
            if method == "GET":
                return await self._client.get(path, cast_to=httpx2.Response, options=options)
            form = None if file is None else {"file": (file.name, file.read_bytes(), "application/jsonl")}
            return await self._client.post(
                path, cast_to=httpx2.Response, body=dict(body or {}), files=form, options=options
            )

        async def once() -> Result:
            return await self._once(f"{method} {path}", send, read, seconds)

        return self._wait(self._attempts(f"{method} {path}", once, repeatable, tokens))

    def close(self) -> None:
        """Cancel what is on the way, whose callers get an AnswerError, and end the thread."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What `work` returns, from any thread but the loop's."""
        if self._loop.is_closed():
            work.close()
            raise AnswerError(f"The connection to {self.host} is closed.")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except HostedError:
            raise
        except BaseException as error:
            if future.cancelled():
                raise AnswerError(f"The connection to {self.host} was closed during a request.") from None
            future.cancel()  # the caller was interrupted: nobody waits for the answer any more
            raise error

    async def _attempts(
        self, what: str, once: Callable[[], Coroutine[Any, Any, Result]], repeatable: bool, tokens: int
    ) -> Result:
        for attempt in range(self.retries + 1):
            await self._requests.take(1)
            await self._tokens.take(tokens)
            try:
                async with self._slots:
                    return await once()
            except Again as fault:
                nobody = fault.nothing_done and not self._reached
                retries = min(self.retries, UNREACHED) if nobody else self.retries
                if attempt >= retries or not (repeatable or fault.nothing_done):
                    times = f"{attempt + 1} times" if attempt else "once"
                    failed = f"{self.host}: {what} failed {times}; at last {fault.reason}"
                    if nobody:
                        advice = "Nothing has answered there: check the address, and that the server runs."
                        raise EndpointError(f"{failed}. {advice}") from None
                    raise AnswerError(failed, status=fault.status) from None
                pause = self.first_pause * 2 ** min(attempt, 16) * self._luck.uniform(0.5, 1.0)
                await asyncio.sleep(max(min(pause, LONGEST_PAUSE), self._asked_to_wait(fault)))
        raise AssertionError("the last attempt returns or raises")

    async def _once(
        self,
        what: str,
        send: Callable[[], Coroutine[Any, Any, httpx2.Response]],
        read: Callable[[Any], Result],
        seconds: float,
    ) -> Result:
        """One attempt. Raises Again where another one may succeed, and EndpointError or AnswerError."""
        try:
            async with asyncio.timeout(seconds):
                response = await send()
        except TimeoutError:
            raise Again(f"there was no answer within {seconds:g} s") from None
        except openai.APIStatusError as error:
            self._reached = True
            headers = error.response.headers
            raise judge_status(
                error.status_code, headers, error.body, error.message, self.host, what, self._key
            ) from None
        except openai.APIConnectionError as error:
            unsent = isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout)
            raise judge_connection(error.__cause__ or error, unsent, self._key) from None
        self._reached = True
        try:
            return read(response.json())
        except (ValueError, RecursionError) as error:  # also broken JSON and broken UTF-8
            raise Again(f"its answer can't be used: {error!s:.200}", status=response.status_code) from None

    def _asked_to_wait(self, fault: Again) -> float:
        if fault.wait > LONGEST_WAIT:
            raise EndpointError(
                f"{self.host} asks to wait {fault.wait:.0f} s before the next request ({fault.reason}). "
                "Nothing is lost: resume the run then.",
                status=fault.status,
            )
        return fault.wait

    async def _shut(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.close()
        await self._loop.shutdown_default_executor()


def _client(
    base_url: str, key: Key | None, azure_api_version: str | None, concurrency: int, timeout: float
) -> openai.AsyncOpenAI:
    secret = "none" if key is None else key.reveal()  # the SDK takes no empty key
    limits = httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    http = openai.DefaultAsyncHttpxClient(limits=limits, timeout=timeout)
    shared: Any = {"api_key": secret, "max_retries": 0, "timeout": timeout, "http_client": http}
    client: openai.AsyncOpenAI
    if azure_api_version is None:
        client = openai.AsyncOpenAI(base_url=base_url, **shared)
    else:
        client = openai.AsyncAzureOpenAI(azure_endpoint=base_url, api_version=azure_api_version, **shared)
    if urlsplit(base_url).hostname != urlsplit(OPENAI_URL).hostname:
        client.organization = client.project = None  # the environment's are OpenAI's business only
    client.admin_api_key = None
    return client


class Bucket:
    """Lets `per_minute` units pass per minute, in bursts of at most a tenth of that; None: no limit.

    What is taken may exceed the bucket: it then waits until the bucket is full and leaves a debt, so that
    large requests pass, too, and the rate holds on average.
    """

    def __init__(self, per_minute: int | None) -> None:
        self.rate = None if per_minute is None else per_minute / 60.0
        self.capacity = 0.0 if self.rate is None else max(1.0, self.rate * BURST_SECONDS)
        self._level = self.capacity
        self._filled = time.monotonic()

    async def take(self, amount: float) -> None:
        """Wait until `amount` units may pass."""
        if self.rate is None or amount <= 0:
            return
        while (missing := min(amount, self.capacity) - self._now()) > 0:
            await asyncio.sleep(missing / self.rate)
        self._level -= amount

    def correct(self, amount: float) -> None:
        """Take `amount` more (or, negative, less) than was taken before, without waiting."""
        if self.rate is not None:
            self._level = min(self.capacity, self._now() - amount)

    def _now(self) -> float:
        now = time.monotonic()
        if self.rate is not None:
            self._level = min(self.capacity, self._level + (now - self._filled) * self.rate)
        self._filled = now
        return self._level
