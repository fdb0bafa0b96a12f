"""What flooring Mamba-2's time step at `time_step_min` would change in a Nemotron-H folder.

    python -m bench.agreement.time_step [FOLDER …]     default: the kept bases

transformers 5.23 floors; Mamba-2's definition, vLLM and linn bound dt by `time_step_limit` alone.
Over demonstrations of the domains: the share of time steps under the floor, the next token's mean
and largest KL, and the mean NLL with and without the floor.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from linn.bases.make import clean_texts
from linn.chat.codec import Codec
from linn.checkpoints import BASES
from linn.domains.load import load as load_domain
from linn.engine.models.load import load
from linn.engine.models.nemotron_h.layers import Mamba
from linn.engine.models.nemotron_h.model import NemotronH

DOMAINS = ("math", "instruct", "mcqa", "structured", "workplace", "preference", "longctx", "code")
EACH = 25
"""Conversations of a domain."""


def main(folders: list[str]) -> None:
    domains = {name: load_domain(name) for name in DOMAINS}
    texts = list(clean_texts(domains, EACH))
    for domain in domains.values():
        domain.close()

    print("folder              dt  under floor   mean KL   largest  NLL floored  NLL")
    for folder in folders or sorted(str(path) for path in BASES.glob("tiny-*")):
        print(_row(Path(folder), texts), flush=True)


def _row(folder: Path, texts: list[str]) -> str:
    """One folder's numbers."""
    codec = Codec.load(folder)
    model, floored = _model(folder), _model(folder)
    floor = model.config.time_step_min
    for mixer in _mixers(floored):
        mixer.config = replace(mixer.config, time_step_limit=(floor, math.inf))

    steps: list[Tensor] = []
    for mixer in _mixers(model):
        mixer.register_forward_pre_hook(lambda mixer, given: steps.append(_dt(mixer, given)))

    kls = []
    nll = floored_nll = 0.0
    for text in texts:
        ids = torch.tensor([codec.encode(text)])
        free, bound = _logprobs(model, ids), _logprobs(floored, ids)
        kls.append((free.exp() * (free - bound)).sum(-1))
        ahead = ids[0, 1:, None]
        nll -= float(free[:-1].gather(1, ahead).sum())
        floored_nll -= float(bound[:-1].gather(1, ahead).sum())

    dt, kl = torch.cat(steps), torch.cat(kls)
    under = float((dt < floor).float().mean())
    return (
        f"{folder.name:<12} {dt.numel():>9,} {under:>12.1%} {float(kl.mean()):>9.1e} "
        f"{float(kl.max()):>9.2f} {floored_nll / len(kl):>12.4f} {nll / len(kl):>6.4f}"
    )


def _model(folder: Path) -> NemotronH:
    model = load(folder)
    assert isinstance(model, NemotronH), f"{folder}: no Nemotron-H"
    return model


def _mixers(model: NemotronH) -> Iterator[Mamba]:
    for module in model.modules():
        if isinstance(module, Mamba):
            yield module


def _dt(mixer: Mamba, given: tuple[Any, ...]) -> Tensor:
    """The time steps of a mixer's input [T, hidden]."""
    return mixer._project(given[0])[2].flatten()


@torch.no_grad()
def _logprobs(model: NemotronH, ids: Tensor) -> Tensor:
    logits = model.head(model.hidden(ids, torch.zeros_like(ids)))[0]
    return logits.log_softmax(-1)


if __name__ == "__main__":
    main(sys.argv[1:])
