"""Every model family that `transformers` knows, behind the `CausalLM` interface.

Letters of shapes: R packed rows of width W, T tokens without padding, B rows of a running batch,
H hidden size, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from linn.engine.models import extension, fixed_cache, joined_prefill, siblings
from linn.engine.models.agreement import TOLERANCE
from linn.engine.models.cache_state import CacheState, joined
from linn.engine.models.family_code import decoder_of, free_time_step, scaled
from linn.engine.models.growing_layer import growing_cache
from linn.engine.models.interface import State
from linn.engine.models.joined_rows import (
    attends_to_all,
    joined_attention,
    joined_states,
    may_attend,
)
from linn.engine.models.kept_prompts import SharedRows, agrees, prompt_cache, shared_states
from linn.engine.models.kernels.choice import on_gpu
from linn.engine.models.plain_blocks import plain_blocks
from linn.engine.models.positions import longest_sequence
from linn.engine.models.recompute import layers_of_family, recomputed
from linn.engine.models.rectangles import (
    GPU_WASTE,
    WASTE,
    Rectangles,
    into_rows,
    longest_whole,
    places_of_tokens,
    prompt_groups,
    prompts_of,
    rectangles,
    segment_lengths,
)
from linn.engine.models.siblings import Decode, SiblingState
from linn.engine.models.slots import Slots
from linn.engine.models.vocabulary import hide
from linn.engine.models.weight_files import config_of, write_config
from linn.engine.protocol import SHARD_BYTES
from linn.errors import UserError

_CACHE_ARGUMENTS = ("past_key_values", "cache_params")
"""What families call their cache: attention and hybrids, Mamba and its kin."""

_PREFILL_TOKENS = 1024
"""Prompt tokens computed at once, to bound memory."""

_HALF_TOLERANCE = 0.1
"""Nats that two ways of decoding may differ by in half precision."""

_PROBE = 8
"""Tokens by which the two prompts differ that tell what a row's state takes."""


class TransformersLM(nn.Module):
    """Any `AutoModelForCausalLM` as a `CausalLM`.

    Where attention alone knows the segments, packed rows are computed in one pass. Others go
    segment by segment (similar lengths together, padded on the right, where a causal model never
    looks). So recurrent and sliding-window families pack as exactly as plain attention. Dropout is
    never on: sampler and trainer must agree.
    """

    packs = True

    def __init__(self, inner: Any, raw: dict[str, Any] | None = None) -> None:
        """raw: the content of config.json, kept to be saved again; None: the inner model's own."""
        super().__init__()
        self.inner = inner
        self.raw = raw
        self.vocab = int(inner.get_output_embeddings().weight.shape[0])
        # What pads may also end a turn (SmolLM2): its embedding is trained like any other.
        for module in inner.modules():
            if isinstance(module, nn.Embedding):
                module.padding_idx = None
        self._decoder = decoder_of(inner)
        self._takes = set(inspect.signature(self._decoder.forward).parameters)
        self.absent: Tensor | None
        self.register_buffer("absent", None, persistent=False)
        self.recompute = False
        self.least_forwards = 0
        """Times that `hidden` calls the family's code, at least: a model that is sharded over ranks
        gathers its weights in each of them, so all ranks must make as many."""
        self.joined: bool | None = None
        """Whether packed rows are computed in one pass; None: where the family can."""
        self._row_bytes: tuple[int, int] | None = None
        """Bytes of a row's state that stay, and those per token."""
        self.eval()
        self.positions = longest_sequence(self._decoder, inner.config)

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.inner.get_output_embeddings().weight.device
        return device

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.inner.get_input_embeddings().weight.dtype
        return dtype

    @property
    def lm_head(self) -> nn.Module:
        """What the head begins with: the product with the output embeddings."""
        head: nn.Module = self.inner.get_output_embeddings()
        return head

    def train(self, mode: bool = True) -> TransformersLM:
        """Stay in evaluation mode: the only difference would be dropout."""
        return super().train(False)

    @cached_property
    def shares(self) -> bool:
        """Whether the family goes on from a prompt's keys as it computes whole sequences; tried."""
        if self.joined is None and self._joins:
            return True
        takes = {"past_key_values", "position_ids", "attention_mask"}
        if not takes <= self._takes or prompt_cache(self.inner.config) is None:
            return False
        return agrees(self, TOLERANCE, joined=False)

    @cached_property
    def _joins(self) -> bool:
        """Whether the family computes packed rows in one pass as it does each segment; tried."""
        return may_attend(self.inner.config, self._takes) and agrees(self, TOLERANCE, joined=True)

    def _is_joined(self, device: torch.device) -> bool:
        """Whether packed rows on this device are computed in one pass."""
        if self.joined is not None:
            return self.joined
        return device.type == "cpu" and not on_gpu(device) and self._joins

    def attention(self) -> AbstractContextManager[None]:
        """What the family's layers are computed in, and computed again."""
        if self._is_joined(self._device):
            return joined_attention(self.inner.config)
        return nullcontext()

    def hidden(self, ids: Tensor, segments: Tensor, continues: Tensor | None = None) -> Tensor:
        """Final normed hidden states [R, W, H] of packed rows.

        Zeros stand at padding (segment -1).
        """
        places = places_of_tokens(segments).to(ids.device, non_blocking=True)
        compute = self._joined if self._is_joined(ids.device) else self._in_rectangles
        flat = compute(ids.flatten()[places], segments, continues)
        return into_rows(flat, places, segments.shape)

    def _joined(self, ids: Tensor, segments: Tensor, continues: Tensor | None) -> Tensor:
        """Hidden states [T, H] of tokens laid end to end, in one pass."""
        lengths = segment_lengths(segments).cpu()
        prompts = prompts_of(segments, continues)
        self.check_length(longest_whole(lengths, prompts))
        with self.attention(), recomputed(self._layers(), self.recompute, self.attention):
            flat = joined_states(self._decoder, ids, lengths, prompts)
            for _ in range(self.least_forwards - 1):
                idle = joined_states(self._decoder, ids[:1], torch.tensor([1]), None)
                flat = flat + 0 * idle.sum()
        return flat

    def _in_rectangles(self, ids: Tensor, segments: Tensor, continues: Tensor | None) -> Tensor:
        """The same, one pass for each rectangle."""
        shared, layout = self._rectangles(segments, continues)
        layout = layout.to(ids.device)

        outs = []
        with recomputed(self._layers(), self.recompute):
            if shared is None:
                for part in layout.split(ids[layout.token_at]):  # [rows, columns]
                    out = self._decoder(input_ids=part, use_cache=False)
                    outs.append(out.last_hidden_state.flatten(0, 1))
            else:
                for states in shared_states(self._decoder, self.inner.config, ids, shared):
                    outs.append(states.flatten(0, 1))

            flat = torch.cat(outs)[layout.place_of]  # [T, H]
            for _ in range(self.least_forwards - len(outs)):
                idle = self._decoder(input_ids=ids[None, :1], use_cache=False)
                flat = flat + 0 * idle.last_hidden_state.sum()
        return flat

    def _rectangles(
        self, segments: Tensor, continues: Tensor | None
    ) -> tuple[SharedRows | None, Rectangles]:
        """How packed rows are laid out for the family's code; refuses sequences without positions.

        Of rows that share prompts (`continues`), also who goes on from whom.
        """
        lengths = segment_lengths(segments).cpu()
        prompts = prompts_of(segments, continues)
        self.check_length(longest_whole(lengths, prompts))
        if prompts is None:
            waste = GPU_WASTE if on_gpu(self._device) else WASTE
            return None, rectangles(lengths, waste=waste)
        shared = SharedRows(lengths, prompts)
        return shared, shared.layout

    def forwards(self, segments: Tensor) -> int:
        """How often `hidden` calls the family's code for these packed rows."""
        if self._is_joined(self._device):
            return 1
        return len(self._rectangles(segments, None)[1].shapes)

    def _layers(self) -> list[nn.Module]:
        """The layers of the family that can be computed again by themselves."""
        layers = layers_of_family(self._decoder)
        if self.recompute and not layers:
            raise UserError(
                f"model type {self.inner.config.model_type}: its layers can't be computed again "
                "one by one; set scale.recompute: false"
            )
        return layers

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] in float32 of hidden states [..., H].

        Families scale or cap them, each under a name of its own.
        """
        logits: Tensor = self.inner.get_output_embeddings()(hidden).float()
        return hide(scaled(logits, self.inner.config), self.absent)

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, CacheState]:
        """Logits [B, V] after each prompt, and the state to continue from.

        Long prompts are computed a few at a time, to bound memory.
        """
        assert prompts, "no prompts"
        self.check_length(max(len(prompt) for prompt in prompts))
        # Autocast first: under it the family would be tried with other rounding, once and for all.
        is_plain = not torch.is_autocast_enabled(self._device.type)
        if is_plain and self._is_joined(self._device) and self._prefills_joined:
            return self._prefill_joined(prompts)
        return self._prefill_in_rows(prompts)

    @cached_property
    def _prefills_joined(self) -> bool:
        """Whether the family's cache keeps prompts that are computed in one pass; tried."""
        ways = self._prefill_joined, self._prefill_in_rows
        return "past_key_values" in self._takes and joined_prefill.agrees(self, *ways, TOLERANCE)

    def _prefill_joined(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, CacheState]:
        """`prefill` of prompts that lie end to end."""
        states, state = joined_prefill.prefilled(
            self._decoder, self.inner.config, prompts, _PREFILL_TOKENS, self._device
        )
        return self.head(states), state

    def _prefill_in_rows(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, CacheState]:
        """`prefill` of prompts with a row each, padded on the left."""
        groups = [self._prefill_group(one) for one in prompt_groups(prompts, _PREFILL_TOKENS)]
        logits = torch.cat([logits for logits, _ in groups])
        return logits, joined([state for _, state in groups], move=True)

    def _prefill_group(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, CacheState]:
        """`prefill` of prompts that fit into memory together."""
        lengths = [len(prompt) for prompt in prompts]
        columns = max(lengths)
        state = CacheState(
            growing_cache(self.inner.config),
            lengths=torch.tensor(lengths, device=self._device),
            columns=columns,
        )

        rows = []
        for prompt in prompts:
            padding = [0] * (columns - len(prompt))
            rows.append([*padding, *prompt])
        ids = torch.tensor(rows, device=self._device)

        # A row's first token is at position 0, wherever its column is.
        positions = (state.mask.cumsum(-1) - 1).clamp_min(0)
        return self._run(ids, positions, state), state

    @torch.inference_mode()
    def siblings(self, state: State, owners: Tensor) -> State:
        """The state of rows that go on from these rows; see `CausalLM.siblings`.

        On a CPU, families that attend to all tokens read a prompt's keys once for all siblings.
        """
        assert isinstance(state, CacheState), state
        if self._is_exact and self._decodes_siblings is not None:
            return SiblingState.begin(state, owners)
        if len(owners) == len(state.lengths):
            return state
        return state.select(owners, move=True)

    @property
    def _is_exact(self) -> bool:
        """Whether a CPU computes in float32, as things are; our decoding is tried in that alone."""
        is_plain = self._device.type == "cpu" and self._dtype == torch.float32
        return is_plain and not torch.is_autocast_enabled("cpu")

    @property
    def _takes_ours(self) -> bool:
        """Whether the family might decode with an attention of ours."""
        return "past_key_values" in self._takes and may_attend(self.inner.config, self._takes)

    @cached_property
    def _decodes_siblings(self) -> Decode | None:
        """The family's code with the attention of `siblings`, or its blocks written out; tried."""
        by_family = partial(siblings.decoded, self._decoder, self.inner.config)
        if not self._takes_ours or not siblings.agrees(self, by_family, TOLERANCE):
            return None
        blocks = plain_blocks(self._decoder, self.inner.config)
        if blocks is not None and siblings.agrees(self, blocks.decoded, TOLERANCE):
            return blocks.decoded
        return by_family

    @torch.inference_mode()
    def decode(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Feed one token per row (int64 [B]); logits [B, V].

        The state is updated in place and returned.
        """
        if isinstance(state, SiblingState):
            self.check_length(int(state.lengths.max()) + 1)
            assert self._decodes_siblings is not None
            return self.head(self._decodes_siblings(ids, state)), state
        assert isinstance(state, CacheState), state
        positions = state.lengths[:, None]
        state.lengths = state.lengths + 1
        state.columns += 1
        self.check_length(state.columns)
        return self._run(ids[:, None], positions, state), state

    @property
    def extends(self) -> bool:
        """Whether the family goes on with several tokens at once, as things are."""
        return self._is_exact and self._extends

    @cached_property
    def _extends(self) -> bool:
        """Whether the family's code takes the attention of `extension`; tried."""
        return self._takes_ours and extension.agrees(self, TOLERANCE)

    @torch.inference_mode()
    def extend(self, tokens: Sequence[Sequence[int]], state: State) -> tuple[Tensor, State]:
        """Feed several tokens to each row; their hidden states [T, H], and the new state."""
        assert isinstance(state, CacheState | SiblingState), state
        before = state.lengths.tolist()
        self.check_length(max(fed + len(own) for fed, own in zip(before, tokens, strict=True)))
        return extension.extended(self._decoder, self.inner.config, tokens, state, _PREFILL_TOKENS)

    @cached_property
    def has_slots(self) -> bool:
        """Whether the family decodes in slots as it does elsewhere; tried.

        Families that attend to all tokens do. Windows, recurrent states and experts do not, and
        those are decoded step by step.
        """
        takes = {"past_key_values", "position_ids", "attention_mask"}
        if not takes <= self._takes or not attends_to_all(self.inner.config):
            return False
        tolerance = TOLERANCE if self._dtype == torch.float32 else _HALF_TOLERANCE
        return fixed_cache.agrees(self, tolerance)

    def new_slots(self, like: State, rows: int, columns: int) -> Slots:
        """Empty slots for states such as `like`."""
        assert isinstance(like, CacheState), like
        return fixed_cache.FixedCache(like, self.inner.config, rows, columns)

    @torch.inference_mode()
    def decode_slots(self, ids: Tensor, slots: Slots, is_open: Tensor, columns: int) -> Tensor:
        """Feed one token to each of the first slots; logits [B, V]."""
        assert isinstance(slots, fixed_cache.FixedCache), slots
        lengths = slots.lengths[: len(ids)]
        positions = lengths
        if self.positions is not None:
            # Rows that nobody wants may stand anywhere; whoever reads the others checks them.
            positions = positions.clamp(max=self.positions - 1)
        slots.looked_at = (len(ids), columns)
        out = self._decoder(
            input_ids=ids[:, None],
            position_ids=positions[:, None],
            attention_mask=fixed_cache.mask_of(lengths, columns).to(self._dtype),
            past_key_values=slots.cache,
            use_cache=True,
        )
        lengths += is_open
        return self.head(out.last_hidden_state[:, -1])

    def check_length(self, tokens: int) -> None:
        """Raise UserError for a sequence of more tokens than the model has positions."""
        if self.positions is not None and tokens > self.positions:
            raise UserError(
                f"a sequence of {tokens:,} tokens, and model type {self.inner.config.model_type} "
                f"takes {self.positions:,}; lower max_tokens, max_sequence or max_length"
            )

    def _run(self, ids: Tensor, positions: Tensor, state: CacheState) -> Tensor:
        """Logits [B, V] of the last column; the state's lengths already count these tokens."""
        options: dict[str, Any] = {}
        # One token alone has no padding, so a cache without keys needs no mask.
        if ids.shape[1] > 1 or state.has_keys:
            options["attention_mask"] = state.mask
        if "position_ids" in self._takes:
            options["position_ids"] = positions
        for name in _CACHE_ARGUMENTS:
            if name in self._takes:
                options[name] = state.cache
        out = self._decoder(input_ids=ids, use_cache=True, **options)
        return self.head(out.last_hidden_state[:, -1])

    def row_bytes(self, columns: int) -> int:
        """Bytes that one row's state takes after `columns` tokens."""
        if self._row_bytes is None:
            # Each family has a layout of its own; two short prompts tell what grows in it.
            (_, short), (_, longer) = self.prefill([[0]]), self.prefill([[0] * (1 + _PROBE)])
            grows = (longer.nbytes - short.nbytes) // _PROBE
            self._row_bytes = short.nbytes - grows, grows
        fixed, grows = self._row_bytes
        return fixed + grows * columns

    def save(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        """Write config.json and the weights in the dtype they have; see `CausalLM.save`."""
        self.save_state(None, folder, shard_bytes)

    def save_state(
        self, state: dict[str, Tensor] | None, folder: Path, shard_bytes: int = SHARD_BYTES
    ) -> None:
        """The same with these tensors in place of the model's own, under the family's names."""
        self.inner.save_pretrained(folder, state_dict=state, max_shard_size=shard_bytes)

        # transformers writes what only its own generation reads, and the config in its newest
        # words: a checkpoint keeps its base's, which other readers know.
        (folder / "generation_config.json").unlink(missing_ok=True)
        raw = self.raw
        if raw is None:
            raw = self.inner.config.to_dict()
        architecture = type(self.inner).__name__
        dtype = self.inner.get_output_embeddings().weight.dtype
        write_config(config_of(raw, architecture, dtype), folder)

    @classmethod
    def load(cls, folder: Path, raw: dict[str, Any], dtype: torch.dtype) -> TransformersLM:
        """Read a folder of any family; UserError says what is unknown or missing.

        raw: the content of its config.json.
        """
        import transformers

        auto: Any = transformers.AutoModelForCausalLM
        disable_progress_bar: Any = transformers.utils.logging.disable_progress_bar
        disable_progress_bar()
        try:
            inner, report = auto.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        except SafetensorError as error:
            raise UserError(
                f"{folder}: its weights cannot be read ({error}); if a file was cut short, "
                "copy or download it again"
            ) from None
        except Exception as error:  # whatever a family's code says of a config or of weights
            lines = str(error).strip().splitlines() or ["no message"]
            raise UserError(
                f"{folder}: transformers can't load it: {type(error).__name__}: {lines[0]}"
            ) from None

        # transformers would fill these with random numbers and only warn.
        absent = sorted(report["missing_keys"])
        absent += sorted(str(key) for key in report["mismatched_keys"])
        if absent:
            raise UserError(
                f"{folder}: {len(absent)} tensors are missing or misshapen ({absent[0]}); "
                "do config.json and weights match?"
            )

        free_time_step(inner)

        # transformers keeps a head that differs from the embeddings, whatever the config says; what
        # is saved must not tie them again.
        text_config = inner.config.get_text_config(decoder=True)
        head, embeddings = inner.get_output_embeddings(), inner.get_input_embeddings()
        if text_config.tie_word_embeddings and head.weight is not embeddings.weight:
            raw = {**raw, "tie_word_embeddings": False}
            text_config.tie_word_embeddings = False
        return cls(inner, raw)
