"""Nemotron-H (Mamba-2, attention, mixture of experts) that packs exactly and decodes with a recurrent state."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from linn.engine.models.interface import State
from linn.engine.models.nemotron_h.layers import (
    MLP,
    Attention,
    AttentionCache,
    Config,
    Mamba,
    MambaCache,
    MoE,
    RMSNorm,
    read_config,
)
from linn.engine.models.nemotron_h.segments import Stream, stream
from linn.errors import UserError

CHUNK = 32
"""Tokens of a scan chunk: the fastest on a CPU thread (`bench/speed/model.py`); the config's `chunk_size` is for GPU kernels and changes no result."""
PREFILL_TOKENS = 8192
"""Prompt tokens computed at once, to bound memory."""


class HybridState:
    """Caches of B running sequences; rows may have different lengths."""

    def __init__(
        self, layers: list[MambaCache | AttentionCache | None], lengths: Tensor, longest: int
    ) -> None:
        self.layers = layers
        self.lengths = lengths
        """int64 [B]: tokens fed so far."""
        self.longest = longest
        """Largest of the lengths, known without asking the device."""

    def reserve(self, columns: int) -> None:
        """Make room for so many tokens a row, and half as many again when it has to move."""
        for place, layer in enumerate(self.layers):
            if isinstance(layer, AttentionCache) and layer.values.shape[2] < columns:
                self.layers[place] = layer.resized(max(64, columns + columns // 2))

    def select(self, rows: Tensor) -> HybridState:
        """A new state holding these rows (int64 [B']), in this order; rows may repeat or be left out."""
        lengths = self.lengths[rows]
        longest = int(lengths.max()) if len(rows) else 0
        layers: list[MambaCache | AttentionCache | None] = []
        for layer in self.layers:
            if isinstance(layer, MambaCache):
                layers.append(MambaCache(layer.conv[rows], layer.ssm[rows]))
            elif isinstance(layer, AttentionCache):
                layers.append(
                    AttentionCache(
                        layer.keys[..., :longest][rows], layer.values[:, :, :longest][rows]
                    )
                )
            else:
                layers.append(None)
        return HybridState(layers, lengths, longest)

    def join(self, other: State) -> HybridState:
        """This state's rows followed by the other's."""
        assert isinstance(other, HybridState), other
        longest = max(self.longest, other.longest)
        layers: list[MambaCache | AttentionCache | None] = []
        for one, two in zip(self.layers, other.layers, strict=True):
            if isinstance(one, MambaCache) and isinstance(two, MambaCache):
                layers.append(
                    MambaCache(torch.cat([one.conv, two.conv]), torch.cat([one.ssm, two.ssm]))
                )
            elif isinstance(one, AttentionCache) and isinstance(two, AttentionCache):
                one, two = one.resized(longest), two.resized(longest)
                layers.append(
                    AttentionCache(
                        torch.cat([one.keys, two.keys]), torch.cat([one.values, two.values])
                    )
                )
            else:
                layers.append(None)
        return HybridState(layers, torch.cat([self.lengths, other.lengths]), longest)


class Block(nn.Module):
    """One layer: norm, mixer, residual."""

    def __init__(self, config: Config, letter: str) -> None:
        super().__init__()
        self.norm = RMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.mixer: Mamba | Attention | MoE | MLP
        if letter == "M":
            self.mixer = Mamba(config)
        elif letter == "*":
            self.mixer = Attention(config)
        elif letter == "E":
            self.mixer = MoE(config)
        else:
            self.mixer = MLP(config, config.intermediate_size)

    def forward(
        self, hidden: Tensor, layout: Stream, keep: bool
    ) -> tuple[Tensor, MambaCache | AttentionCache | None]:
        """Hidden states [T, H] after the layer; with `keep`, also the cache after each segment's last token."""
        if isinstance(self.mixer, Mamba | Attention):
            out, cache = self.mixer(self.norm(hidden), layout, keep)
            return hidden + out, cache
        return hidden + self.mixer(self.norm(hidden)), None

    def step(
        self,
        hidden: Tensor,
        cache: MambaCache | AttentionCache | None,
        lengths: Tensor,
        hide: Tensor,
    ) -> Tensor:
        """One token a row, [B, H]; updates the cache in place."""
        if isinstance(self.mixer, Mamba):
            assert isinstance(cache, MambaCache)
            return hidden + self.mixer.step(self.norm(hidden), cache)
        if isinstance(self.mixer, Attention):
            assert isinstance(cache, AttentionCache)
            return hidden + self.mixer.step(self.norm(hidden), cache, lengths, hide)
        return hidden + self.mixer(self.norm(hidden))


class Backbone(nn.Module):
    """Embeddings, layers, final norm."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([Block(config, letter) for letter in config.pattern])
        self.norm_f = RMSNorm(config.hidden_size, config.layer_norm_epsilon)


class NemotronH(nn.Module):
    """The `CausalLM` of model type `nemotron_h`; parameters carry the checkpoint's names, experts stacked."""

    packs = True

    def __init__(self, raw: dict[str, Any], where: Path) -> None:
        """raw: the content of `config.json`, kept to be saved again; where: its file, for messages."""
        super().__init__()
        self.raw = raw
        self.config = read_config(raw, where)
        self.vocab = self.config.vocab_size
        self.backbone = Backbone(self.config)
        self.lm_head = nn.Linear(self.config.hidden_size, self.vocab, bias=False)
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.backbone.embeddings.weight

    def hidden(self, ids: Tensor, segments: Tensor) -> Tensor:
        """Final normed hidden states [R, W, H] of packed rows; zeros at padding (segment -1)."""
        real = segments >= 0
        row = torch.arange(len(segments), device=segments.device)[:, None]
        owner = (segments + row * (segments.max() + 1))[real]
        lengths = torch.unique_consecutive(owner, return_counts=True)[1].tolist()
        out = self._run(
            ids[real], stream(lengths, CHUNK, self.config.conv_kernel, ids.device), keep=False
        )[0]
        if len(out) == ids.numel():
            return out.view(*ids.shape, -1)
        return out.new_zeros(*ids.shape, out.shape[-1]).index_put((real,), out)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] in float32 of hidden states [..., H]."""
        logits: Tensor = self.lm_head(hidden)
        return logits.float()

    def _run(
        self, ids: Tensor, layout: Stream, keep: bool
    ) -> tuple[Tensor, list[MambaCache | AttentionCache | None]]:
        hidden = self.backbone.embeddings(ids)
        caches = []
        for block in self.backbone.layers:
            hidden, cache = block(hidden, layout, keep)
            caches.append(cache)
        return self.backbone.norm_f(hidden), caches

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, HybridState]:
        """Logits [B, V] after each prompt, and the state to go on from."""
        logits, state = [], None
        for group in _groups(prompts, PREFILL_TOKENS):
            lengths = [len(prompt) for prompt in group]
            ids = torch.tensor(
                [token for prompt in group for token in prompt], device=self.lm_head.weight.device
            )
            layout = stream(lengths, CHUNK, self.config.conv_kernel, ids.device)
            hidden, caches = self._run(ids, layout, keep=True)
            logits.append(self.head(hidden[layout.ends]))
            part = HybridState(caches, torch.tensor(lengths, device=ids.device), max(lengths))
            state = part if state is None else state.join(part)
        assert state is not None, "no prompts"
        return torch.cat(logits), state

    @torch.inference_mode()
    def decode(self, ids: Tensor, state: State) -> tuple[Tensor, HybridState]:
        """Feed one token a row (int64 [B]); logits [B, V]. The state is updated in place and returned."""
        assert isinstance(state, HybridState), state
        hidden = self.backbone.embeddings(ids)
        longest = state.longest + 1
        state.reserve(longest)
        column = torch.arange(longest, device=ids.device)
        hide = torch.zeros(len(ids), 1, longest, device=ids.device).masked_fill_(
            (column > state.lengths[:, None])[:, None], -torch.inf
        )
        for block, cache in zip(self.backbone.layers, state.layers, strict=True):
            assert isinstance(block, Block)
            hidden = block.step(hidden, cache, state.lengths, hide)
        state.lengths = state.lengths + 1
        state.longest = longest
        return self.head(self.backbone.norm_f(hidden)), state

    def initialise(self, seed: int) -> None:
        """Random weights: normal, projections back into the residual scaled down by the depth, A and dt as Mamba-2 does."""
        config = self.config
        generator = torch.Generator().manual_seed(seed)
        down = config.initializer_range / math.sqrt(len(config.pattern))
        with torch.no_grad():
            for name, weight in sorted(self.named_parameters()):
                if name.endswith("A_log"):
                    weight.copy_(
                        torch.empty_like(weight).uniform_(1, 16, generator=generator).log()
                    )
                elif name.endswith("dt_bias"):
                    low, high = math.log(config.time_step_min), math.log(config.time_step_max)
                    dt = (
                        torch.empty_like(weight)
                        .uniform_(low, high, generator=generator)
                        .exp()
                        .clamp_min(config.time_step_floor)
                    )
                    weight.copy_(dt + torch.log(-torch.expm1(-dt)))
                elif name.endswith("conv1d.weight"):
                    bound = 1 / math.sqrt(config.conv_kernel)
                    weight.uniform_(-bound, bound, generator=generator)
                elif name.endswith(".bias"):
                    weight.zero_()
                elif weight.dim() > 1:
                    residual = name.endswith(
                        (
                            "out_proj.weight",
                            "o_proj.weight",
                            "down_proj.weight",
                            "down_proj",
                            "fc2_latent_proj.weight",
                        )
                    )
                    weight.normal_(
                        0, down if residual else config.initializer_range, generator=generator
                    )

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor under its name in the file: one tensor per expert."""
        for name, value in self.state_dict().items():
            if ".experts." in name:
                stem, kind = name.rsplit(".", 1)
                for number, matrix in enumerate(value):
                    yield f"{stem}.{number}.{kind}.weight", matrix
            else:
                yield name, value

    def save(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write config.json and model.safetensors, in `dtype` (default: the weights' own); the same weights give the same bytes."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        dtype = dtype or self.lm_head.weight.dtype
        out = {}
        for name, value in self.tensors():
            keep = name.endswith("e_score_correction_bias")
            out[name] = (
                value.detach().to("cpu", value.dtype if keep else dtype).contiguous().clone()
            )
        save_file(out, folder / "model.safetensors", metadata={"format": "pt"})
        raw = self.raw | {
            "architectures": ["NemotronHForCausalLM"],
            "dtype": str(dtype).removeprefix("torch."),
        }
        raw.pop("torch_dtype", None)  # the old name of dtype
        (folder / "config.json").write_text(
            json.dumps(raw, indent=2, sort_keys=True) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(cls, folder: Path, raw: dict[str, Any], dtype: torch.dtype) -> NemotronH:
        """Read the weights of a folder whose config.json holds `raw`; UserError names a missing or misshapen tensor."""
        with torch.device("meta"):
            model = cls(raw, folder / "config.json")
        want = {name: value.shape for name, value in model.tensors()}
        found: dict[str, Tensor] = {}
        for name, value in _read(folder):
            if not name.startswith(
                "mtp."
            ):  # heads that predict several tokens ahead: for speculative decoding only
                name = (
                    "backbone." + name.removeprefix("model.") if name.startswith("model.") else name
                )
                found[name] = value.to(
                    torch.float32 if name.endswith("e_score_correction_bias") else dtype
                )
        if model.config.tie_word_embeddings and "backbone.embeddings.weight" in found:
            found["lm_head.weight"] = found["backbone.embeddings.weight"]
        for name in sorted(want.keys() | found.keys()):
            have = tuple(found[name].shape) if name in found else "none"
            need = tuple(want[name]) if name in want else "none"
            if have != need:
                raise UserError(
                    f"{folder}: tensor {name}: shape {have} found, {need} expected; do config.json and the weights match?"
                )
        state = {
            name: _stacked(found, name) if ".experts." in name else found[name]
            for name in model.state_dict()
        }
        model.load_state_dict(state, assign=True)
        if model.config.tie_word_embeddings:
            model.lm_head.weight = model.backbone.embeddings.weight
        return model


def _stacked(found: dict[str, Tensor], name: str) -> Tensor:
    """The experts' matrices of one kind, stacked in order; takes them out of `found`."""
    stem, kind = name.rsplit(".", 1)
    count = sum(key.startswith(f"{stem}.") and key.endswith(f".{kind}.weight") for key in found)
    return torch.stack([found.pop(f"{stem}.{number}.{kind}.weight") for number in range(count)])


def _groups(prompts: Sequence[Sequence[int]], most: int) -> Iterator[list[Sequence[int]]]:
    """Prompts in order, in groups of at most `most` tokens (or one prompt)."""
    group: list[Sequence[int]] = []
    size = 0
    for prompt in prompts:
        assert len(prompt) > 0, "empty prompt"
        if group and size + len(prompt) > most:
            yield group
            group, size = [], 0
        group.append(prompt)
        size += len(prompt)
    if group:
        yield group


def _read(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a folder's safetensors, one file or the shards of its index."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        files = ["model.safetensors"]
    for file in files:
        if not (folder / file).is_file():
            raise UserError(
                f"{folder}: no {file}; weights must be model.safetensors or the shards of {index.name}"
            )
        with safe_open(folder / file, "pt") as shard:
            for name in shard.keys():  # noqa: SIM118 (not a mapping)
                yield name, shard.get_tensor(name)
