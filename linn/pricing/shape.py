"""A model's shape from its `config.json`, without weights and without torch.

Parameters, and FLOPs and bytes per token.
"""

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
_ROUTED = ("mixtral", "qwen2_moe", "qwen3_moe")
"""Families whose layers have routed experts."""
_GATED = ("llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3", *_ROUTED)
"""Families of attention and a gated MLP, or gated experts, per layer."""


@dataclass(frozen=True)
class Shape:
    """What prices need to know of a model; sums are over its layers."""

    total: int
    """Parameters in all, without buffers such as the router's correction bias."""
    active: int
    """Parameters used per token: includes the output head, excludes the embedding table."""
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
    own: bool = False
    """Whether linn's own class computes it, so that `transformers` need not be loaded."""
    kept: int = 0
    """Numbers per token that the layers keep for the backward pass."""
    widest: int = 0
    """Of these, the most that one layer keeps."""
    largest: int = 0
    """Parameters of the largest layer."""
    heads: int = 0
    """Query heads of an attention layer."""
    key_heads: int = 0
    """Its key heads."""
    scan_heads: int = 0
    """Heads of a Mamba layer's scan; 0 where there is no such layer."""
    groups: int = 0
    """Groups that these heads share their B and C in."""
    moe: int = 0
    """Layers with routed experts."""
    moe_kept: int = 0
    """Numbers per token that one of these keeps for the backward pass."""
    sent: int = 0
    """Numbers per token on the way to its experts and back, where they are spread over ranks."""

    @property
    def ends(self) -> int:
        """Parameters outside of the layers, but for the final norm: embeddings and head."""
        return self.vocab * self.hidden + self.embedding

    def gathered(self, experts: int) -> float:
        """Parameters of the largest layer in a rank that has one of `experts` parts of its experts.

        No other kind of layer is counted: the largest is one with routed experts, if there are any.
        """
        if not self.moe:
            return self.largest
        routed = self.routed / self.moe
        return self.largest - routed + routed / experts

    def inside(self, experts: int) -> int:
        """Numbers per token in the layer that is computed, with as many for its gradients."""
        if experts == 1:
            return 2 * self.widest
        return max(2 * self.widest, 2 * self.moe_kept + self.sent)

    def splits(self, tensor: int) -> bool:
        """Whether vLLM can deal every layer's heads out to so many GPUs, the same number to each.

        Where there are fewer key heads than GPUs, or one group, they may stand in several.
        """
        if self.heads % tensor or self.scan_heads % tensor:
            return False
        if self.scan_heads and self.groups > 1 and self.groups % tensor:
            return False
        return max(self.key_heads, tensor) % max(1, min(self.key_heads, tensor)) == 0

    def forward_flops(self, tokens: float, attended: float) -> float:
        """FLOPs of a forward pass.

        2 per parameter and token; 4 x query width per earlier token looked at (scores and values);
        6 per number of the scan's state. `attended`: sum over the tokens of how many each looks
        at, e.g. n²/2 for a sequence of n.
        """
        per_token = 2 * self.active + 6 * self.scan
        return tokens * per_token + 4 * self.query * self.attention * attended

    def cache_bytes(self, tokens: float) -> float:
        """What a sampler keeps of a conversation.

        Keys, values and convolutions in 2 bytes, states in 4 (paper §9: fp32 Mamba state).
        """
        keys_and_values = 2 * 2 * self.key * self.attention * tokens
        return keys_and_values + 4 * self.scan + 2 * self.conv

    def state_bytes(self, tokens: float) -> float:
        """What the local engine keeps of a conversation: `cache_bytes`, all of it in float32."""
        keys_and_values = 2 * 4 * self.key * self.attention * tokens
        return keys_and_values + 4 * self.scan + 4 * self.conv

    def weights_read(self, rows: float) -> float:
        """Parameters that one decoding step of `rows` conversations touches.

        All but the embeddings and the experts that no row chose. A row misses an expert with
        chance 1 - top / experts; rows are taken as independent.
        """
        dense = self.total - self.routed - self.embedding
        if not self.experts:
            return dense
        missed: float = (1 - self.top / self.experts) ** rows
        return dense + self.routed * (1 - missed)


def shape_of(raw: Mapping[str, Any], where: str) -> Shape:
    """The shape that a config tells; UserError for a family whose formula is not known here."""
    if not isinstance(raw, Mapping):
        raise UserError(f"{where}: holds no keys; the price needs a model's config.json")
    family = raw.get("model_type")
    try:
        if family == "nemotron_h":
            return _hybrid(raw)
        if family in _GATED:
            return _gated(raw)
    except KeyError as missing:
        raise UserError(f"{where}: {missing.args[0]} is missing; the price needs it") from None
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UserError(
            f"{where}: a value that the price needs is not one of a model ({error})"
        ) from None

    raise UserError(
        f"{where}: no price for model_type {family!r}; known: nemotron_h, {', '.join(_GATED)}"
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
    """Nemotron-H: a norm and a mixer per layer. Names and defaults are those of NVIDIA's config."""
    letters = raw.get("layers_block_type") or raw.get("layer_types")
    letters = letters or raw["hybrid_override_pattern"]
    pattern = [_LAYERS.get(name, name) for name in letters]
    count = {letter: pattern.count(letter) for letter in "M*E-"}
    hidden, vocab = raw["hidden_size"], raw["vocab_size"]
    mamba = _Mamba.of(raw)
    query = raw.get("num_attention_heads", 0) * raw.get("head_dim", 128)
    key = raw.get("num_key_value_heads", 0) * raw.get("head_dim", 128)
    experts, top = raw.get("n_routed_experts", 8), raw.get("num_experts_per_tok", 2)
    latent = raw.get("moe_latent_size")
    # The matrices of a routed expert have no bias.
    expert = 2 * (latent or hidden) * raw.get("moe_intermediate_size", 7688)
    around_experts = experts * hidden + _mlp(raw, "moe_shared_expert_intermediate_size", 7688)

    if latent:
        around_experts += 2 * hidden * latent
        around_experts += (hidden + latent) * bool(raw.get("mlp_bias"))

    per_layer = {
        "M": mamba.parameters(raw),
        "*": 2 * hidden * query + 2 * hidden * key,
        "E": around_experts + experts * expert,
        "-": _mlp(raw, "intermediate_size", 21504),
    }
    # Counted by torch's saved tensors: `tests/test_price.py` compares.
    shared = raw.get("moe_shared_expert_intermediate_size", 7688)
    routed_width = 2 * (latent or hidden) + 2 * raw.get("moe_intermediate_size", 7688) + 4
    kept = {
        "M": 3 * hidden + mamba.kept,
        "*": 4 * hidden + 3 * query + 3 * key,
        "E": 3 * hidden + 2 * shared + top * routed_width + experts,
        "-": 3 * hidden + 2 * raw.get("intermediate_size", 21504),
    }
    embedding, tied = vocab * hidden, bool(raw.get("tie_word_embeddings"))
    norms = (len(pattern) + 1) * hidden
    body = sum(count[letter] * per_layer[letter] for letter in per_layer) + norms
    routed = count["E"] * experts * expert
    chosen = count["E"] * top * expert

    return Shape(
        total=body + embedding * (1 if tied else 2),
        active=body - routed + chosen + embedding,
        embedding=0 if tied else embedding,
        vocab=vocab,
        hidden=hidden,
        layers=len(pattern),
        attention=count["*"],
        query=query,
        key=key,
        scan=count["M"] * mamba.inner * mamba.state,
        conv=count["M"] * (mamba.kernel - 1) * mamba.convolved,
        routed=routed,
        experts=experts if count["E"] else 0,
        top=top,
        own=True,
        kept=sum(count[letter] * kept[letter] for letter in kept),
        widest=max(kept[letter] for letter in kept if count[letter]),
        largest=max(per_layer[letter] for letter in per_layer if count[letter]) + hidden,
        heads=raw.get("num_attention_heads", 0),
        key_heads=raw.get("num_key_value_heads", 0),
        scan_heads=mamba.heads if count["M"] else 0,
        groups=raw.get("n_groups", 8),
        moe=count["E"],
        moe_kept=kept["E"],
        sent=2 * top * (latent or hidden),
    )


@dataclass(frozen=True)
class _Mamba:
    """Widths of a Mamba-2 mixer."""

    heads: int
    """Heads of the scan."""
    inner: int
    """Heads times head width."""
    state: int
    """Numbers of state per channel."""
    kernel: int
    """Positions that the short convolution sees."""
    convolved: int
    """Channels of the short convolution: x, B and C."""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> _Mamba:
        heads, state = raw.get("mamba_num_heads", 128), raw.get("ssm_state_size", 128)
        inner = heads * raw.get("mamba_head_dim", 64)
        convolved = inner + 2 * raw.get("n_groups", 8) * state
        return cls(heads, inner, state, raw.get("conv_kernel", 4), convolved)

    @property
    def kept(self) -> int:
        """Numbers per token that the mixer keeps for the backward pass (chunks of 32 tokens)."""
        states = self.inner * self.state * 14 // (10 * 32)
        return 11 * (self.inner + self.convolved) // 2 + states

    def parameters(self, raw: Mapping[str, Any]) -> int:
        """Of one layer: in and out projection, convolution, A, D and dt bias, gated norm."""
        hidden, bias = raw["hidden_size"], bool(raw.get("use_bias"))
        projected = self.inner + self.convolved + self.heads
        into = hidden * projected + projected * bias
        convolution = self.convolved * (self.kernel + bool(raw.get("use_conv_bias", True)))
        out = self.inner * hidden + hidden * bias
        parameters: int = into + convolution + 3 * self.heads + self.inner + out
        return parameters


def _mlp(raw: Mapping[str, Any], key: str, default: int) -> int:
    """Two matrices, up and down, with a bias each where the config says so."""
    hidden, width = raw["hidden_size"], raw.get(key, default)
    parameters: int = 2 * hidden * width + (hidden + width) * bool(raw.get("mlp_bias"))
    return parameters


def _gated(raw: Mapping[str, Any]) -> Shape:
    """Llama and its kin: two norms, attention and a gated MLP or gated experts per layer."""
    family, hidden, vocab = raw["model_type"], raw["hidden_size"], raw["vocab_size"]
    layers, heads = raw["num_hidden_layers"], raw["num_attention_heads"]
    head_width = raw.get("head_dim") or hidden // heads
    key_heads = raw.get("num_key_value_heads") or heads
    query, key = heads * head_width, key_heads * head_width
    experts = _Experts.of(raw)
    dense = layers - experts.layers

    around = _attention(raw, query, key, head_width) + 2 * hidden
    per_layer = {"E": around + experts.parameters(hidden)}
    # Counted by torch's saved tensors: `tests/test_price.py` compares.
    normed = 2 if family in ("qwen3", "qwen3_moe", "olmo2") else 0
    kept_around = 6 * hidden + (2 + normed) * (query + key) + 2 * heads
    kept = {"E": kept_around + experts.kept(hidden)}
    if dense:
        wide = raw["intermediate_size"]
        per_layer["-"] = around + 3 * hidden * wide
        kept["-"] = kept_around + 4 * wide
        if family in ("llama", "smollm3") and raw.get("mlp_bias"):
            per_layer["-"] += 2 * wide + hidden

    count = {"E": experts.layers, "-": dense}
    embedding = vocab * hidden
    # Where a config.json does not say it, its family's own default holds.
    tied = bool(raw.get("tie_word_embeddings", family == "smollm3"))
    body = sum(count[kind] * size for kind, size in per_layer.items()) + hidden
    routed = experts.layers * experts.count * experts.size(hidden)
    chosen = experts.layers * experts.top * experts.size(hidden)

    return Shape(
        total=body + embedding * (1 if tied else 2),
        active=body - routed + chosen + embedding,
        embedding=0 if tied else embedding,
        vocab=vocab,
        hidden=hidden,
        layers=layers,
        attention=layers,
        query=query,
        key=key,
        scan=0,
        conv=0,
        routed=routed,
        experts=experts.count,
        top=experts.top,
        kept=sum(count[kind] * size for kind, size in kept.items()),
        widest=max(kept[kind] for kind in kept if count[kind]),
        largest=max(per_layer[kind] for kind in per_layer if count[kind]),
        heads=heads,
        key_heads=key_heads,
        moe=experts.layers,
        moe_kept=kept["E"] if experts.layers else 0,
    )


def _attention(raw: Mapping[str, Any], query: int, key: int, head_width: int) -> int:
    """Parameters of one layer's q, k, v and o, with the biases and norms of its family."""
    family, hidden = raw["model_type"], raw["hidden_size"]
    parameters: int = 2 * hidden * query + 2 * hidden * key
    if family in ("llama", "olmo2", "qwen3", "qwen3_moe", "smollm3") and raw.get("attention_bias"):
        parameters += query + 2 * key + hidden
    if family == "qwen2" or (family == "qwen2_moe" and raw.get("qkv_bias", True)):
        parameters += query + 2 * key
    # Qwen 3 norms each head of q and k, OLMo 2 all heads together.
    if family in ("qwen3", "qwen3_moe"):
        parameters += 2 * head_width
    if family == "olmo2":
        parameters += query + key
    return parameters


@dataclass(frozen=True)
class _Experts:
    """The routed experts of a family of gated MLPs, and the shared one beside them."""

    layers: int = 0
    """Layers that have them."""
    count: int = 0
    """Experts of such a layer."""
    top: int = 0
    """Experts that a token passes."""
    width: int = 0
    """Of one expert's MLP."""
    shared: int = 0
    """Width of the shared expert, which has a gate of its own; 0: there is none."""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> _Experts:
        family, layers = raw["model_type"], raw["num_hidden_layers"]
        if family not in _ROUTED:
            return cls()
        top = raw["num_experts_per_tok"]
        if family == "mixtral":
            return cls(layers, raw["num_local_experts"], top, raw["intermediate_size"])

        # transformers 5 writes Qwen 3's `num_experts` as `num_local_experts`.
        count = raw["num_local_experts"] if "num_local_experts" in raw else raw["num_experts"]
        dense, step = raw.get("mlp_only_layers") or [], raw.get("decoder_sparse_step", 1)
        sparse = [n for n in range(layers) if n not in dense and (n + 1) % step == 0]
        if not sparse or not count:
            return cls()
        shared = raw["shared_expert_intermediate_size"] if family == "qwen2_moe" else 0
        return cls(len(sparse), count, top, raw["moe_intermediate_size"], shared)

    def size(self, hidden: int) -> int:
        """Parameters of one expert: gate, up and down."""
        return 3 * hidden * self.width

    def parameters(self, hidden: int) -> int:
        """Of one layer: router, routed experts, and the shared one with its gate."""
        shared = 3 * hidden * self.shared + hidden if self.shared else 0
        return self.count * (hidden + self.size(hidden)) + shared

    def kept(self, hidden: int) -> int:
        """Numbers per token that one layer keeps of them for the backward pass."""
        shared = 4 * self.shared + hidden + 1 if self.shared else 0
        return self.top * (2 * hidden + 4 * self.width + 9) + self.count + shared
