"""Nemotron-H (Mamba-2, attention, mixture of experts) behind the `CausalLM` interface.

It packs exactly and decodes with a recurrent state.

Letters of shapes: T tokens laid end to end, R packed rows of width W, B rows of a running batch,
H hidden size, V vocabulary, L the longest row so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from linn.engine.models.interface import State
from linn.engine.models.kernels.choice import chunk_for
from linn.engine.models.nemotron_h import weights
from linn.engine.models.nemotron_h.caches import (
    AttentionCache,
    LayerCache,
    MambaCache,
    Seen,
    hidden_beyond,
)
from linn.engine.models.nemotron_h.common_prefixes import Tree, common_prefixes, lone, passes
from linn.engine.models.nemotron_h.config import Config, read_config
from linn.engine.models.nemotron_h.expert_step import moe_step
from linn.engine.models.nemotron_h.experts import MLP, MoE
from linn.engine.models.nemotron_h.layers import Attention, Mamba, RMSNorm
from linn.engine.models.nemotron_h.segments import Segments, lay_out, lay_out_behind
from linn.engine.models.nemotron_h.slots import HybridSlots
from linn.engine.models.nemotron_h.state import HybridState, joined
from linn.engine.models.recompute import recomputed
from linn.engine.models.rectangles import (
    into_rows,
    places_of_tokens,
    prompt_groups,
    prompts_of,
    segment_lengths,
)
from linn.engine.models.slots import Slots
from linn.engine.models.vocabulary import hide
from linn.engine.models.weight_files import config_of, write_config, write_weights
from linn.engine.protocol import SHARD_BYTES

PREFILL_TOKENS = 8192
"""Prompt tokens computed at once, to bound memory."""
CPU_PREFILL_TOKENS = 3072
"""The same on a CPU, where fewer stay in its caches."""


class Block(nn.Module):
    """One layer: norm, mixer, residual."""

    def __init__(self, config: Config, letter: str) -> None:
        super().__init__()
        self.norm = RMSNorm(
            config.hidden_size,
            config.layer_norm_epsilon,
        )

        # The letters of `Config.pattern`.
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
        self,
        hidden: Tensor,
        segments: Segments,
        with_cache: bool,
        before: LayerCache | None = None,
    ) -> tuple[Tensor, LayerCache | None]:
        """Hidden states [T, H] after the layer.

        With `with_cache`, also the cache after each leaf's last token (None without a memory).
        before: what segments that are laid out behind states go on from.
        """
        normed = self.norm(hidden)
        if before is not None:
            out, cache = self.mixer(normed, segments, with_cache, before)
            return hidden + out, cache
        if isinstance(self.mixer, Mamba | Attention):
            out, cache = self.mixer(normed, segments, with_cache)
            return hidden + out, cache

        return hidden + self.mixer(normed), None

    def step(
        self,
        hidden: Tensor,
        cache: LayerCache | None,
        lengths: Tensor,
        seen: Sequence[Seen],
        is_open: Tensor | None = None,
    ) -> Tensor:
        """One token per row, hidden [B, H] to [B, H]; updates the cache in place.

        lengths, seen: see `Attention.step`. is_open: see `Mamba.step`; where it is given, nothing
        is asked back from the device.
        """
        normed = self.norm(hidden)
        if isinstance(self.mixer, Mamba):
            assert isinstance(cache, MambaCache)
            return hidden + self.mixer.step(normed, cache, is_open)

        if isinstance(self.mixer, Attention):
            assert isinstance(cache, AttentionCache)
            return hidden + self.mixer.step(normed, cache, lengths, seen)

        if isinstance(self.mixer, MoE) and is_open is not None:
            return hidden + moe_step(self.mixer, normed)
        return hidden + self.mixer(normed)


class Backbone(nn.Module):
    """Embeddings, layers, final norm."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        # Weights are read, or made by `initialise`. The usual constructor would draw them before:
        # in vain, and on the meta device torch imports its compiler for it (2 s).
        self.embeddings = nn.Embedding.from_pretrained(
            torch.empty(config.vocab_size, config.hidden_size), freeze=False
        )
        self.layers = nn.ModuleList([Block(config, letter) for letter in config.pattern])
        self.norm_f = RMSNorm(config.hidden_size, config.layer_norm_epsilon)

    def forward(
        self,
        ids: Tensor,
        segments: Segments,
        with_cache: bool,
        before: Sequence[LayerCache | None] | None = None,
    ) -> tuple[Tensor, list[LayerCache | None]]:
        """Final normed hidden states [T, H] of ids [T], and each layer's cache after it.

        before: of each layer, what segments that are laid out behind states go on from.
        """
        hidden = self.embeddings(ids)
        caches = []
        for number, block in enumerate(self.layers):
            behind = () if before is None else (before[number],)
            hidden, cache = block(hidden, segments, with_cache, *behind)
            caches.append(cache)
        return self.norm_f(hidden), caches


class NemotronH(nn.Module):
    """The `CausalLM` of model type `nemotron_h`.

    Parameters carry the checkpoint's names; the matrices of a layer's experts are stacked.
    """

    packs = True
    shares = True
    has_slots = True

    def __init__(self, raw: dict[str, Any], file: Path) -> None:
        """raw: the content of `config.json`, kept to be saved again; file: its path, for errors."""
        super().__init__()
        self.raw = raw
        self.config = read_config(raw, file)
        self.vocab = self.config.vocab_size
        self.positions: int | None = None  # attention has none, the Mamba layers know the order
        self.absent: Tensor | None
        self.register_buffer("absent", None, persistent=False)
        self.recompute = False
        self.backbone = Backbone(self.config)
        self.lm_head = nn.Linear(self.config.hidden_size, self.vocab, bias=False)
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.backbone.embeddings.weight

    def hidden(self, ids: Tensor, segments: Tensor, continues: Tensor | None = None) -> Tensor:
        """Final normed hidden states [R, W, H] of packed rows; zeros at padding (segment -1)."""
        # The layout is made on the host, which waits for a GPU here and in no layer.
        shape, device = segments.shape, ids.device
        segments = segments.cpu()
        continues = None if continues is None else continues.cpu()
        lengths = segment_lengths(segments).tolist()
        prompts = prompts_of(segments, continues)
        layout = lay_out(lengths, chunk_for(device), self.config.conv_kernel, device, prompts)
        places = places_of_tokens(segments).to(device, non_blocking=True)

        with recomputed(list(self.backbone.layers), self.recompute):
            out, _ = self.backbone(ids.flatten()[places], layout, with_cache=False)
        return into_rows(out, places, shape)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] in float32 of hidden states [..., H], `NEVER` at the `absent` ids."""
        logits: Tensor = self.lm_head(hidden)
        return hide(logits.float(), self.absent)

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, HybridState]:
        """Logits [B, V] after each prompt, and the state to continue from.

        Long prompts are computed a few at a time, to bound memory; what prompts begin with in
        common is computed once.
        """
        on_cpu = self.lm_head.weight.device.type == "cpu"
        most = CPU_PREFILL_TOKENS if on_cpu else PREFILL_TOKENS
        # Not tried on a GPU, so there each prompt is computed whole.
        trees = common_prefixes(prompts) if on_cpu else lone(prompts)
        parts = list(passes(trees, prompts, most))
        computed = [self._prefill_part(part, prompts) for part in parts]
        logits, states = zip(*computed, strict=True)
        all_logits, state = torch.cat(logits), joined(states, move=True)

        order = [index for part in parts for tree in part for index in tree.members]
        if order == list(range(len(prompts))):
            return all_logits, state
        back = torch.tensor(order, device=all_logits.device).argsort()
        return all_logits[back], state.select(back, move=True)

    def _prefill_part(
        self, trees: Sequence[Tree], prompts: Sequence[Sequence[int]]
    ) -> tuple[Tensor, HybridState]:
        """`prefill` of trees that fit into memory together: a row per member, tree by tree."""
        tokens: list[int] = []
        lengths: list[int] = []
        goes_on: list[int] = []
        for tree in trees:
            prefix = -1
            if tree.prefix:
                prefix = len(lengths)
                tokens += prompts[tree.members[0]][: tree.prefix]
                lengths.append(tree.prefix)
                goes_on.append(-1)
            for index in tree.members:
                tokens += prompts[index][tree.prefix :]
                lengths.append(len(prompts[index]) - tree.prefix)
                goes_on.append(prefix)

        ids = torch.tensor(tokens, device=self.lm_head.weight.device)
        layout = lay_out(
            lengths,
            chunk_for(ids.device),
            self.config.conv_kernel,
            ids.device,
            goes_on if max(goes_on) >= 0 else None,
        )
        hidden, caches = self.backbone(ids, layout, with_cache=True)
        leaves = layout.leaves
        return self.head(hidden[leaves.ends]), HybridState(caches, leaves.lengths, leaves.longest)

    @torch.inference_mode()
    def siblings(self, state: State, owners: Tensor) -> HybridState:
        """The state of rows that go on from these rows; see `CausalLM.siblings`."""
        assert isinstance(state, HybridState), state
        if len(owners) == len(state.lengths):
            return state
        return state.select(owners, move=True)

    @torch.inference_mode()
    def decode(self, ids: Tensor, state: State) -> tuple[Tensor, HybridState]:
        """Feed one token per row (int64 [B]); logits [B, V].

        The state is updated in place and returned.
        """
        assert isinstance(state, HybridState), state
        longest = state.longest + 1
        state.reserve(longest)
        hidden = self._step(ids, state.layers, state.lengths, state.seen())
        state.lengths = state.lengths + 1
        state.longest = longest
        return self.head(hidden), state

    @property
    def extends(self) -> bool:
        """Whether `extend` is there: not tried on a GPU."""
        return self.lm_head.weight.device.type == "cpu"

    @torch.inference_mode()
    def extend(self, tokens: Sequence[Sequence[int]], state: State) -> tuple[Tensor, HybridState]:
        """Feed several tokens to each row; their hidden states [T, H], and the new state."""
        assert isinstance(state, HybridState), state
        computed = []
        first = 0
        for group in prompt_groups(tokens, CPU_PREFILL_TOKENS):
            rows = slice(first, first + len(group))
            computed.append(self._extend_part(group, state.view(rows)))
            first += len(group)
        hidden, states = zip(*computed, strict=True)
        return torch.cat(hidden), joined(states, move=True)

    def _extend_part(
        self, tokens: Sequence[Sequence[int]], state: HybridState
    ) -> tuple[Tensor, HybridState]:
        """`extend` of rows that fit into memory together."""
        ids = torch.tensor([token for own in tokens for token in own])
        layout = lay_out_behind(
            state.lengths,
            [len(own) for own in tokens],
            chunk_for(ids.device),
            self.config.conv_kernel,
        )
        hidden, caches = self.backbone(ids, layout, with_cache=True, before=state.layers)
        leaves = layout.leaves
        return hidden, HybridState(caches, leaves.lengths, leaves.longest)

    def _step(
        self,
        ids: Tensor,
        caches: list[LayerCache | None],
        lengths: Tensor,
        seen: Sequence[Seen],
        is_open: Tensor | None = None,
    ) -> Tensor:
        """Final normed hidden states [B, H] of one token per row; updates the caches in place."""
        hidden = self.backbone.embeddings(ids)
        for block, cache in zip(self.backbone.layers, caches, strict=True):
            assert isinstance(block, Block)
            hidden = block.step(hidden, cache, lengths, seen, is_open)
        return self.backbone.norm_f(hidden)

    def check_length(self, tokens: int) -> None:
        """A sequence may have any length."""

    def new_slots(self, like: State, rows: int, columns: int) -> HybridSlots:
        """Empty slots for states such as `like`."""
        assert isinstance(like, HybridState), like
        return HybridSlots(like, rows, columns)

    @torch.inference_mode()
    def decode_slots(self, ids: Tensor, slots: Slots, is_open: Tensor, columns: int) -> Tensor:
        """Feed one token to each of the first slots; logits [B, V]."""
        assert isinstance(slots, HybridSlots), slots
        lengths = slots.lengths[: len(ids)]
        column = torch.arange(columns, device=ids.device)
        seen = [Seen(slice(None), hidden_beyond(column, lengths))]
        hidden = self._step(ids, slots.first(len(ids)), lengths, seen, is_open)
        lengths += is_open
        return self.head(hidden)

    def initialise(self, seed: int) -> None:
        """Draw random weights, a function of the seed."""
        weights.draw(self.named_parameters(), self.config, seed)

    def row_bytes(self, columns: int) -> int:
        """Bytes that one row's state takes after `columns` tokens."""
        config = self.config
        number = self.lm_head.weight.element_size()
        keys_and_values = 2 * config.num_key_value_heads * config.head_dim * number

        # The scan's state and its decay are in float32, whatever the weights are in.
        scan = 4 * (config.inner * config.ssm_state_size + config.mamba_num_heads)
        convolution = number * (config.conv_kernel - 1) * config.channels

        letters = config.pattern
        attention = letters.count("*") * keys_and_values * columns
        return attention + letters.count("M") * (scan + convolution)

    def save(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        """Write config.json and the weights in the dtype they have; see `CausalLM.save`."""
        folder.mkdir(parents=True, exist_ok=True)
        # A tied head is written too: transformers' class of this family does not tie.
        tensors = dict(weights.unstacked(self.state_dict()))

        def tensor(name: str) -> Tensor:
            # A copy: an expert's matrix is a view into the stack of all of them.
            return tensors[name].detach().to("cpu").contiguous().clone()

        sizes = {name: value.nbytes for name, value in tensors.items()}
        write_weights(sizes, tensor, folder, shard_bytes)
        write_config(self.saved_config(), folder)

    def saved_config(self) -> dict[str, Any]:
        """The content of the config.json that goes with the weights as they are."""
        raw = dict(self.raw)
        raw.pop("mamba_dt_limit", None)  # an old name
        raw["time_step_limit"] = list(self.config.time_step_limit)
        return config_of(raw, "NemotronHForCausalLM", self.lm_head.weight.dtype)

    @classmethod
    def load(cls, folder: Path, raw: dict[str, Any], dtype: torch.dtype) -> NemotronH:
        """Read the weights of a folder whose config.json holds `raw`.

        Raises UserError that names a missing, unknown or misshapen tensor.
        """
        # On the meta device nothing is allocated: the tensors that are read become the weights.
        with torch.device("meta"):
            model = cls(raw, folder / "config.json")
        names = model.state_dict()
        expected = {
            name: value.shape  # one matrix per expert, as in the file
            for name, value in weights.unstacked(names)
        }

        tensors = weights.read_tensors(folder, dtype)
        says_tied = model.config.tie_word_embeddings
        tied = says_tied and weights.ties_head(tensors)
        weights.check_shapes(tensors, expected, folder)

        state = weights.stacked(tensors, names)
        model.load_state_dict(state, assign=True)
        if tied:  # loading has assigned a tensor to each
            model.lm_head.weight = model.backbone.embeddings.weight
        elif says_tied:
            model.raw = {**raw, "tie_word_embeddings": False}
        return model
