"""vLLM's own server in place of linn's, with the template, stops and readers of the checkpoint."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from linn.chat.calls import bare, by_name, deepseek, in_lists, kimi
from linn.chat.codec import Codec
from linn.chat.own import Own
from linn.chat.template import TemplateName
from linn.chat.tool_calls import read_calls
from linn.errors import UserError

_PARSERS = {
    in_lists: "mistral",
    by_name: "mistral",
    bare: "llama3_json",
    deepseek: "deepseek_v3",
    kimi: "kimi_k2",
    read_calls: "hermes",
}
"""What vLLM calls the readers of calls."""


def vllm_command(
    folder: Path,
    name: str,
    host: str,
    port: int,
    template: TemplateName | None = None,
    context: int | None = None,
) -> list[str]:
    """vLLM's command line for a checkpoint; writes its template into a temporary file."""
    codec = Codec.load(folder, template)
    jinja = Path(tempfile.mkdtemp(prefix="linn-vllm-")) / "chat_template.jinja"
    jinja.write_text(codec.template.jinja, encoding="utf-8")
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(folder), "--served-model-name", name]
    command += ["--host", host, "--port", str(port), "--chat-template", str(jinja)]
    # As trained: sampling settings of the base's generation config are another model's.
    command += ["--generation-config", "vllm"]
    if context is not None:
        command += ["--max-model-len", str(context)]
    return command + parser_flags(codec)


def parser_flags(codec: Codec) -> list[str]:
    """Who reads a template's thoughts and calls in vLLM, as flags of its command line."""
    template = codec.template
    if not isinstance(template, Own):
        calls = ["--enable-auto-tool-choice", "--tool-call-parser", "qwen3_coder"]
        return [*calls, "--reasoning-parser", "deepseek_r1"]
    flags: list[str] = []
    # gpt-oss: one parser for thoughts, answers and calls.
    if template.form.channels:
        return ["--enable-auto-tool-choice", "--tool-call-parser", "openai"]
    if template.form.reader in _PARSERS:
        parser = _PARSERS[template.form.reader]
        flags += ["--enable-auto-tool-choice", "--tool-call-parser", parser]
    if template.form.marks == ("<think>", "</think>"):
        # Which of the two depends on who writes the opening mark.
        parser = "deepseek_r1" if template.opens[True] else "qwen3"
        flags += ["--reasoning-parser", parser]
    return flags


def start_vllm(command: Sequence[str], key: str | None) -> None:
    """Become vLLM's server; UserError where it is not installed."""
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "--engine vllm: vLLM is not installed in this environment; pip install vllm, or "
            "leave the flag out for linn's own engine"
        )
    # By the environment: a command line is everybody's to read.
    environment = dict(os.environ)
    if key is not None:
        environment["VLLM_API_KEY"] = key
    os.execve(command[0], list(command), environment)
