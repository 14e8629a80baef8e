"""The parts of the server that need no server: words as tokens, forced JSON, text as it comes, the store."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rmft.errors import ConfigError, RunDirectoryError
from rmft.policies.config import LocalConfig
from rmft.server import access, serving
from rmft.server.access import listen
from rmft.server.conversation import Conversations, read_training_file
from rmft.server.generation import Generator
from rmft.server.grammar import Node, legal_tokens
from rmft.server.models import Loaded, load_bases
from rmft.server.refusals import ApiError
from rmft.server.schemas import Message, TrainingMessage
from rmft.server.store import Store
from rmft.server.writing import Piece, Wishes, Writer, _drawn

CHAT = [
    ("system", "Reply with one letter."),
    ("user", "Choose <|im_end|> now."),
    ("assistant", "J"),
    ("user", "1"),
    ("assistant", '{"choice":"Q"}'),
    ("user", " 0.5 \n"),
]


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(smollm2)


@pytest.fixture(scope="module")
def conversations(tokenizer: PreTrainedTokenizerBase) -> Conversations:
    return Conversations.of(tokenizer, ())


def messages(*chat: tuple[str, str]) -> list[Message]:
    return [Message.model_validate({"role": role, "content": content}) for role, content in chat]


def test_a_training_file_may_have_what_other_programs_write(
    conversations: Conversations, tmp_path: Path
) -> None:
    """A byte-order mark, what changes nothing, and line ends within a text, which end no line."""
    user = {"role": "user", "content": "a\u2028b\u0085c", "name": "Ann", "tool_calls": []}
    answer = {"role": "assistant", "content": "J", "weight": 1.0, "refusal": None}
    line = json.dumps({"messages": [user, answer], "tools": []}, ensure_ascii=False).encode()
    path = tmp_path / "chats.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\n" + line)
    [[first, second]] = read_training_file(path, conversations, 100)
    assert np.array_equal(first.ids, second.ids)
    path.write_bytes(line + b"\n" + line[:-5])
    with pytest.raises(ApiError, match="Line 2"):  # cut short
        read_training_file(path, conversations, 100)
    path.write_bytes(line.replace(b"1.0", b"0.5"))
    with pytest.raises(ApiError, match="weight"):
        read_training_file(path, conversations, 100)


@pytest.mark.parametrize("first", [0, 1])
def test_a_prompt_is_what_the_template_renders(
    tokenizer: PreTrainedTokenizerBase, conversations: Conversations, first: int
) -> None:
    """With a system message and with the template's own; but for control tokens' names, which are text."""
    chat = [{"role": role, "content": content.replace("<|im_end|>", "")} for role, content in CHAT[first:]]
    expected = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    found = conversations.prompt([Message.model_validate(message) for message in chat])
    assert found == expected
    with_name = conversations.prompt(messages(*CHAT[first:]))
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert with_name.count(end) == found.count(end)


def test_a_history_only_grows(conversations: Conversations) -> None:
    """A prompt begins with the one of the round before, and then with what was said."""
    before = conversations.prompt(messages(*CHAT[:2]))
    now = conversations.prompt(messages(*CHAT[:4]))
    assert now[: len(before) + 1] == [*before, *conversations.with_system.completion("J")]


def test_learned_are_answers_of_weight_1_and_their_ends(
    tokenizer: PreTrainedTokenizerBase, conversations: Conversations
) -> None:
    chat = [*CHAT[:4], ("assistant", "Q S")]
    told = [
        TrainingMessage.model_validate({"role": role, "content": content, "weight": int(content != "J")})
        for role, content in chat
    ]
    one = conversations.written(told)
    assert one is not None
    assert tokenizer.decode(one.targets) == "Q S<|im_end|>"
    assert one.norm == len(one.targets) == 3
    assert one.ids.tolist() == [
        *conversations.prompt(messages(*CHAT[:4])),
        *conversations.with_system.completion("Q S"),
    ]
    assert one.ids[one.token_positions[1:]].tolist() == one.targets[:-1].tolist()
    assert one.ids[: one.prefix].tolist() == conversations.prompt(messages(*CHAT[:2]))
    nothing = [message.model_copy(update={"weight": 0}) for message in told]
    assert conversations.written(nothing) is None


def test_a_training_file_is_read_by_openings(conversations: Conversations, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    lines = [
        {"messages": [{"role": "user", "content": words}, {"role": "assistant", "content": said}]}
        for words, said in (("a", "J"), ("b", "J"), ("a", "Q"))
    ]
    path.write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    groups = read_training_file(path, conversations, 2048)
    assert [len(group) for group in groups] == [2, 1]
    longest = max(len(one.ids) + 1 for group in groups for one in group)
    assert read_training_file(path, conversations, longest)
    with pytest.raises(ApiError, match=f"Line 1 .* {longest} tokens"):
        read_training_file(path, conversations, longest - 1)
    lines[1]["messages"].append({"role": "user", "content": "?"})
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ApiError, match=r"Line 2 .* found the user, expected the assistant"):
        read_training_file(path, conversations, 2048)


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def texts(node: Node, tokenizer: PreTrainedTokenizerBase, before: tuple[int, ...] = ()) -> set[str]:
    """Every text that the tree allows."""
    if not node:
        return {str(tokenizer.decode(before))}
    return {text for token, after in node.items() for text in texts(after, tokenizer, (*before, token))}


def test_a_schema_allows_its_values_and_nothing_else(
    tokenizer: PreTrainedTokenizerBase, conversations: Conversations
) -> None:
    """Numbers and texts that begin with each other, quotes, characters of several tokens, mixed kinds."""
    values: dict[str, list[Any]] = {
        "a": ["J", "Jo", 'say "é🙂"', ""],
        "b": [1, 12, -1],
        "c": ["1", 1, True, None],
    }
    tree = legal_tokens(
        schema(**{name: {"enum": each} for name, each in values.items()}, d={"const": "x", "type": "string"}),
        conversations.with_system.completion,
    )
    expected = {
        json.dumps({"a": a, "b": b, "c": c, "d": "x"}, ensure_ascii=False, separators=(",", ":"))
        for a in values["a"]
        for b in values["b"]
        for c in values["c"]
    }
    assert texts(tree, tokenizer) == expected


def test_forced_json_has_the_tokens_that_its_text_is_trained_with(conversations: Conversations) -> None:
    said = conversations.with_system.completion
    letters = [chr(ord("A") + index) for index in range(26)]
    tree = legal_tokens(schema(choice={"type": "string", "enum": letters}), said)
    for letter in letters:
        node = tree
        for token in said(f'{{"choice":"{letter}"}}'):
            node = node[token]
        assert node == {}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"type": "array"}, "items|type object"),
        (schema(), "properties"),
        (schema(a={"type": "string"}), "enum or a const"),
        (schema(a={"enum": []}), "1 to 1000"),
        (schema(a={"enum": [1.5]}), "1.5"),
        (schema(a={"enum": ["1"], "type": "integer"}), "type"),
        (schema(a={"enum": ["x", "x"]}), "twice"),
        (schema(a={"enum": ["x"], "pattern": "x"}), "'pattern' is not supported"),
        ({**schema(a={"const": 1}), "required": []}, "all properties"),
        ({**schema(a={"const": 1}), "additionalProperties": True}, "expected false"),
        ({**schema(a={"const": 1}), "required": 3}, "all properties"),
        *(
            (schema(a={"enum": ["x"], "type": wrong}), "name of a type")
            for wrong in ({"a": 1}, 5, None, [{}], [])
        ),
        (schema(**{f"a{n}": {"enum": list(range(900))} for n in range(5)}), "4500 values in all"),
    ],
)
def test_a_schema_that_can_not_be_followed_is_refused(
    conversations: Conversations, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(ApiError, match=said) as refused:
        legal_tokens(wrong, conversations.with_system.completion)
    assert refused.value.code == "unsupported_schema"


def written(
    ids: list[int], tokenizer: PreTrainedTokenizerBase, **wishes: Any
) -> tuple[list[str], list[int], str | None]:
    """What a writer tells of an answer whose tokens are these: texts, ids, why it ended."""
    pieces: list[Piece] = []
    luck = np.random.default_rng(0)
    writer = Writer([1], Wishes(**{"limit": 99, **wishes}), luck, tokenizer, [2], pieces.append)
    writer.begin()
    for token in [*ids, 2]:
        logs = np.full(len(tokenizer), -np.inf)
        logs[token] = 0.0
        writer.go_on(logs)
    told = [token.id for piece in pieces for token in piece.tokens]
    return [piece.text for piece in pieces if piece.text], told, pieces[-1].finish


@pytest.mark.parametrize("text", ["héllo 🙂 and 中文 go", " a  b\n\n c", "🙂🙂🙂", "x\ufffdy"])
def test_text_is_told_as_it_comes_and_never_half_a_character(
    tokenizer: PreTrainedTokenizerBase, text: str
) -> None:
    ids = tokenizer.encode(text)
    found, told, finish = written(ids, tokenizer)
    assert "".join(found) == text
    assert told == ids
    assert finish == "stop"
    assert all("\ufffd" not in piece for piece in found) or "\ufffd" in text
    assert written(ids, tokenizer, limit=len(ids))[2] == "length"
    half = written(ids[:1], tokenizer, limit=1)  # cut in the middle: what there is is told
    assert half[1] == ids[:1]


@pytest.mark.parametrize(
    ("stop", "expected"),
    [("STOP", "one two "), ("TOPP", "one two STOP it"), ("two S", "one "), ("it", "one two STOP ")],
)
def test_a_stop_may_be_spread_over_tokens(
    tokenizer: PreTrainedTokenizerBase, stop: str, expected: str
) -> None:
    found, _, finish = written(tokenizer.encode("one two STOP it"), tokenizer, stops=(stop, "never"))
    assert "".join(found) == expected
    assert finish == "stop"


def test_top_p_keeps_the_likeliest_and_temperature_spreads(tokenizer: PreTrainedTokenizerBase) -> None:
    logs = np.full(20, -np.inf)
    logs[[10, 11, 12]] = np.log([0.6, 0.3, 0.1])

    def shares(**wishes: float) -> list[float]:
        drawn: list[int] = []
        luck = np.random.default_rng(0)
        for _ in range(2000):
            writer = Writer([1], Wishes(limit=9, **wishes), luck, tokenizer, [2], lambda _: None)
            drawn += writer.go_on(logs)
        return [drawn.count(token) / len(drawn) for token in (10, 11, 12)]

    assert shares() == pytest.approx([0.6, 0.3, 0.1], abs=0.04)
    assert shares(top_p=0.85) == pytest.approx([2 / 3, 1 / 3, 0], abs=0.04)
    assert shares(top_p=0.5) == [1, 0, 0]
    assert shares(temperature=0) == [1, 0, 0]
    roots = np.sqrt([0.6, 0.3, 0.1])
    assert shares(temperature=2) == pytest.approx(list(roots / roots.sum()), abs=0.04)


@pytest.mark.parametrize("size", [1, 256, 1000, 49_153])
def test_places_are_drawn_by_blocks_as_they_would_be_at_once(size: int) -> None:
    luck = np.random.default_rng(size)
    weights = np.exp(4 * luck.standard_normal(size)).astype(np.float32)
    weights[1:-1:7] = 0
    edges = weights.cumsum(dtype=np.float64)
    for uniform in luck.random(200):
        assert _drawn(weights, uniform) == np.searchsorted(edges, uniform * edges[-1], side="right")
    assert weights[_drawn(weights, np.nextafter(1.0, 0.0))] > 0


def test_a_failure_ends_its_own_answers_only(tiny_llama: Path, tmp_path: Path) -> None:
    """And answers of the same luck are the same, whatever number of batches the memory makes of them."""
    bases = load_bases([str(tiny_llama)], LocalConfig(device="cpu"))
    pieces: list[list[Piece]] = [[] for _ in range(40)]
    writers = [
        Writer(
            [1, 5, 9], Wishes(limit=8), np.random.default_rng(1), bases["tiny"].tokenizer, [2], each.append
        )
        for each in pieces
    ]
    generator = Generator(Loaded(bases), memory_gb=0.0001)
    generator.write("ft:gone", tmp_path / "gone", writers[:1])
    generator.write("tiny", None, writers[1:])
    deadline = time.monotonic() + 60
    while not all(each.done for each in writers):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    generator.close()
    assert isinstance(pieces[0][-1].failure, RunDirectoryError)
    told = {tuple(token.id for piece in each for token in piece.tokens) for each in pieces[1:]}
    assert [len(ids) for ids in told] == [8]


def test_base_models_have_names_of_their_own(tiny_llama: Path) -> None:
    with pytest.raises(ConfigError, match="used once"):
        load_bases([str(tiny_llama), str(tiny_llama)], LocalConfig(device="cpu"))


def change_two(store: Store) -> None:
    """Both or none; the second can't be: its id is taken."""
    with store.transaction():
        store.change("files", "f1", number=100)
        store.add("files", {"id": "f2"})


def test_a_full_store_takes_no_more_from_clients(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", max_gb=1e-3)
    store.check_room(10**5)
    with pytest.raises(ApiError, match=r"keeps 0\.001 GB at most"):
        store.check_room(10**6)
    store.file("f1").write_bytes(b"x" * 10**6)
    with pytest.raises(ApiError, match="Delete files"):
        store.check_room()
    store.file("f1").unlink()
    store.check_room()
    store.close()


def test_memory_is_bounded_over_all_batches_and_cancelled_answers_are_dropped(tiny_llama: Path) -> None:
    bases = load_bases([str(tiny_llama)], LocalConfig(device="cpu"))
    sizes: list[int] = []
    told: list[Piece] = []

    class Watched(Generator):
        def _next(self, batches: Sequence[Any]) -> Any:
            batch = super()._next(batches)
            sizes.append(sum(each.size for each in (*batches, *([batch] if batch else []))))
            return batch

    def asked(count: int) -> list[Writer]:
        tokenizer = bases["tiny"].tokenizer
        luck = np.random.default_rng(1)
        return [Writer([1, 5], Wishes(limit=9), luck, tokenizer, [], told.append) for _ in range(count)]

    memory = 20e6  # for about 16 rows of logits
    generator = Watched(Loaded(bases), memory / 1e9)
    kept, cancelled = asked(40), asked(4000)
    for writer in cancelled:
        writer.cancelled.set()
    for each in (cancelled, kept):
        generator.write("tiny", None, each)
    deadline = time.monotonic() + 60
    while not all(each.done for each in kept):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    generator.close()
    assert max(sizes) <= memory
    assert sum(piece.finish is not None for piece in told) == 40
    generator._owed = [(("tiny", None), writer) for writer in asked(4096)]
    with pytest.raises(ApiError, match="wait already"):
        generator.write("tiny", None, kept)


def test_silent_connections_are_closed_and_pages_from_elsewhere_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "HEADERS_IN", 0.5)
    monkeypatch.setattr(access, "SILENCE", 0.5)

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        try:
            body = await request.body()
        except HTTPException as error:
            body = str(error.status_code).encode()
        await Response(body)(scope, receive, send)

    with listen("127.0.0.1", 0, None) as listening:
        app = access.Gate(access.BodyLimit(echo, {}), None, access.LOCAL_NAMES)
        server = uvicorn.Server(
            uvicorn.Config(app, http=serving.Impatient, lifespan="off", log_level="error")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        post = b"POST / HTTP/1.1\r\nhost: localhost:80\r\ncontent-length: 4\r\n\r\n"
        page = post.replace(b"\r\n", b"\r\norigin: http://localhost:3000\r\n", 1)
        for sent, answered in (
            (b"", b""),
            (b"POST / HT", b""),
            (post + b"ab", b"408"),
            (post + b"abcd", b"abcd"),
            (page + b"abcd", b"abcd"),
            (page.replace(b"//localhost", b"//evil.example") + b"abcd", b"invalid_origin"),
            (page.replace(b"http://localhost:3000", b"null") + b"abcd", b"invalid_origin"),
            (post.replace(b"localhost", b"evil.example") + b"abcd", b"invalid_host"),
        ):
            with socket.create_connection(listening.getsockname(), timeout=30) as client:
                client.sendall(sent)
                received = b""
                while piece := client.recv(1000):
                    received += piece
            assert answered in received
            assert bool(received) == bool(answered)
        server.should_exit = True
        thread.join(30)


def test_a_store_keeps_what_is_recorded_and_deletes_the_rest(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for number in range(5):
        store.add("files", {"id": f"f{number}", "number": number})
        store.file(f"f{number}").write_bytes(b"x")
    with pytest.raises(RunDirectoryError, match="Another server"):
        Store(tmp_path / "store")
    with pytest.raises(sqlite3.IntegrityError):
        change_two(store)
    assert store.find("files", "f1") == {"id": "f1", "number": 1}
    page, more = store.page("files", "", 2, after="f3")
    assert ([record["id"] for record in page], more) == (["f2", "f1"], True)
    assert store.page("files", "", 2, after="f3", newest_first=False) == ([{"id": "f4", "number": 4}], False)
    store.remove("files", "f0")
    (store.folder / "work" / "half").mkdir()
    (store.folder / "models" / "unpublished").mkdir()
    store.close()
    store = Store(tmp_path / "store")
    assert [record["id"] for record in store.all("files")] == ["f1", "f2", "f3", "f4"]
    assert sorted(path.name for path in (store.folder / "files").iterdir()) == ["f1", "f2", "f3", "f4"]
    assert [*(store.folder / "work").iterdir(), *(store.folder / "models").iterdir()] == []
    store.close()
