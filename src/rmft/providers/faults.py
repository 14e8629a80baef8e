"""What a failed request means: worth another attempt, the end of this call, or the end of all calls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from rmft.errors import AnswerError, EndpointError, HostedError
from rmft.providers.keys import Key, hide

TRANSIENT = {408, 409, 425, 429}  # and all from 500 on
NO_MONEY = {
    "billing_hard_limit_reached",
    "billing_not_active",
    "insufficient_quota",
    "access_terminated",
    "insufficient_credits",
}
THIS_CALL_ONLY = {
    "context_length_exceeded",
    "content_filter",
    "content_policy_violation",
    "invalid_prompt",
    "string_above_max_length",
}


class Again(Exception):
    """An attempt that failed in a way that another may not.

    reason: what happened, in words. wait: seconds that the endpoint asks to wait, 0 where it asks for
    nothing. nothing_done: whether the endpoint surely did nothing of what was asked.
    """

    def __init__(
        self, reason: str, *, status: int | None = None, wait: float = 0.0, nothing_done: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason, self.status, self.wait, self.nothing_done = reason, status, wait, nothing_done


def judge_connection(error: BaseException, unsent: bool, key: Key | None) -> Again:
    """What a connection that broke means. unsent: whether it did so before anything was sent."""
    words = hide(key, str(error)) or type(error).__name__
    return Again(f"the connection failed: {words:.200}", nothing_done=unsent)


def judge_status(
    status: int, headers: Mapping[str, str], body: object, message: str, host: str, what: str, key: Key | None
) -> Again | HostedError:
    """What an HTTP error means. body: the error in the answer's JSON, where it has one; message: else."""
    found = body if isinstance(body, dict) else {}
    code, param, kind = (_text(found.get(name)) for name in ("code", "param", "type"))
    inner = found.get("innererror")  # Azure's, which is more exact
    if isinstance(inner, dict):
        code = _text(inner.get("code")) or code
    said = _text(found.get("message")) or _text(found.get("detail")) or message
    said = hide(key, " ".join("".join(c if c.isprintable() else " " for c in said).split()))[:300]
    says = f"HTTP {status}: {said}" if said else f"HTTP {status}"
    named = key.variable if key else "none was sent"
    if status == 402 or {code, kind} & NO_MONEY:
        advice = "The account has no money or quota left. Add some, then resume the run."
    elif status in TRANSIENT or status >= 500:
        return Again(says, status=status, wait=asked_to_wait(headers), nothing_done=status == 429)
    elif status in (401, 403):
        advice = f"It refused the key ({named}). Check the key, and that it belongs to this endpoint."
    elif status == 404:
        advice = "It knows no such model, file or job, or has no such address. Check the name and base URL."
    elif {code, kind} & THIS_CALL_ONLY or "content_filter" in (code or ""):
        return AnswerError(f"{host} refused {what}: {says}", status=status, code=code, param=param)
    else:
        advice = "It does not take what was sent. Check the model's settings and what the endpoint can do."
    return EndpointError(f"{host}: {what}: {says}. {advice}", status=status, code=code, param=param)


def asked_to_wait(headers: Mapping[str, str]) -> float:
    """Seconds to wait by Retry-After-Ms or Retry-After (seconds or an HTTP date); 0 where it says none."""
    text, scale = headers.get("retry-after-ms"), 1e-3
    if text is None:
        text, scale = headers.get("retry-after", ""), 1.0
    try:
        seconds = float(text) * scale
    except ValueError:
        try:
            then = parsedate_to_datetime(text)
        except (ValueError, TypeError, OverflowError):
            return 0.0
        then = then if then.tzinfo else then.replace(tzinfo=UTC)
        seconds = (then - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _text(found: object) -> str | None:
    return found if isinstance(found, str) and found else None
