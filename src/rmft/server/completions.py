"""Completions of tokens: ids in, ids and log probabilities out, many rows in a request, as vLLM has them."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response

from rmft.generators.local import head_of
from rmft.server.answers import Pieces, answered, check_length
from rmft.server.models import Base
from rmft.server.refusals import ApiError
from rmft.server.schemas import CompletionRequest, TokenizeRequest
from rmft.server.service import Service
from rmft.server.store import now
from rmft.server.writing import Piece, Token, Wishes, Writer

LOWEST = -9999.0  # what stands for a log probability of minus infinity, which JSON does not have


class Completions(Pieces):
    """The rows of one request, as they are written; row i draws from the stream i of the request's seed.

    A row that ends by a stop token has that as its last token. Raises ApiError (400) for a row that does not
    fit the model's context, or a token that the model does not have.
    """

    def __init__(self, request: CompletionRequest, base: Base, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._request, self._base = request, base
        size = head_of(base.model).out_features
        rows = request.rows
        named = {token for row in rows for token in row}
        named |= {*(request.logprob_token_ids or ()), *(request.allowed_token_ids or ())}
        if not named or max(named) >= size:
            raise ApiError(
                f"Found the token {max(named, default=-1)}; the model '{base.name}' has 0 to {size - 1}.",
                code="invalid_value",
                param="prompt",
            )
        for row in rows:
            check_length(len(row), request.max_tokens, base.context, "prompt")
        seed = request.seed if request.seed is not None else secrets.randbits(63)
        wishes = Wishes(
            limit=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            stops=request.stops,
            top=request.logprobs or 0,
            asked=_ids(request.logprob_token_ids),
            allowed=_ids(request.allowed_token_ids),
            keeps_stop=True,
        )
        stop_ids = base.conversations.stop_ids | set(request.stop_token_ids)
        self.writers = [
            Writer(
                row,
                wishes,
                np.random.default_rng((seed % 2**64, index)),
                base.tokenizer,
                stop_ids,
                self.receiver(index),
            )
            for index, row in enumerate(rows)
        ]

    async def whole(self) -> dict[str, Any]:
        """The finished rows."""
        choices: list[list[Piece]] = [[] for _ in self.writers]
        try:
            async for index, piece in self.all_pieces():
                choices[index].append(piece)
        finally:
            self.cancel()
        read = sum(len(writer.prompt) for writer in self.writers)
        written = sum(len(piece.tokens) for pieces in choices for piece in pieces)
        return {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": now(),
            "model": self._request.model,
            "choices": [self._choice(index, pieces) for index, pieces in enumerate(choices)],
            "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
        }

    def _choice(self, index: int, pieces: list[Piece]) -> dict[str, Any]:
        tokens = [token for piece in pieces for token in piece.tokens]
        told: dict[str, Any] = {
            "index": index,
            "text": "".join(piece.text for piece in pieces),
            "finish_reason": pieces[-1].finish,
            "logprobs": None if self._request.logprobs is None else self._logprobs(tokens),
        }
        return told | (
            {"token_ids": [token.id for token in tokens]} if self._request.return_token_ids else {}
        )

    def _logprobs(self, tokens: list[Token]) -> dict[str, Any]:
        names = [self._name(token.id) for token in tokens]
        return {
            "tokens": names,
            "token_logprobs": [max(token.logprob, LOWEST) for token in tokens],
            "top_logprobs": [
                {self._name(one): max(logprob, LOWEST) for one, logprob in token.top} for token in tokens
            ],
            "text_offset": np.cumsum([0, *map(len, names)])[:-1].tolist(),
        }

    def _name(self, token: int) -> str:
        if self._request.return_tokens_as_token_ids:
            return f"token_id:{token}"
        text = self._base.tokenizer.decode([token])
        assert isinstance(text, str)
        return text


def _ids(given: list[int] | None) -> np.ndarray | None:
    return None if given is None else np.array(given, dtype=np.int64)


def completion_routes(service: Service) -> APIRouter:
    """`/completions`."""
    routes = APIRouter(tags=["completions"])

    @routes.post("/completions")
    async def create_completion(asked: CompletionRequest, request: Request) -> Response:
        base, folder = service.playing(asked.model)
        completions = await asyncio.to_thread(Completions, asked, base, asyncio.get_running_loop())
        service.generator.write(asked.model, folder, completions.writers)
        return await answered(completions, request)

    return routes


def tokenize_routes(service: Service) -> APIRouter:
    """`/tokenize`, which says which ids a text is to a model."""
    routes = APIRouter(tags=["completions"])

    @routes.post("/tokenize")
    async def tokenize(asked: TokenizeRequest) -> Any:
        base, _ = service.playing(asked.model)
        tokens = base.encode(asked.prompt)
        return {"count": len(tokens), "max_model_len": base.context, "tokens": tokens}

    return routes
