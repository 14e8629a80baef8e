"""A model's chat as tokens that are only ever appended to.

A chat template renders a whole conversation, and may render earlier turns anew each time (Qwen3's drops
earlier reasoning). Here its constant pieces are found once, by rendering sentinels in place of messages
and cutting there; from then on every turn is the pieces around what is told, and what was said stays as
it was. Where a template leaves earlier turns alone, the tokens are those of its own rendering.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from rmft.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SYSTEM, *_SAID = [f"qz{index}zq" for index in range(6)]  # then user, model, user, model, user
_BLANK = "\t"
_TODAY = (  # before templates that tell the date: what a run tells must not depend on the day
    "{%- macro strftime_now(format) -%}{{- format.replace('%Y', '2024').replace('%m', '07')"
    ".replace('%B', 'July').replace('%b', 'Jul').replace('%d', '26') -}}{%- endmacro -%}"
)


def with_date(template: str) -> str:
    """The template, telling the same date every day."""
    return _TODAY + template


class ChatFormat:
    """How one model's chats are written. Make it with `from_tokenizer`.

    stop_ids: the tokens by which the model ends its turn. thinks: whether its turn begins in a thought that
    the template has opened.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, opening: _Pieces, turn: _Pieces, stop_ids: Iterable[int]
    ) -> None:
        self._tokenizer, self._opening, self._turn = tokenizer, opening, turn
        self.thinks = _thinks(opening.texts[-1])
        template = tokenizer.get_chat_template()
        control = {
            str(token)
            for token in tokenizer.added_tokens_decoder.values()
            if token.special or (str(token) in template and not str(token).isspace())
        }
        by_length = sorted((token for token in control if len(token) > 1), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, by_length)) or "(?!)")
        self.stop_ids = frozenset((*stop_ids, *self._end_of_turn()))
        if not self.stop_ids:
            raise ConfigError(
                f"The model '{tokenizer.name_or_path}' has no token that ends its turn; set 'eos_token' in "
                "its tokenizer_config.json."
            )

    @classmethod
    def from_tokenizer(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        *,
        thinking: bool = False,
        system: bool = True,
        stop_ids: Iterable[int] = (),
    ) -> ChatFormat:
        """The format of `tokenizer`'s chat template.

        thinking: whether a model that was trained to reason before it answers is to do so, in its own way.
        system: whether chats begin with a system message; without, a template may put one of its own there.
        stop_ids: tokens that end the model's turn beside the tokenizer's own, such as those of its
        generation config. Raises ConfigError for a tokenizer without a template, and for a template that
        is not made of constant pieces.
        """
        name = tokenizer.name_or_path
        if not tokenizer.chat_template:
            raise ConfigError(
                f"The model '{name}' has no chat template, so it does not know turns. Choose one that was "
                "trained for chats; their names often end in -Instruct or -it."
            )
        if tokenizer.eos_token_id is not None:
            stop_ids = (*stop_ids, int(tokenizer.eos_token_id))
        for folded in (False, True) if system else (True,):
            try:
                opening, turn = _cut(tokenizer, thinking, folded)
                break
            except (TemplateError, ValueError, TypeError, LookupError, AttributeError) as error:
                refusal = " ".join(str(error).split())
        else:
            raise ConfigError(
                f"The chat template of '{name}' can't be used: {refusal:.300}. Expected one that writes "
                "constant text around the messages of a user and the model, which take turns."
            )
        return cls(tokenizer, opening, turn, stop_ids)

    def opening(self, system: str, user: str) -> list[int]:
        """Tokens of the first messages, up to where the model begins to write.

        Where the format has no place for a system message, `system` goes before the user's words.
        """
        if len(self._opening.strips) == 1:
            return self._encode(self._opening, f"{system}\n\n{user}" if system else user)
        return self._encode(self._opening, system, user)

    def turn(self, user: str) -> list[int]:
        """Tokens from right after what the model wrote, without its end-of-turn, to where it goes on."""
        return self._encode(self._turn, user)

    def completion(self, text: str) -> list[int]:
        """Tokens of what the model wrote in a turn, where only its text is known; without its end-of-turn."""
        return self._encode(_VERBATIM, text)

    def _encode(self, pieces: _Pieces, *messages: str) -> list[int]:
        """Tokens of the pieces and what is between them, where a control token's name is only text."""
        texts = [pieces.texts[0]]
        for message, strips, piece in zip(messages, pieces.strips, pieces.texts[1:], strict=True):
            rest = message.strip() if strips else message
            while found := self._control.search(rest):
                cut = found.start() + 1
                texts[-1] += rest[:cut]
                texts.append("")
                rest = rest[cut:]
            texts[-1] += rest + piece
        return [token for text in texts for token in self._ids(text)]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _end_of_turn(self) -> list[int]:
        """The control token that the template puts after what the model wrote, if it puts one there."""
        found = self._control.match(self._turn.texts[0].lstrip())
        return self._ids(found[0]) if found else []


class _Pieces:
    """The constant text around the messages in `rendered`, which holds them in this order.

    strips: whether the template strips each message. Raises ValueError when it can't be cut like this.
    """

    def __init__(self, rendered: str, messages: Iterable[str]) -> None:
        self.texts: list[str] = []
        self.strips: list[bool] = []
        for message in messages:
            found = re.search(f"({_BLANK}?){message}({_BLANK}?)", rendered)
            if found is None:
                raise ValueError("it leaves out a message, or changes the order")
            self.texts.append(rendered[: found.start()])
            self.strips.append(not all(found.groups()))
            rendered = rendered[found.end() :]
        self.texts.append(rendered)
        if any(message in text for message in messages for text in self.texts):
            raise ValueError("it writes a message twice")


_VERBATIM = _Pieces(f"{_BLANK}{_SYSTEM}{_BLANK}", [_SYSTEM])  # one message, and nothing around it


def _cut(tokenizer: PreTrainedTokenizerBase, thinking: bool, folded: bool) -> tuple[_Pieces, _Pieces]:
    """The pieces of the opening and of a later turn; `folded`: without a system message.

    Raises ValueError, and whatever a template raises.
    """
    system = [] if folded else [_SYSTEM]
    opening = _Pieces(_render(tokenizer, system, _SAID[:1], thinking), [*system, *_SAID[:1]])
    turn = _Pieces(_render(tokenizer, system, _SAID, thinking), [*system, *_SAID])
    *start, answered, told, answered_again, told_again, end = turn.texts
    if (*start, answered, told, end) != (*opening.texts[:-1], answered_again, told_again, opening.texts[-1]):
        raise ValueError("it writes a turn in one way here and in another there")
    if not thinking:
        if answered.startswith(end):  # where the model has to say first that this is the answer
            end = answered
        if _thinks(end):  # where it always reasons first
            end += "\n</think>\n\n"
    opening.texts[-1] = end
    turn.texts, turn.strips = [told, end], turn.strips[-1:]
    return opening, turn


def _thinks(end: str) -> bool:
    """Whether what a template writes last opens a thought and leaves it open."""
    return end.count("<think>") > end.count("</think>")


def _render(tokenizer: PreTrainedTokenizerBase, system: list[str], said: list[str], thinking: bool) -> str:
    chat = [{"role": "system", "content": f"{_BLANK}{text}{_BLANK}"} for text in system]
    for index, text in enumerate(said):
        chat.append({"role": ("user", "assistant")[index % 2], "content": f"{_BLANK}{text}{_BLANK}"})
    rendered = tokenizer.apply_chat_template(
        chat,
        chat_template=with_date(str(tokenizer.get_chat_template())),
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=thinking,
    )
    return str(rendered)
