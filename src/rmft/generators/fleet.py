"""Servers that hold one model each and answer alike: vLLM's, or `rmft serve`. Rows of a dead one move on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from threading import Thread
from typing import Any, TypeVar

import httpx2

from rmft.errors import EndpointError
from rmft.providers.keys import Key, hide

ATTEMPTS, PAUSE = 2, 0.5  # of a request to a server that is there and fails; seconds between them
PING_SECONDS = 10.0
CONNECTIONS = 256  # at each server

Answer = TypeVar("Answer")

Ask = tuple[str, Mapping[str, Any]]
"""A server's address, and the body of a completion's request."""


class RefusalError(Exception):
    """A server answered that it won't: its status, and its reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _DownError(Exception):
    """A server gave no answer of use."""


class Fleet:
    """The servers at `urls`, each up to and with /v1, and which of them are alive.

    timeout: seconds that an answer may take. say: hears of servers that stop answering. Requests of several
    threads are on their way together.
    """

    def __init__(self, urls: Sequence[str], key: Key | None, timeout: float) -> None:
        self.urls = [url.rstrip("/") for url in urls]
        self.alive: list[str] = []
        self.say: Callable[[str], None] = lambda _: None
        self._key = key
        self._reasons: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="fleet", daemon=True)
        self._thread.start()
        headers = {} if key is None else {"authorization": f"Bearer {key.reveal()}"}
        most = CONNECTIONS * len(self.urls)
        limits = httpx2.Limits(max_connections=most, max_keepalive_connections=most)
        times = httpx2.Timeout(timeout, connect=PING_SECONDS)
        self._client = httpx2.AsyncClient(headers=headers, limits=limits, timeout=times, trust_env=False)

    def look(self) -> list[str]:
        """Ask all servers for their models, so that those that are back are alive; their addresses.

        Raises EndpointError when none answers.
        """

        async def look() -> list[Any]:
            return await asyncio.gather(*(self._models(url) for url in self.urls))

        answers = self._run(look())
        self.alive = [url for url, answer in zip(self.urls, answers, strict=True) if answer is not None]
        self.some_alive()
        self.models = dict(zip(self.urls, answers, strict=True))
        return self.alive

    def some_alive(self) -> list[str]:
        """The addresses of those alive. Raises EndpointError when there are none."""
        if not self.alive:
            why = "; ".join(f"{url}: {self._reasons.get(url, 'no answer')}" for url in self.urls)
            raise EndpointError(
                f"No server of policy.engine.urls answers ({why}). Nothing is lost: start one, and resume "
                "the run."
            )
        return self.alive

    def call(self, url: str, path: str, body: Mapping[str, Any]) -> Any:
        """What one server answers. path: from the address on, such as /completions; ../x: beside /v1.

        Raises RefusalError; None when the server is dead, which it is then for good.
        """
        return self._run(self._asked(url, path, body))

    def ask(self, asks: Sequence[Ask]) -> list[Any]:
        """The completions of many requests at once; None where the server has died.

        Raises EndpointError when one refuses.
        """

        async def all_of_them() -> list[Any]:
            work = [asyncio.create_task(self._asked(url, "/completions", body)) for url, body in asks]
            try:
                return await asyncio.gather(*work)
            finally:
                for task in work:
                    task.cancel()

        try:
            return self._run(all_of_them())
        except RefusalError as refusal:
            raise EndpointError(f"A server of policy.engine.urls refuses a request: {refusal}") from None

    def close(self) -> None:
        """End all connections."""
        self._run(self._client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """What it gives, waited for in the caller's thread; whatever ends the waiting ends the work."""
        found = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return found.result()
        finally:
            found.cancel()

    async def _models(self, url: str) -> Any:
        try:
            async with asyncio.timeout(PING_SECONDS):
                answer = await self._sent("GET", f"{url}/models", None)
            return {str(model["id"]): model for model in answer["data"]}
        except (_DownError, RefusalError, TimeoutError, KeyError, TypeError) as error:
            self._reasons[url] = str(error) or f"no answer in {PING_SECONDS:g} s"
            return None

    async def _asked(self, url: str, path: str, body: Mapping[str, Any]) -> Any:
        address = url.removesuffix("/v1") + path[2:] if path.startswith("..") else url + path
        for attempt in range(ATTEMPTS):
            if url not in self.alive:
                return None
            try:
                return await self._sent("POST", address, body)
            except RefusalError as refusal:
                if path == "/completions" and refusal.status == 404:  # restarted without its adapter
                    self._died(url, str(refusal))
                    return None
                raise
            except _DownError as error:
                if attempt + 1 == ATTEMPTS:
                    self._died(url, str(error))
                    return None
                await asyncio.sleep(PAUSE)
        return None

    async def _sent(self, method: str, address: str, body: Mapping[str, Any] | None) -> Any:
        try:
            response = await self._client.request(method, address, json=body)
        except httpx2.TimeoutException as error:
            raise _DownError(f"no answer in time ({type(error).__name__})") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise _DownError(hide(self._key, str(error) or type(error).__name__)) from None
        if response.status_code >= 500 or response.status_code == 429:
            raise _DownError(f"HTTP {response.status_code}")
        try:
            answer = response.json() if "json" in response.headers.get("content-type", "") else response.text
        except ValueError:
            raise _DownError("an answer that is no JSON") from None
        if response.status_code >= 400:
            raise RefusalError(response.status_code, hide(self._key, _reason(answer))[:500])
        return answer

    def _died(self, url: str, reason: str) -> None:
        if url in self.alive:
            self.alive.remove(url)
            self._reasons[url] = reason
            self.say(f"{url} no longer answers ({reason}); its rows move to another server.")


def _reason(answer: Any) -> str:
    """What an error's body says, in OpenAI's shape or another."""
    if isinstance(answer, dict):
        inner = answer.get("error", answer)
        if isinstance(inner, dict):
            return str(inner.get("message") or inner.get("detail") or inner)
        return str(inner)
    return str(answer)
