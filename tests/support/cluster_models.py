"""Small models that vLLM computes on a CPU, and the figures that tests with it measure."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import torch

from linn.bases.make import tiny_config
from linn.checkpoints import BASES

TEXT_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
FIGURES = Path(__file__).parents[2] / ".venv-cluster" / "figures.json"
"""What the tests measured, for docs/cluster.md."""


def sharpen(head: torch.nn.Module) -> None:
    """A new model is too close to uniform to show a difference."""
    with torch.no_grad():
        head.weight.mul_(8)


def write_qwen3(folder: Path, seed: int = 0, vocab: int = 1024, layers: int = 4) -> Path:
    """Qwen3 of about a million parameters, with linn's own tokenizer and template."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocab,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        eos_token_id=2,
    )
    model = Qwen3ForCausalLM(config).float()
    sharpen(model.lm_head)
    model.save_pretrained(folder)
    return with_text(folder)


def write_dense(folder: Path, seed: int = 0) -> Path:
    """The hybrid without experts, which vLLM does not compute on a CPU."""
    return write_hybrid(folder, "M-M*M-M-", seed)


def write_experts(folder: Path, seed: int = 0) -> Path:
    """The hybrid with them."""
    return write_hybrid(folder, "MEM*EM*E", seed)


def write_hybrid(folder: Path, pattern: str, seed: int) -> Path:
    """The laptop's hybrid with layers of this pattern."""
    from linn.engine.models.nemotron_h.model import NemotronH

    raw = tiny_config(1024) | {"hybrid_override_pattern": pattern, "eos_token_id": 2}
    model = NemotronH(raw, folder / "config.json")
    model.initialise(seed)
    sharpen(model.lm_head)
    model.save(folder)
    return with_text(folder)


def with_text(folder: Path) -> Path:
    for name in TEXT_FILES:
        shutil.copy(BASES / "tiny-0" / name, folder)
    return folder


WRITERS = {"qwen3": write_qwen3, "dense": write_dense}


class Figures:
    """Numbers by name, kept in one file."""

    def __init__(self) -> None:
        self.found: dict[str, object] = {}

    def note(self, name: str, value: object) -> None:
        self.found[name] = value
        print(f"\n{name}: {value}")
        if FIGURES.parent.exists():
            FIGURES.write_text(json.dumps(self.found, indent=1) + "\n")

    def took(self, name: str, start: float) -> None:
        self.note(name, f"{time.perf_counter() - start:.1f} s")
