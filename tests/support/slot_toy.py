"""The toy model with slots, and small random models of real families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from linn.engine.models.nemotron_h.model import NemotronH
from linn.engine.models.transformers_lm import TransformersLM
from support.toy_lm import ToyLM, ToyState

HYBRID: dict[str, Any] = {
    "model_type": "nemotron_h",
    "architectures": ["NemotronHForCausalLM"],
    "vocab_size": 40,
    "hidden_size": 32,
    "hybrid_override_pattern": "ME*E-*M",
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "ssm_state_size": 8,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "n_groups": 2,
    "conv_kernel": 4,
    "use_conv_bias": True,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 16,
    "moe_shared_expert_intermediate_size": 24,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "tie_word_embeddings": True,
    "layer_norm_epsilon": 1e-5,
    "max_position_embeddings": 4096,
    # Wide enough that logits are far from equal: an error shows in what is drawn.
    "initializer_range": 0.1,
    "chunk_size": 16,
    "expand": 2,
}


def small_hybrid(**changes: Any) -> NemotronH:
    """A random model with every kind of layer."""
    model = NemotronH(HYBRID | changes, Path("config.json"))
    model.initialise(0)
    return model


def small_family(kind: str = "Qwen3", **changes: Any) -> TransformersLM:
    """A random model of a family of transformers."""
    import transformers

    sizes = {
        "vocab_size": 40,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "initializer_range": 0.1,
    }
    special: dict[str, Any] = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    config = getattr(transformers, f"{kind}Config")(**{**sizes, **special, **changes})
    torch.manual_seed(0)
    return TransformersLM(transformers.AutoModelForCausalLM.from_config(config))


class ToySlots:
    """h [R, H]; what a closed slot holds must not change, and no row may pass the columns."""

    def __init__(self, like: ToyState, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.lengths = torch.zeros(rows, dtype=torch.int64)
        self.h = like.h.new_zeros(rows, like.h.shape[1])

    def put(self, slots: Tensor, state: ToyState, rows: Tensor) -> None:
        self.h[slots] = state.h[rows]
        self.lengths[slots] = state.lengths[rows]

    def take(self, slots: Tensor, longest: int) -> Any:
        assert int(self.lengths[slots].max()) == longest
        return LongToyState(self.h[slots], self.lengths[slots])

    def move(self, source: Tensor, target: Tensor) -> None:
        assert not set(source.tolist()) & set(target.tolist())
        self.h[target], self.lengths[target] = self.h[source], self.lengths[source]

    def resize(self, rows: int, columns: int) -> None:
        kept = min(rows, self.rows)
        h, lengths = self.h, self.lengths
        self.__init__(ToyState(h), rows, columns)  # type: ignore[misc]
        self.h[:kept] = h[:kept]
        self.lengths[:kept] = lengths[:kept].clamp(max=columns - 1)


class LongToyState(ToyState):
    """A state that knows how long it is."""

    def __init__(self, h: Tensor, lengths: Tensor) -> None:
        super().__init__(h)
        object.__setattr__(self, "lengths", lengths)

    def select(self, rows: Tensor, move: bool = False) -> LongToyState:
        return LongToyState(self.h[rows], self.lengths[rows])

    def join(self, *others: Any, move: bool = False, rows: Tensor | None = None) -> LongToyState:
        own = self if rows is None else self.select(rows)
        states = (own, *others)
        lengths = torch.cat([state.lengths for state in states])
        return LongToyState(torch.cat([state.h for state in states]), lengths)


class SlotToyLM(ToyLM):
    """`ToyLM` that decodes in slots as well."""

    has_slots = True

    def prefill(self, prompts: Any) -> tuple[Tensor, LongToyState]:
        logits, state = super().prefill(prompts)
        return logits, LongToyState(state.h, torch.tensor([len(one) for one in prompts]))

    def decode(self, ids: Tensor, state: Any) -> tuple[Tensor, LongToyState]:
        logits, new = super().decode(ids, state)
        return logits, LongToyState(new.h, state.lengths + 1)

    def check_length(self, tokens: int) -> None:
        pass

    def new_slots(self, like: Any, rows: int, columns: int) -> ToySlots:
        return ToySlots(like, rows, columns)

    @torch.no_grad()
    def decode_slots(self, ids: Tensor, slots: Any, is_open: Tensor, columns: int) -> Tensor:
        rows = len(ids)
        assert columns <= slots.columns and int(slots.lengths[:rows].max()) < slots.columns
        assert int((slots.lengths[:rows] * is_open).max()) < columns
        old = slots.h[:rows]
        h = torch.sigmoid(self.decay) * old + self.embed[ids]
        slots.h[:rows] = torch.where(is_open[:, None], h, old)
        slots.lengths[:rows] += is_open
        return self.head(torch.tanh(h))
