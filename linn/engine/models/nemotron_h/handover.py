"""What a prompt hands over to the replies that go on from it, in Mamba-2 layers.

The prompt is a segment of the same layout, or a state that a running batch keeps.

A layer computes every segment as if nothing came before it. Convolution and recurrence are linear
in what came before, so that of a reply's prompt is added afterwards: a few inputs of the
convolution, and the prompt's last state, decayed since. Gradients flow back the same way, and add
up over the replies.

Letters of shapes: T tokens of which t belong to replies, F prompts with replies, L leaves, H heads
of width P in G groups (K = H/G heads per group), N the state's size, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from linn.engine.models.nemotron_h.leaves import Leaves


@dataclass(frozen=True)
class Handover:
    """Which tokens go on from what."""

    prompts: Tensor
    """int64 [F]: the segments of the prompts."""
    sizes: tuple[int, ...]
    """Tokens of all replies to each prompt, F of them; they stand side by side."""
    replies: Tensor
    """int64 [t]: the tokens of replies, prompt by prompt."""
    starts: Tensor
    """int64 [t]: the first token of each one's own reply."""
    late: Tensor
    """int64 [k]: the tokens whose convolution reaches back into a prompt, once per input there."""
    inputs: Tensor
    """int64 [k]: the prompt's token that it reaches."""
    taps: Tensor
    """int64 [k]: by which tap."""

    def to(self, device: torch.device) -> Handover:
        """The same on another device."""
        return Handover(
            self.prompts.to(device, non_blocking=True),
            self.sizes,
            self.replies.to(device, non_blocking=True),
            self.starts.to(device, non_blocking=True),
            self.late.to(device, non_blocking=True),
            self.inputs.to(device, non_blocking=True),
            self.taps.to(device, non_blocking=True),
        )


def hand_over(starts: Tensor, lengths: Tensor, prompts: Sequence[int], kernel: int) -> Handover:
    """Of segments with these first tokens and lengths, int64 [S] both, on the CPU.

    prompts: the segment that each one goes on from, -1 where it begins anew. Replies to a prompt
    stand right behind it, and no reply has replies of its own.
    """
    begins, sizes = starts.tolist(), lengths.tolist()
    by_prompt: dict[int, int] = {}
    replies: list[Tensor] = []
    firsts: list[Tensor] = []
    late: list[int] = []
    inputs: list[int] = []
    taps: list[int] = []

    for segment, prompt in enumerate(prompts):
        if prompt < 0:
            continue
        assert prompts[prompt] < 0 and prompt in (segment - 1, prompts[segment - 1]), prompts
        begin, size = begins[segment], sizes[segment]
        by_prompt[prompt] = by_prompt.get(prompt, 0) + size
        replies.append(torch.arange(begin, begin + size))
        firsts.append(torch.full((size,), begin))

        # Token `place` of the reply reads, `reach` tokens back, one of the prompt's last.
        for place in range(min(size, kernel - 1)):
            for reach in range(place + 1, kernel):
                back = reach - place
                if back <= sizes[prompt]:
                    late.append(begin + place)
                    inputs.append(begins[prompt] + sizes[prompt] - back)
                    taps.append(kernel - 1 - reach)

    return Handover(
        prompts=torch.tensor(list(by_prompt)),
        sizes=tuple(by_prompt.values()),
        replies=torch.cat(replies),
        starts=torch.cat(firsts),
        late=torch.tensor(late, dtype=torch.int64),
        inputs=torch.tensor(inputs, dtype=torch.int64),
        taps=torch.tensor(taps, dtype=torch.int64),
    )


def hand_over_states(starts: Tensor, lengths: Tensor, kernel: int) -> Handover:
    """Of segments that each go on from a state of their own, which a running batch keeps.

    The inputs that are read of before are kernel - 1 per state, oldest first, end to end.
    """
    back = kernel - 1
    place = torch.arange(back)[:, None]  # of a token in its segment
    reach = torch.arange(1, kernel)
    reads = (reach > place) & (place < lengths[:, None, None])  # [S, back, back]
    segment, of_token, of_reach = reads.nonzero().unbind(1)
    return Handover(
        prompts=torch.arange(len(lengths)),
        sizes=tuple(lengths.tolist()),
        replies=torch.arange(int(lengths.sum())),
        starts=starts.repeat_interleave(lengths),
        late=starts[segment] + of_token,
        inputs=segment * back + back - (of_reach + 1 - of_token),
        taps=kernel - 2 - of_reach,
    )


def with_inputs(convolved: Tensor, x: Tensor, taps: Tensor, handover: Handover) -> Tensor:
    """The convolution [T, D], with what its taps [kernel, D] read of prompts.

    x [·, D]: the inputs among which the prompts' are.
    """
    read = x.index_select(0, handover.inputs) * taps.index_select(0, handover.taps)
    return convolved.index_add(0, handover.late, read)


def with_states(
    y: Tensor, dt: Tensor, a: Tensor, c: Tensor, states: Tensor, handover: Handover
) -> Tensor:
    """The recurrence's output y [T, H, P], with what replies read of their prompts' last states.

    dt [T, H], a [H], c [T, G, N]: as in `scan`; states [F, G, N, K, P]: as in `last_states`.
    """
    # Log-decay since the reply began, its own token included. The sum runs over the whole layout,
    # so that in float32 it would lose what a short reply's difference needs.
    total = (dt * a).double().cumsum(0)
    before = total - dt * a
    since = total[handover.replies] - before[handover.starts]
    decay = since.exp().to(y.dtype)  # [t, H]

    queries = c.index_select(0, handover.replies).transpose(0, 1)  # [G, t, N]
    read = []
    # One product for all replies to a prompt and all heads of a group.
    for own, state in zip(queries.split(handover.sizes, dim=1), states, strict=True):
        out = own @ state.flatten(2)  # [G, tokens, K·P]
        read.append(out.transpose(0, 1).reshape(-1, *y.shape[1:]))
    return y.index_add(0, handover.replies, torch.cat(read) * decay[..., None])


def with_ends(ends: Tensor, dt: Tensor, a: Tensor, states: Tensor, leaves: Leaves) -> Tensor:
    """The states [L, G, N, K, P] after leaves, with what their prompts' last states add to them.

    ends: the same as if nothing had come before; it is added there. dt [T, H], a [H]: as in `scan`;
    states [F, G, N, K, P]: of the prompts.
    """
    total = (dt * a).double().cumsum(0)
    since = total[leaves.ends] - total[leaves.starts] + (dt * a)[leaves.starts]
    decay = since.exp().to(ends.dtype) * (leaves.before > 0)[:, None]  # [L, H]
    _, groups, _, per_group, _ = ends.shape
    decay = decay.view(len(ends), groups, 1, per_group, 1)
    before = states if leaves.handed is None else states[leaves.handed]
    return ends.addcmul_(before, decay)
