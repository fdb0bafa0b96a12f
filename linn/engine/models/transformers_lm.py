"""Every model family that `transformers` knows, behind the `CausalLM` interface."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from linn.engine.models.interface import State
from linn.engine.models.nemotron_h.segments import buckets
from linn.errors import UserError


class CacheState:
    """A `transformers` cache of B rows, padded on the left so that every row's newest token is in the last column."""

    def __init__(self, cache: Any, lengths: Tensor, columns: int) -> None:
        self.cache = cache
        self.lengths = lengths
        """int64 [B]: tokens fed so far."""
        self.columns = columns
        """Columns of the cached keys, known without asking the device; never less than the largest length."""

    @property
    def mask(self) -> Tensor:
        """int64 [B, columns]: 1 where a column holds a row's token."""
        column = torch.arange(self.columns, device=self.lengths.device)
        return (column >= self.columns - self.lengths[:, None]).long()

    def select(self, rows: Tensor) -> CacheState:
        """A new state holding these rows (int64 [B']), in this order; columns that only left-out rows used are dropped."""
        lengths = self.lengths[rows]
        columns = int(lengths.max()) if len(rows) else 0
        cut = self.columns - columns
        return CacheState(
            _mapped([self.cache], lambda t: t[0][:, :, cut:][rows], lambda t: t[0][rows]),
            lengths,
            columns,
        )

    def join(self, other: State) -> CacheState:
        """This state's rows followed by the other's, the narrower padded on the left."""
        assert isinstance(other, CacheState), other
        columns = max(self.columns, other.columns)

        def keys(pair: list[Tensor]) -> Tensor:
            return torch.cat([F.pad(t, (0, 0, columns - t.shape[2], 0)) for t in pair])

        return CacheState(
            _mapped([self.cache, other.cache], keys, torch.cat),
            torch.cat([self.lengths, other.lengths]),
            columns,
        )


def _mapped(
    caches: list[Any],
    keys: Callable[[list[Tensor]], Tensor],
    states: Callable[[list[Tensor]], Tensor],
) -> Any:
    """A new cache whose keys and values [B, heads, columns, d], and whose conv and recurrent states [B, ...], come from the caches' own."""
    out = copy.copy(caches[0])
    out.layers = []
    for layers in zip(*(cache.layers for cache in caches), strict=True):
        new = copy.copy(layers[0])
        for name in ("keys", "values"):
            held = [
                t for t in (getattr(layer, name, None) for layer in layers) if isinstance(t, Tensor)
            ]
            if held:
                setattr(new, name, keys(held))
        for name in ("conv_states", "recurrent_states"):
            if hasattr(new, name):
                first = getattr(layers[0], name)
                setattr(
                    new,
                    name,
                    {
                        i: None if t is None else states([getattr(o, name)[i] for o in layers])
                        for i, t in first.items()
                    },
                )
        out.layers.append(new)
    return out


class TransformersLM(nn.Module):
    """Any `AutoModelForCausalLM` as a `CausalLM`.

    Packed rows are computed segment by segment (similar lengths together, padded on the right, where a causal model never looks),
    so recurrent and sliding-window families pack as exactly as plain attention. Dropout is never on: sampler and trainer must agree.
    """

    packs = True

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.vocab = int(inner.get_output_embeddings().weight.shape[0])
        self._positions = "position_ids" in inspect.signature(inner.forward).parameters
        self.eval()

    def train(self, mode: bool = True) -> TransformersLM:
        """Stay in evaluation mode: the only difference would be dropout."""
        return super().train(False)

    def hidden(self, ids: Tensor, segments: Tensor) -> Tensor:
        """Final normed hidden states [R, W, H] of packed rows; zeros at padding (segment -1)."""
        real = segments >= 0
        row = torch.arange(len(segments), device=segments.device)[:, None]
        owner = (segments + row * (segments.max() + 1))[real]
        size = torch.unique_consecutive(owner, return_counts=True)[1].cpu()
        shapes, laid, place = buckets(size)
        laid, place = laid.to(ids.device), place.to(ids.device)
        parts = []
        for (rows, length), part in zip(
            shapes, ids[real][laid].split([r * n for r, n in shapes]), strict=True
        ):
            out = self.inner.base_model(
                input_ids=part.view(rows, length), use_cache=False
            ).last_hidden_state
            parts.append(out.flatten(0, 1))
        flat = torch.cat(parts)[place]
        return flat.new_zeros(*ids.shape, flat.shape[-1]).index_put((real,), flat)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] in float32 of hidden states [..., H], scaled and capped as the family does."""
        logits: Tensor = self.inner.get_output_embeddings()(hidden).float()
        config = self.inner.config.get_text_config(decoder=True)
        if divide := getattr(config, "logits_scaling", None):
            logits = logits / divide
        if multiply := getattr(config, "logit_scale", None):
            logits = logits * multiply
        if cap := getattr(config, "final_logit_softcapping", None):
            logits = torch.tanh(logits / cap) * cap
        return logits

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, CacheState]:
        """Logits [B, V] after each prompt, and the state to go on from."""
        assert prompts and all(len(prompt) > 0 for prompt in prompts), "no prompts, or an empty one"
        device = self.inner.get_output_embeddings().weight.device
        columns = max(map(len, prompts))
        ids = torch.tensor(
            [[0] * (columns - len(prompt)) + list(prompt) for prompt in prompts], device=device
        )
        state = CacheState(
            self._cache(), torch.tensor([len(prompt) for prompt in prompts], device=device), columns
        )
        positions = (state.mask.cumsum(-1) - 1).clamp_min(0)
        return self._run(ids, positions, state), state

    @torch.inference_mode()
    def decode(self, ids: Tensor, state: State) -> tuple[Tensor, CacheState]:
        """Feed one token a row (int64 [B]); logits [B, V]. The state is updated in place and returned."""
        assert isinstance(state, CacheState), state
        positions = state.lengths[:, None]
        state.lengths = state.lengths + 1
        state.columns += 1
        return self._run(ids[:, None], positions, state), state

    def _run(self, ids: Tensor, positions: Tensor, state: CacheState) -> Tensor:
        """Logits [B, V] of the last column; the state's lengths already count these tokens."""
        extra = {"position_ids": positions} if self._positions else {}
        out = self.inner.base_model(
            input_ids=ids,
            attention_mask=state.mask,
            past_key_values=state.cache,
            use_cache=True,
            **extra,
        )
        return self.head(out.last_hidden_state[:, -1])

    def _cache(self) -> Any:
        """An empty cache; sliding windows keep all keys (the family's mask hides the old ones), so that rows can be joined."""
        from transformers import cache_utils

        empty: Any = cache_utils.DynamicLayer
        known = {
            "DynamicLayer",
            "LinearAttentionLayer",
            "LinearAttentionAndFullAttentionLayer",
            "DummyLayer",
        }
        cache = cache_utils.DynamicCache(config=self.inner.config)
        for place, layer in enumerate(cache.layers):
            if type(layer) is cache_utils.DynamicSlidingWindowLayer:
                cache.layers[place] = empty()
            elif type(layer).__name__ not in known:
                raise UserError(
                    f"model type {self.inner.config.model_type}: its cache ({type(layer).__name__}) can't be batched here"
                )
        return cache

    def save(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write config.json and model.safetensors, in `dtype` (default: the weights' own)."""
        config, own = self.inner.config, self.inner.config.dtype
        state = (
            {name: value.to(dtype) for name, value in self.inner.state_dict().items()}
            if dtype
            else None
        )
        try:
            config.dtype = dtype or self.inner.get_output_embeddings().weight.dtype
            self.inner.save_pretrained(folder, state_dict=state)
        finally:
            config.dtype = own

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype) -> TransformersLM:
        """Read a folder of any family; UserError says what is unknown or missing."""
        import transformers

        auto: Any = transformers.AutoModelForCausalLM
        quiet: Any = transformers.utils.logging.disable_progress_bar
        quiet()
        try:
            inner, report = auto.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (ValueError, OSError, KeyError) as error:
            raise UserError(
                f"{folder}: transformers can't load it: {str(error).strip().splitlines()[0]}"
            ) from None
        absent = sorted(report["missing_keys"]) + sorted(
            str(key) for key in report["mismatched_keys"]
        )
        if absent:
            raise UserError(
                f"{folder}: {len(absent)} tensors are missing or misshapen ({absent[0]}); do config.json and weights match?"
            )
        model = cls(inner)
        model.check(folder)
        return model

    @torch.inference_mode()
    def check(self, folder: Path) -> None:
        """Refuse a family whose logits are not `head(hidden(...))`: training would silently be of another model."""
        ids = (
            torch.arange(1, 5, device=self.inner.get_output_embeddings().weight.device)[None]
            % self.vocab
        )
        want = self.inner(input_ids=ids, use_cache=False).logits.float()
        found = self.head(self.hidden(ids, torch.zeros_like(ids)))
        if want.shape != found.shape or not torch.allclose(want, found, rtol=1e-2, atol=1e-2):
            raise UserError(
                f"{folder}: model type {self.inner.config.model_type} changes its logits in a way linn doesn't know"
            )
