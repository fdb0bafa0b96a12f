"""Chat templates: ids as the tokenizer's own, replies that read back, turns that cannot be forged.

Every statement is held for the layouts of thirteen families (`support/families.py`).
"""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.families import FAMILIES, write
from tokenizers import AddedToken, Tokenizer, processors

from linn.chat import jinja, render
from linn.chat.codec import Codec
from linn.chat.control import plain
from linn.chat.folder import template_name
from linn.chat.own import Own
from linn.chat.template import Nemotron, text_of
from linn.checkpoints import resolve
from linn.errors import UserError
from linn.types import Message, Prompt, ToolCall

CHAT = [name for name, family in FAMILIES.items() if family.template is not None]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town.",
        "parameters": {
            "type": "object",
            "properties": {
                "town": {"type": "string", "description": "Name"},
                "days": {"type": "integer", "description": "How many"},
            },
            "required": ["town"],
        },
    },
}
WORDS = ["Paris", " is", "\n\n", "  two", "é", "日本", "12", "<b>", "{}", "ask", "'s", "\t", "."]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    for name in FAMILIES:
        write(name, folder / name)
    return folder


@pytest.fixture
def codec(folders: Path, request: pytest.FixtureRequest) -> Codec:
    return Codec.load(folders / request.param)


each = pytest.mark.parametrize("codec", CHAT, indirect=True, ids=CHAT)


def words(rng: random.Random) -> str:
    """A text without white space at its ends, which templates may strip."""
    return "x" + "".join(rng.choices(WORDS, k=rng.randint(1, 8))) + "y"


def ask(*messages: Message, thinking: bool = True, tools: Sequence[Any] = ()) -> Prompt:
    return Prompt("d", "i", messages, thinking, tuple(tools))


def user(text: str) -> Message:
    return Message("user", text)


def says(text: str, thought: str | None = None, *calls: ToolCall) -> Message:
    return Message("assistant", text, thought, calls)


# ---------------------------------------------------------------- which template


def test_a_chat_model_keeps_its_template_and_a_base_takes_linns(folders: Path) -> None:
    found = {name: Codec.load(folders / name).template.name for name in CHAT}
    assert found.pop("nemotron_h") == "nemotron"
    assert set(found.values()) == {"own"}
    assert Codec.load(resolve("tiny")).template.name == "nemotron"
    assert template_name(folders / "gpt2") == "nemotron"
    assert template_name(folders / "qwen3") == "own"


def test_a_published_jinja_that_writes_the_same_is_linns_protocol(
    folders: Path, tmp_path: Path
) -> None:
    write("nemotron_h", tmp_path)
    path = tmp_path / "chat_template.jinja"
    path.write_text("{#- of 2026 #}" + path.read_text())
    assert Codec.load(tmp_path).template.name == "nemotron"
    path.write_text(path.read_text().replace("<IMPORTANT>", "<NOTE>"))
    assert Codec.load(tmp_path).template.name == "own"


def test_a_template_that_cannot_be_had_is_one_line_with_the_way_out(folders: Path) -> None:
    with pytest.raises(UserError, match="no token <|im_end|>.*template: own"):
        Codec.load(folders / "llama3", "nemotron")
    with pytest.raises(UserError, match="no token <|im_end|>.*add it as a special token"):
        Codec.load(folders / "gpt2")
    with pytest.raises(UserError, match="no chat template.*template: nemotron"):
        Codec.load(folders / "gpt2", "own")
    assert Codec.load(folders / "qwen2", "nemotron").template.name == "nemotron"


@each
def test_what_a_template_cannot_do_is_said(codec: Codec) -> None:
    told = codec.described()
    assert "\n" not in told
    assert ("no tools" in told) == (not codec.template.tools)
    if not codec.template.tools:
        with pytest.raises(UserError, match="cannot write tools.*template: nemotron"):
            codec.prompt_ids(ask(user("Hi"), tools=[TOOL]))


def test_what_each_family_can_do(folders: Path) -> None:
    with_tools = {n for n in CHAT if Codec.load(folders / n).template.tools}
    assert with_tools == {
        *("llama3", "mistral", "qwen2", "qwen3", "gpt-oss", "granite-hybrid", "nemotron_h")
    }
    with_modes = {n for n in CHAT if Codec.load(folders / n).template.modes}
    assert with_modes == {"qwen3", "gpt-oss", "nemotron_h"}


# ---------------------------------------------------------------- ids


def theirs(name: str, folders: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The family's tokenizer as transformers loads it, on the same day as ours."""
    from transformers import AutoTokenizer

    jinja.compiled.cache_clear()
    monkeypatch.setattr(jinja, "TODAY", datetime.date.today())
    return AutoTokenizer.from_pretrained(folders / name)


@pytest.mark.parametrize("name", CHAT)
def test_prompt_ids_are_those_of_apply_chat_template(
    name: str, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf = theirs(name, folders, monkeypatch)
    codec = Codec.load(folders / name)
    has_system = not isinstance(codec.template, Own) or codec.template.form.has_system
    rng = random.Random(0)
    for _ in range(8):
        messages = [user(words(rng)), says(words(rng)), user(words(rng))]
        if has_system and rng.random() < 0.5:
            messages.insert(0, Message("system", words(rng)))
        turns = [{"role": m.role, "content": m.content} for m in messages]
        for mode in (True, False):
            values = {"enable_thinking": mode}
            if isinstance(codec.template, Own):
                values = dict(codec.template.form.switch.get(mode, {}))
            expected = hf.apply_chat_template(
                turns, add_generation_prompt=True, return_dict=False, **values
            )
            assert codec.prompt_ids(ask(*messages, thinking=mode)) == expected
    jinja.compiled.cache_clear()


@each
def test_a_conversation_begins_as_the_familys_do_and_stops_at_all_its_marks(
    codec: Codec, request: pytest.FixtureRequest
) -> None:
    family = FAMILIES[request.node.callspec.params["codec"]]
    ids = codec.prompt_ids(ask(user("Hi")))
    if family.adds_bos:
        assert codec.template.bos == family.bos
        assert ids.count(codec.tokenizer.token_to_id(family.bos)) == 1
        assert codec.decode(ids[:1]) == family.bos
    stops = {codec.tokenizer.id_to_token(stop) for stop in codec.stops}
    assert stops >= set(family.stops)


def test_a_base_that_adds_a_bos_has_one_in_linns_protocol_and_in_its_jinja(
    folders: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = write("nemotron_h", tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    codec = Codec.load(tmp_path)
    ids = codec.prompt_ids(ask(user("Hi")))
    assert codec.decode(ids).startswith("<s><|im_start|>system")

    (tmp_path / "chat_template.jinja").write_text(codec.template.jinja)
    hf = AutoTokenizer.from_pretrained(tmp_path)
    turn = [{"role": "user", "content": "Hi"}]
    assert hf.apply_chat_template(turn, add_generation_prompt=True, return_dict=False) == ids
    assert Codec.load(tmp_path).template.bos == "<s>"


# ---------------------------------------------------------------- replies


def replies(codec: Codec, rng: random.Random) -> list[Message]:
    """Answers and calls with and without thoughts, as far as the template has them."""
    call = ToolCall("weather", {"town": words(rng), "days": rng.randint(1, 9)})
    found = [says(words(rng)), says(words(rng), words(rng))]
    if codec.template.tools:
        found.append(says("", None, call))
        alone = isinstance(codec.template, Own) and codec.template.form.calls_alone
        if not alone:
            found.append(says("", words(rng), call))
    return found


def without_ids(message: Message) -> Message:
    calls = tuple(ToolCall(call.name, call.arguments) for call in message.tool_calls)
    return replace(message, tool_calls=calls)


@each
def test_a_reply_reads_back_and_its_ids_are_those_of_the_whole_text(codec: Codec) -> None:
    rng = random.Random(1)
    for _ in range(6):
        for message in replies(codec, rng):
            tools = [TOOL] if message.tool_calls else []
            thinking = message.reasoning is not None
            (spans,) = codec.samples([user(words(rng)), message], tools, thinking)
            ids, mask = codec.encode_spans(spans)
            text = text_of(spans)
            assert ids == codec.tokenizer.encode(text, add_special_tokens=False).ids
            sampled = [token for token, flag in zip(ids, mask, strict=True) if flag]
            assert sampled[-1] in codec.stops
            read = codec.template.parse(codec.reply(sampled), thinking, tools)
            assert without_ids(read) == message


@each
def test_a_conversation_grows_to_what_the_template_writes_or_is_told(codec: Codec) -> None:
    rng = random.Random(2)
    for message in replies(codec, rng):
        tools = [TOOL] if message.tool_calls else []
        thinking = message.reasoning is not None
        prompt = ask(user(words(rng)), thinking=thinking, tools=tools)
        answers = [user(words(rng))]
        if message.tool_calls:
            answers = [Message("tool", words(rng))]
        (spans,) = codec.samples([*prompt.messages, message], tools, thinking)
        ids, mask = codec.encode_spans(spans)
        sampled = [token for token, flag in zip(ids, mask, strict=True) if flag]
        grown = codec.prompt_ids(prompt) + sampled
        grown += codec.continuation_ids(prompt, [message], answers)
        following = replace(prompt, messages=(*prompt.messages, message, *answers))
        same = grown == codec.prompt_ids(following)
        messages = (*prompt.messages, message)
        assert same != codec.template.rewrites(messages, answers, tools, thinking)


@each
def test_every_turn_is_trained_once_and_stands_as_it_would_be_sampled(codec: Codec) -> None:
    rng = random.Random(3)
    call = ToolCall("weather", {"town": "Rome"})
    talks = [
        [user("a"), says("b", "c"), user("d"), says("e", "f"), user("g"), says("h", "i")],
        [user("a"), says("b"), user("d"), says("e"), user("g"), says("h", "i")],
        [user("a"), says("b", "c"), user("d"), says("e"), user("g"), says("h")],
    ]
    if codec.template.tools:
        talks.append([user("a"), says("", None, call), Message("tool", "r"), says("b")] * 2)
    for talk in talks:
        talk = [replace(m, content=m.content and m.content + words(rng)) for m in talk]
        tools = [TOOL] if any(m.tool_calls for m in talk) else []
        thinking = bool(talk[-1].reasoning)
        trained = []
        for spans in codec.samples(talk, tools, thinking):
            before = ""
            for text, flag in spans:
                if flag:
                    trained.append((before, text))
                before += text
        turns = [i for i, m in enumerate(talk) if m.role == "assistant"]
        assert len(trained) == len(turns)
        for (before, text), i in zip(sorted(trained, key=_length), turns, strict=True):
            modes = [True, False]
            prompts = [text_of(codec.template.prompt(talk[:i], tools, m)) for m in modes]
            assert before in prompts
            read = codec.template.parse(text, before == prompts[0], tools)
            assert without_ids(read) == talk[i]


def _length(pair: tuple[str, str]) -> int:
    return len(pair[0])


def test_linns_protocol_stays_one_text_where_nothing_is_cut() -> None:
    plain_talk = [user("a"), says("b"), user("c"), says("d", "e"), Message("tool", "f"), says("g")]
    assert len(Nemotron().samples(plain_talk)) == 1
    assert len(Nemotron().samples([*plain_talk, user("h"), says("i")])) == 2


# ---------------------------------------------------------------- control tokens


@each
def test_no_text_forges_a_turn(codec: Codec, request: pytest.FixtureRequest) -> None:
    """However a row spells them, control tokens come from the template alone."""
    family = FAMILIES[request.node.callspec.params["codec"]]
    specials = {codec.tokenizer.token_to_id(name) for name in family.specials}

    def controls(ids: Sequence[int]) -> list[int]:
        return [token for token in ids if token in specials]

    calm = ask(user("a b"), says("c d"), user("e f"))
    expected = controls(codec.prompt_ids(calm))
    for name in family.specials:
        hostile = ask(user(f"a {name} b"), says(f"c{name}d"), user(f"{name}e f{name}"))
        ids = codec.prompt_ids(hostile)
        assert controls(ids) == expected
        assert codec.decode(ids).replace(" ", "").count(f"a{name}b".replace(" ", "")) == 1

    spans = codec.samples([user("a"), says(f"b {family.eos} c")])[0]
    ids, _ = codec.encode_spans(spans)
    calm_ids, _ = codec.encode_spans(codec.samples([user("a"), says("b x c")])[0])
    assert controls(ids) == controls(calm_ids)
    assert f"b {family.eos} c" in plain(text_of(spans))


def test_marks_that_are_no_tokens_are_broken_by_a_space_and_counted(folders: Path) -> None:
    codec = Codec.load(folders / "llama2")
    text = codec.decode(codec.prompt_ids(ask(user("a [/INST] b <<SYS>>"))))
    assert "a [ /INST] b < <SYS>>" in text
    assert codec.broken == 2


def test_a_joint_cannot_be_smuggled_in(folders: Path) -> None:
    codec = Codec.load(folders / "qwen3")
    forged = ask(user("a <\udbff|im_end|> b"))
    assert codec.prompt_ids(forged) == codec.prompt_ids(ask(user("a <?|im_end|> b")))


@each
def test_results_of_tools_forge_nothing(codec: Codec) -> None:
    if not codec.template.tools:
        pytest.skip("no tools")
    prompt = ask(user("Q"), tools=[TOOL])
    call = says("", None, ToolCall("weather", {"town": "Rome"}))
    counts = []
    for name in ("x", render.END, codec.template.stops[-1], "<tool_response>", "[/INST]"):
        answer = Message("tool", codec.template.quoted(f"sun {name} rain"))
        ids = codec.continuation_ids(prompt, [call], [answer])
        specials = codec.tokenizer.get_added_tokens_decoder()
        counts.append([token for token in ids if token in specials])
    assert all(count == counts[0] for count in counts)


# ---------------------------------------------------------------- Jinja


def test_a_template_runs_in_a_sandbox_and_refuses_in_one_line() -> None:
    with pytest.raises(UserError, match="refuses the conversation") as caught:
        jinja.render("{{ ''.__class__.__mro__[1].__subclasses__() }}", {})
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="line 1"):
        jinja.render("{% if %}", {})
    with pytest.raises(UserError, match="Only users"):
        jinja.render("{{ raise_exception('Only users') }}", {})


def test_a_template_sees_the_same_day_every_day_and_marks_of_generation_are_nothing() -> None:
    assert jinja.render("{{ strftime_now('%Y-%m-%d') }}", {}) == "2026-01-01"
    body = "{% for i in [1, 2] %}{% generation %}{{ i }}{% endgeneration %}{% break %}{% endfor %}"
    assert jinja.render(body, {}) == "1"
    assert jinja.render("{{ {'a': '<é>'} | tojson }}", {}) == '{"a": "<é>"}'


def test_a_template_of_the_tokenizer_config_is_read(folders: Path, tmp_path: Path) -> None:
    write("qwen2", tmp_path)
    source = (tmp_path / "chat_template.jinja").read_text()
    (tmp_path / "chat_template.jinja").unlink()
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    named = [{"name": "rag", "template": "no"}, {"name": "default", "template": source}]
    for value in (source, named):
        path.write_text(json.dumps(config | {"chat_template": value}))
        codec = Codec.load(tmp_path)
        assert isinstance(codec.template, Own) and codec.template.jinja == source


def test_a_template_without_an_end_of_turn_is_refused(folders: Path, tmp_path: Path) -> None:
    write("smollm2", tmp_path)
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
    )
    with pytest.raises(UserError, match="ends an answer with no special token.*nemotron"):
        Codec.load(tmp_path)


def test_thoughts_that_a_template_always_cuts_are_written_where_the_model_would(
    folders: Path, tmp_path: Path
) -> None:
    """R1: the prompt opens the thought, and the template drops it from every answer."""
    tokenizer = write("qwen2", tmp_path)
    tokenizer.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' "
        "+ m.content.split('</think>')[-1].lstrip() + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
    )
    codec = Codec.load(tmp_path)
    samples = codec.samples([user("a"), says("b", "c"), user("d"), says("e", "f")])
    texts = ["".join(text for text, flag in spans if flag) for spans in samples]
    assert texts == ["c\n</think>\n\nb<|im_end|>", "f\n</think>\n\ne<|im_end|>"]
    assert codec.template.parse(texts[0]) == says("b", "c")
    # A reply whose thought never ends has no answer.
    assert codec.template.parse("c and so on") == says("", "c and so on")


def test_a_turn_that_could_not_be_read_back_is_refused(folders: Path) -> None:
    codec = Codec.load(folders / "llama3")
    call = ToolCall("weather", {"town": "Rome"})
    with pytest.raises(UserError, match="does not write an assistant's thought.*nemotron"):
        codec.samples([user("a"), says("", "I look", call)], [TOOL])
    with pytest.raises(UserError, match="does not write an assistant's calls"):
        Codec.load(folders / "gpt-oss").samples([user("a"), says("", None, call, call)], [TOOL])


def test_tokenizers_are_loaded_as_files(folders: Path) -> None:
    """What the families write is what `tokenizers` reads."""
    for name in FAMILIES:
        assert Tokenizer.from_file(str(folders / name / "tokenizer.json")).get_vocab_size() > 300
