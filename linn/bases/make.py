"""Makes linn's own base models: a tokenizer from the domains' texts, and random weights.

A base is a Hugging Face folder of a small Nemotron-H hybrid. Those kept beside this file (`tiny-0`,
`tiny-1`, …) were trained from one that this module made; a recipe with `model: {vocab, seed}` makes
its own.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from linn import files
from linn.assets import write_chat
from linn.chat import render as chat
from linn.checkpoints import start_folder
from linn.domains.base import Domain
from linn.recipe.schema import NewModelConfig, Recipe
from linn.types import seed_of


def prepare_start(recipe: Recipe, folder: Path, domains: Mapping[str, Domain]) -> None:
    """Make the base of `model: {vocab, seed}` in a run's folder, unless it is there already.

    Nothing is to be done where the recipe starts from weights that exist.
    """
    if not isinstance(recipe.model, NewModelConfig):
        return
    start = start_folder(recipe, folder)
    if start.exists():
        return

    # Imported here: pricing reads this module and needs neither tokenizers nor torch.
    from linn.bases.tokenizer import save_tokenizer, train_tokenizer
    from linn.chat.codec import Codec

    tokenizer = train_tokenizer(clean_texts(domains), recipe.model.vocab)
    with files.whole_folder(start) as part:
        save_tokenizer(tokenizer, part)
        new_model(part, tokenizer.get_vocab_size(), recipe.model.seed)
        write_chat(part, Codec(tokenizer))


def clean_texts(domains: Mapping[str, Domain], each: int = 400) -> Iterator[str]:
    """Rendered clean demonstrations of every domain, at most `each` of one.

    They are the same for every seed, so that all laptop bases share one vocabulary.
    """
    for name, domain in domains.items():
        prompts = itertools.islice(domain.prompts("train"), each)
        for prompt in prompts:
            draw = random.Random(seed_of("vocabulary", name, prompt.id))
            turns = domain.demonstrate(prompt, draw, False)

            yield chat.render(
                (*prompt.messages, *turns),
                prompt.tools,
                prompt.thinking,
                keep_thinking=True,
                generation_prompt=False,
            )


def new_model(folder: Path, vocab: int, seed: int) -> None:
    """Write a randomly initialised checkpoint (float32) of `tiny_config(vocab)` into the folder."""
    from linn.engine.models.nemotron_h.model import NemotronH

    model = NemotronH(tiny_config(vocab), folder / "config.json")
    model.initialise(seed)
    model.save(folder)


def tiny_config(vocab: int) -> dict[str, Any]:
    """The content of `config.json` of the laptop's hybrid.

    It has about 1.1 million parameters at a vocabulary of 1,200.
    """
    return {
        "model_type": "nemotron_h",
        "architectures": ["NemotronHForCausalLM"],
        "vocab_size": vocab,
        "hidden_size": 128,
        "hybrid_override_pattern": "MEM*EM*E",
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "intermediate_size": 256,
        "mamba_num_heads": 4,
        "mamba_head_dim": 64,
        "ssm_state_size": 32,
        "n_groups": 1,
        "conv_kernel": 4,
        "expand": 2,
        "chunk_size": 128,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 64,
        "moe_shared_expert_intermediate_size": 128,
        "n_shared_experts": 1,
        "routed_scaling_factor": 1.0,
        "norm_topk_prob": True,
        "tie_word_embeddings": False,
        "max_position_embeddings": 8192,
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
    }
