"""Chat templates of odd folders: two of them, one that rewrites, one that asks for nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.families import write

from linn.assets import write_chat
from linn.chat.codec import Codec
from linn.types import Message, Prompt

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}},
}


def user(text: str) -> Message:
    return Message("user", text)


def test_a_template_of_its_own_for_tools_is_the_one_that_tools_are_shown_in(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write("qwen2", tmp_path)
    with_tools = (tmp_path / "chat_template.jinja").read_text()
    plain = (
        "\n{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    named = [{"name": "default", "template": plain}, {"name": "tool_use", "template": with_tools}]
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    listed, filed = tmp_path / "listed", tmp_path / "filed"
    for folder in (listed, filed):
        write("qwen2", folder)
    (listed / "chat_template.jinja").unlink()
    (listed / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": named}))
    (filed / "chat_template.jinja").write_text(plain + "\n")
    (filed / "additional_chat_templates").mkdir()
    (filed / "additional_chat_templates" / "tool_use.jinja").write_text(with_tools)

    turns = [{"role": "user", "content": "q"}]
    for folder in (listed, filed):
        before = AutoTokenizer.from_pretrained(folder)
        codec = Codec.load(folder, "own")
        assert codec.template.tools and codec.template.jinja.startswith("{% if tools %}")
        for tools in ((), (TOOL,)):
            shown = list(tools) or None
            ids = before.apply_chat_template(
                turns, tools=shown, add_generation_prompt=True, return_dict=False
            )
            assert codec.prompt_ids(Prompt("x", "1", (user("q"),), tools=tools)) == ids
            write_chat(folder, codec)
            after = AutoTokenizer.from_pretrained(folder)
            assert ids == after.apply_chat_template(
                turns, tools=shown, add_generation_prompt=True, return_dict=False
            )
        assert Codec.load(folder).template.jinja == codec.template.jinja


def test_a_template_that_rewrites_its_beginning_is_told(tmp_path: Path) -> None:
    write("qwen2", tmp_path)
    path = tmp_path / "chat_template.jinja"
    own = path.read_text()
    talk = [user("q"), Message("assistant", "a")]
    assert not Codec.load(tmp_path, "own").template.rewrites(talk, [user("r")])
    path.write_text("{{ messages | length }} turns\n" + own)
    assert Codec.load(tmp_path, "own").template.rewrites(talk, [user("r")])


def test_a_template_without_a_generation_prompt_says_so(tmp_path: Path) -> None:
    write("qwen2", tmp_path)
    path = tmp_path / "chat_template.jinja"
    told = "no generation prompt: the model writes the opening of its own turn"
    assert told not in Codec.load(tmp_path, "own").template.limits
    path.write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    template = Codec.load(tmp_path, "own").template
    assert told in template.limits
    assert template.parse("<|im_start|>assistant\na<|im_end|>").content == "a"
