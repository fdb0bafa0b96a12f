"""Ids that a model has and its tokenizer does not: they are never sampled.

Embeddings are often padded to a round number of rows. Such an id stands for no text, so it is no
part of the policy: its logit is `NEVER` for the sampler, the trainer, a teacher and a judge alike,
and the other ids share its probability.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from linn.errors import UserError

NEVER = -1e30
"""A logit whose probability is 0 at every temperature. It is finite, so that an entropy is too."""


def ids_without_text(folder: Path, vocab: int) -> Tensor | None:
    """The ids below `vocab` that the folder's tokenizer does not have, int64; None: it has all.

    A folder without a tokenizer that can be read hides nothing; whoever needs one says so.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception:
        return None
    has = set(tokenizer.get_vocab(with_added_tokens=True).values())
    absent = [token for token in range(vocab) if token not in has]
    return torch.tensor(absent) if absent else None


def check_tokens(ids: Collection[int], vocab: int) -> None:
    """Refuse ids that a model with `vocab` embeddings cannot read."""
    smallest, largest = min(ids), max(ids)
    if smallest < 0:
        raise UserError(f"a sequence holds token {smallest}: ids begin at 0")
    if largest >= vocab:
        raise UserError(
            f"a sequence holds token {largest}, and the model has embeddings for {vocab}: its "
            "tokenizer has more tokens; call resize_token_embeddings and save the model anew"
        )


def hide(logits: Tensor, absent: Tensor | None) -> Tensor:
    """Logits [..., V] with `NEVER` at these ids (int64); changes them in place."""
    if absent is None:
        return logits
    return logits.index_fill_(-1, absent, NEVER)
