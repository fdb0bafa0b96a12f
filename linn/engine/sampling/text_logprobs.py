"""Log-probs of a text's own tokens, and what would have been more likely in their places."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from linn.engine.models.interface import CausalLM
from linn.engine.models.vocabulary import check_tokens
from linn.engine.protocol import Token
from linn.errors import UserError

_LOGITS = 2**22
"""Logits that are held at once: the vocabulary times some tokens."""


@torch.no_grad()
def text_logprobs(model: CausalLM, ids: Sequence[int], top: int = 0) -> list[Token]:
    """Every token of a text, given those before it, at temperature 1; the first has 0.0.

    Raises UserError for a text that the model cannot read.
    """
    if not ids or min(ids) < 0:
        raise UserError("a text to be scored has at least one token, and none below 0")
    check_tokens(ids, model.vocab)
    if model.positions is not None and len(ids) > model.positions:
        raise UserError(f"a text of {len(ids)} tokens; the model computes {model.positions}")

    device: torch.device = next(model.parameters()).device  # type: ignore[attr-defined]
    row = torch.tensor([list(ids)], device=device)
    hidden = model.hidden(row, torch.zeros_like(row))[0, :-1]

    found = [Token(ids[0], 0.0)]
    size = max(1, _LOGITS // model.vocab)
    # The head of a long text over a large vocabulary fits into no memory at once.
    for start in range(0, len(hidden), size):
        targets = row[0, 1 + start : 1 + start + size]
        logprobs = model.head(hidden[start : start + size]).float().log_softmax(-1)
        chosen = logprobs.gather(1, targets.unsqueeze(1)).squeeze(1)
        best = logprobs.topk(min(top, model.vocab), dim=-1)
        tops = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        for target, value, (places, values) in zip(
            targets.tolist(), chosen.tolist(), tops, strict=True
        ):
            found.append(Token(target, value, tuple(zip(places, values, strict=True))))
    return found
