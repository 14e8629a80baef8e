"""Chat completions: what was asked becomes answers that are written, and these become the API's JSON."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import numpy as np
from fastapi import Request
from fastapi.responses import JSONResponse, Response

from rmft.server.grammar import legal_tokens
from rmft.server.models import Base
from rmft.server.refusals import INTERNAL, ApiError
from rmft.server.schemas import ChatRequest, JsonFormat
from rmft.server.store import now
from rmft.server.writing import BROKEN, Piece, Wishes, Writer

LOOKING = 0.5  # seconds between two looks at whether a client still waits
DEFAULT_TOKENS = 1024  # of an answer for which no limit is given, where the context has room


class Pieces:
    """What is written for one request, in pieces that come from the thread that writes them.

    loop: where they are told; made in any thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pieces: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        self.writers: list[Writer] = []

    def receiver(self, index: int) -> Callable[[Piece], None]:
        """What takes the pieces of writer number `index` in the thread that writes them."""

        def receive(piece: Piece) -> None:
            with suppress(RuntimeError):  # the server has ended
                self._loop.call_soon_threadsafe(self._pieces.put_nowait, (index, piece))

        return receive

    def cancel(self) -> None:
        """Nobody waits any more."""
        for writer in self.writers:
            writer.cancelled.set()

    async def all_pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Pieces with the number of their writer. Raises ApiError (500) when one fails."""
        going_on = len(self.writers)
        while going_on:
            index, piece = await self._pieces.get()
            if piece.failure is not None:
                raise ApiError(INTERNAL, status=500, code="internal_error") from piece.failure
            going_on -= piece.finish is not None
            yield index, piece

    async def whole(self) -> dict[str, Any]:
        """The finished answer."""
        raise NotImplementedError


async def answered(pieces: Pieces, request: Request) -> Response:
    """The whole answer, or nothing once the client has gone."""
    writing = asyncio.ensure_future(pieces.whole())
    while not writing.done():
        await asyncio.wait([writing], timeout=LOOKING)
        if not writing.done() and await request.is_disconnected():
            pieces.cancel()
            writing.cancel()
            return Response(status_code=499)
    return JSONResponse(writing.result())


class Answers(Pieces):
    """The answers to one request, as they are written.

    loop: where they are told; made in any thread, since a long chat takes a while to be read. Raises ApiError
    (400) when the chat does not fit the model's context or can't be told to the model.
    """

    def __init__(self, request: ChatRequest, base: Base, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._request, self._base = request, base
        self._id, self._created = f"chatcmpl-{secrets.token_hex(12)}", now()
        prompt = base.conversations.prompt(request.messages)
        wishes = Wishes(
            limit=_limit(len(prompt), request, base.context),
            temperature=request.temperature,
            top_p=request.top_p,
            stops=request.stops,
            top=(request.top_logprobs or 0) if request.logprobs else 0,
            legal=legal_tokens(request.response_format.json_schema.json_schema, base.encode)
            if isinstance(request.response_format, JsonFormat)
            else None,
        )
        self._usage = {"prompt_tokens": len(prompt), "completion_tokens": 0, "total_tokens": len(prompt)}
        seed = request.seed if request.seed is not None else secrets.randbits(63)
        self.writers = [
            Writer(
                prompt,
                wishes,
                np.random.default_rng((seed % 2**64, index)),
                base.tokenizer,
                base.conversations.stop_ids,
                self.receiver(index),
            )
            for index in range(request.n)
        ]

    async def _counted(self) -> AsyncIterator[tuple[int, Piece]]:
        """All pieces, their tokens counted."""
        async for index, piece in self.all_pieces():
            self._usage["completion_tokens"] += len(piece.tokens)
            self._usage["total_tokens"] += len(piece.tokens)
            yield index, piece

    async def whole(self) -> dict[str, Any]:
        """The finished completion."""
        choices: list[list[Piece]] = [[] for _ in self.writers]
        try:
            async for index, piece in self._counted():
                choices[index].append(piece)
        finally:
            self.cancel()
        return {
            **self._head("chat.completion"),
            "choices": [
                {
                    "index": index,
                    "message": {
                        "role": "assistant",
                        "content": "".join(piece.text for piece in pieces),
                        "refusal": None,
                    },
                    "logprobs": self._logprobs(pieces),
                    "finish_reason": pieces[-1].finish,
                }
                for index, pieces in enumerate(choices)
            ],
            "usage": self._usage,
        }

    async def streamed(self) -> AsyncIterator[str]:
        """The same in chunks, as server-sent events."""
        try:
            for index in range(len(self.writers)):
                yield self._chunk(index, {"role": "assistant", "content": ""}, None, None)
            async for index, piece in self._counted():
                delta = {"content": piece.text} if piece.text or piece.tokens else {}
                yield self._chunk(index, delta, self._logprobs([piece]), piece.finish)
            if self._request.stream_options.include_usage:
                head = self._head("chat.completion.chunk")
                yield _event({**head, "choices": [], "usage": self._usage})
            yield "data: [DONE]\n\n"
        except ApiError as error:
            yield _event(error.body())
        finally:
            self.cancel()

    def _head(self, kind: str) -> dict[str, Any]:
        about = {"model": self._request.model, "service_tier": None, "system_fingerprint": None}
        return {"id": self._id, "object": kind, "created": self._created, **about}

    def _chunk(
        self, index: int, delta: dict[str, str], logprobs: dict[str, Any] | None, finish: str | None
    ) -> str:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return _event({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _logprobs(self, pieces: list[Piece]) -> dict[str, Any] | None:
        if not self._request.logprobs:
            return None
        told = [
            {
                **self._told(token.id, token.logprob),
                "top_logprobs": [self._told(*likely) for likely in token.top],
            }
            for piece in pieces
            for token in piece.tokens
        ]
        return {"content": told, "refusal": None}

    def _told(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._base.tokenizer.decode([token])
        assert isinstance(text, str)
        whole = None if BROKEN in text else list(text.encode())  # else its bytes are not told by its text
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": whole}


def _limit(prompt: int, request: ChatRequest, context: int) -> int:
    """The most tokens of an answer. Raises ApiError (400) when they do not fit beside the prompt."""
    asked = request.most_tokens
    check_length(prompt, asked, context, "messages")
    return asked or min(DEFAULT_TOKENS, context - prompt)


def check_length(prompt: int, asked: int | None, context: int, param: str) -> None:
    """Raises ApiError (400) when a prompt and an answer of so many tokens are more than the model reads."""
    if prompt + (asked or 1) > context:
        wanted = f" and an answer of up to {asked}" if asked else ""
        raise ApiError(
            f"The {'row' if param == 'prompt' else 'chat'} has {prompt} tokens{wanted}; the model reads "
            f"{context} in all. Shorten it, or ask for fewer tokens.",
            code="context_length_exceeded",
            param=param,
        )


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"
