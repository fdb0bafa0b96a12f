"""What every side computes: models, prompts, lengths of replies, and rows of text. All from seeds.

The shapes are those of issue 10's table: 16 prompts of 37 to 508 tokens with 8 replies each (MOPD:
32 with 4), a vocabulary of 1,024, two models of about a million parameters. Sampling is compared
for one of real size as well.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VOCAB = 1024
SHORTEST, LONGEST = 37, 508
"""Tokens of the shortest and of the longest prompt; the others lie evenly between."""
WIDTH = 1024
"""Tokens of a packed row, linn's default and TRL's."""
ROWS = 64
"""Rows of text in a step of SFT."""
LR = 1e-6
"""So small that the model stays what it is, and lengths with it; the work is that of any other."""
TEACHER = "teacher"
"""The folder inside a model's folder that MOPD's teacher is in."""


@dataclass(frozen=True)
class Groups:
    """Prompts, and replies to each."""

    prompts: int
    """Different prompts of a step."""
    siblings: int
    """Replies to each."""

    @property
    def replies(self) -> int:
        """Of a step."""
        return self.prompts * self.siblings


@dataclass(frozen=True)
class Lengths:
    """How long replies are."""

    most: int
    """Tokens of the longest."""
    stops: tuple[int, ...] = ()
    """Ids that end a reply; none: every reply has `most` tokens."""


GROUPS = {"rollout": Groups(16, 8), "grpo": Groups(16, 8), "mopd": Groups(32, 4)}
LENGTHS = {
    # A new model is nearly uniform: 21 ids in 1,024 are met after 49 tokens on average.
    "natural": Lengths(256, tuple(range(21))),
    "fixed": Lengths(64),
    # Of work without replies.
    "none": Lengths(0),
}


def prompts_of(groups: Groups) -> list[list[int]]:
    """Random ids; lengths spread evenly."""
    draw = random.Random(0)
    step = (LONGEST - SHORTEST) / (groups.prompts - 1)
    lengths = [SHORTEST + round(number * step) for number in range(groups.prompts)]
    return [[draw.randrange(VOCAB) for _ in range(length)] for length in lengths]


def rows_of_text() -> list[list[int]]:
    """Random ids; lengths log-normal as those of chats are: median 180, from 16 to a packed row."""
    draw = random.Random(1)
    lengths = [round(draw.lognormvariate(5.2, 0.7)) for _ in range(ROWS)]
    lengths = [min(WIDTH, max(16, length)) for length in lengths]
    return [[draw.randrange(VOCAB) for _ in range(length)] for length in lengths]


def trained_tokens(rows: list[list[int]]) -> int:
    """Nothing precedes a row's first token; all others are trained."""
    return sum(len(row) - 1 for row in rows)


# ---------------------------------------------------------------- folders


def write_folder(folder: Path, model: str, lengths: Lengths) -> None:
    """A Hugging Face folder that all sides load: weights, tokenizer, ids that stop. With teacher.

    A process of its own writes it (`bench.peers.folder`): the parent imports no torch.
    """
    for seed, place in enumerate((folder, folder / TEACHER)):
        place.mkdir(parents=True)
        WRITERS[model](place, seed)
        _write_tokenizer(place)
        # transformers' generate and TRL look here for what ends a reply.
        stops: dict[str, Any] = {"eos_token_id": list(lengths.stops) or None, "pad_token_id": 0}
        (place / "generation_config.json").write_text(json.dumps(stops) + "\n")


def new_qwen3(seed: int) -> Any:
    """`transformers`' own Qwen3 of 1.05 million parameters, random."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    return Qwen3ForCausalLM(config).float()


def _write_qwen3(folder: Path, seed: int) -> None:
    new_qwen3(seed).save_pretrained(folder)


def _write_smollm2(folder: Path, seed: int) -> None:
    """The shape of SmolLM2-135M but for the vocabulary: 107 million, random."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).float().save_pretrained(folder)


def _write_hybrid(folder: Path, seed: int) -> None:
    """Nemotron-H with experts, 1.18 million: the base of linn's own recipes, untrained."""
    from linn.bases.make import new_model

    new_model(folder, VOCAB, seed)


WRITERS = {"qwen3": _write_qwen3, "smollm2": _write_smollm2, "hybrid": _write_hybrid}


def _write_tokenizer(folder: Path) -> None:
    """Words `<0>` to `<1023>`, a token each: peers that read text read the same ids."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"<{number}>": number for number in range(VOCAB)}
    words = Tokenizer(WordLevel(vocabulary, unk_token="<0>"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<0>", pad_token="<0>", unk_token="<0>"
    )
    tokenizer.save_pretrained(folder)


def text_of(ids: list[int]) -> str:
    """What the tokenizer reads as these ids."""
    return " ".join(f"<{number}>" for number in ids)
