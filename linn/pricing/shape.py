"""A model's shape from its `config.json`: parameters, FLOPs and bytes a token, without weights and without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linn.errors import UserError

_LAYERS = {
    "mamba": "M",
    "linear_attention": "M",
    "attention": "*",
    "full_attention": "*",
    "moe": "E",
    "mlp": "-",
}
_DENSE = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class Shape:
    """What prices need to know of a model; sums are over its layers."""

    total: int
    """Parameters in all; buffers such as the router's correction bias are none."""
    active: int
    """Parameters that a token is multiplied with: the head included, the look-up of its embedding not."""
    embedding: int
    """Parameters of the embedding table."""
    vocab: int
    """Size of the vocabulary."""
    hidden: int
    """Width of the residual stream."""
    layers: int
    """Layers of every kind."""
    attention: int
    """Layers with attention."""
    query: int
    """Query heads times head width, of one attention layer."""
    key: int
    """Key heads times head width, of one attention layer."""
    scan: int
    """Numbers in the recurrent state of a sequence: heads x head width x state."""
    conv: int
    """Numbers that the short convolutions keep of a sequence: (kernel - 1) x channels."""
    routed: int
    """Parameters of all routed experts."""
    experts: int
    """Routed experts of a layer; 0 in a dense model."""
    top: int
    """Routed experts that a token passes."""

    def forward_flops(self, tokens: float, attended: float) -> float:
        """2 a parameter and token; 4 x query width for each earlier token looked at (scores and values); 6 a state number for the scan.

        `attended`: sum over the tokens of how many each looks at, e.g. n²/2 for a sequence of n.
        """
        return (
            tokens * (2 * self.active + 6 * self.scan) + 4 * self.query * self.attention * attended
        )

    def cache_bytes(self, tokens: float) -> float:
        """What a sampler keeps of a conversation: keys and values in 2 bytes, states in 4 (paper §9: fp32 Mamba state), convolutions in 2."""
        return 2 * 2 * self.key * self.attention * tokens + 4 * self.scan + 2 * self.conv

    def weights_read(self, rows: float) -> float:
        """Parameters that one decoding step of `rows` conversations touches: all but the embeddings and the experts that no row chose.

        An expert is missed by a row with chance 1 - top / experts, rows being independent.
        """
        dense = self.total - self.routed - self.embedding
        return dense + (
            self.routed * (1 - (1 - self.top / self.experts) ** rows) if self.experts else 0
        )


def shape_of(raw: Mapping[str, Any], where: str) -> Shape:
    """The shape that a config tells; UserError for a family whose formula is not known here."""
    family = raw.get("model_type")
    try:
        if family == "nemotron_h":
            return _hybrid(raw)
        if family in _DENSE:
            return _dense(raw)
    except KeyError as missing:
        raise UserError(f"{where}: {missing.args[0]} is missing; the price needs it") from None
    raise UserError(
        f"{where}: no price for model_type {family!r}; known: nemotron_h, {', '.join(_DENSE)}"
    )


def read_shape(folder: Path) -> Shape:
    """The shape of a model folder."""
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    return shape_of(raw, str(path))


def _hybrid(raw: Mapping[str, Any]) -> Shape:
    """Nemotron-H: norms, then by letter the mixer; names and defaults are those of NVIDIA's config."""
    named = raw.get("layers_block_type") or raw.get("layer_types") or raw["hybrid_override_pattern"]
    pattern = [_LAYERS.get(name, name) for name in named]
    d, vocab = raw["hidden_size"], raw["vocab_size"]
    bias, mlp_bias = bool(raw.get("use_bias")), bool(raw.get("mlp_bias"))
    heads, state = raw.get("mamba_num_heads", 128), raw.get("ssm_state_size", 128)
    inner, kernel = heads * raw.get("mamba_head_dim", 64), raw.get("conv_kernel", 4)
    mixed = inner + 2 * raw.get("n_groups", 8) * state
    wide = inner + mixed + heads
    mamba = (
        d * wide
        + wide * bias
        + mixed * (kernel + bool(raw.get("use_conv_bias", True)))
        + 3 * heads
        + inner
        + inner * d
        + d * bias
    )
    query, key = (
        raw.get(name, 0) * raw.get("head_dim", 128)
        for name in ("num_attention_heads", "num_key_value_heads")
    )
    attention = 2 * d * query + 2 * d * key

    def mlp(width: int, around: int = d) -> int:
        return 2 * around * width + (around + width) * mlp_bias

    experts, top = raw.get("n_routed_experts", 8), raw.get("num_experts_per_tok", 2)
    latent = raw.get("moe_latent_size")
    expert = 2 * (latent or d) * raw.get("moe_intermediate_size", 7688)  # matrices without bias
    around = experts * d + mlp(raw.get("moe_shared_expert_intermediate_size", 7688))
    around += 2 * d * latent + (d + latent) * mlp_bias if latent else 0
    each = {
        "M": mamba,
        "*": attention,
        "E": around + experts * expert,
        "-": mlp(raw.get("intermediate_size", 21504)),
    }
    count = {letter: pattern.count(letter) for letter in each}
    embedding, tied = vocab * d, bool(raw.get("tie_word_embeddings"))
    body = sum(count[letter] * each[letter] for letter in each) + (len(pattern) + 1) * d
    routed = count["E"] * experts * expert
    return Shape(
        total=body + embedding * (1 if tied else 2),
        active=body - routed + count["E"] * top * expert + embedding,
        embedding=0 if tied else embedding,
        vocab=vocab,
        hidden=d,
        layers=len(pattern),
        attention=count["*"],
        query=query,
        key=key,
        scan=count["M"] * inner * state,
        conv=count["M"] * (kernel - 1) * mixed,
        routed=routed,
        experts=experts if count["E"] else 0,
        top=top,
    )


def _dense(raw: Mapping[str, Any]) -> Shape:
    """Llama and its kin: attention and a gated MLP a layer; Qwen 2 has biases on q, k, v, Qwen 3 norms on q and k heads."""
    d, vocab, layers, wide = (
        raw["hidden_size"],
        raw["vocab_size"],
        raw["num_hidden_layers"],
        raw["intermediate_size"],
    )
    heads = raw["num_attention_heads"]
    width = raw.get("head_dim") or d // heads
    query, key = heads * width, (raw.get("num_key_value_heads") or heads) * width
    layer = 2 * d * query + 2 * d * key + 3 * d * wide + 2 * d
    layer += query + 2 * key if raw["model_type"] == "qwen2" else 0
    layer += 2 * width if raw["model_type"] == "qwen3" else 0
    layer += (
        query + 2 * key + d if raw.get("attention_bias") and raw["model_type"] == "llama" else 0
    ) + (2 * wide + d if raw.get("mlp_bias") else 0)
    embedding, tied = vocab * d, bool(raw.get("tie_word_embeddings"))
    body = layers * layer + d
    return Shape(
        total=body + embedding * (1 if tied else 2),
        active=body + embedding,
        embedding=0 if tied else embedding,
        vocab=vocab,
        hidden=d,
        layers=layers,
        attention=layers,
        query=query,
        key=key,
        scan=0,
        conv=0,
        routed=0,
        experts=0,
        top=0,
    )
