"""Judge models as a recipe names them: endpoints, and checkpoints over an engine's samplers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from linn.chat.render import Codec
from linn.engine.local.controller import Engine
from linn.errors import UserError
from linn.judges.endpoint import EndpointJudge
from linn.judges.panel import Judge, Judges, SamplerJudge
from linn.recipe.schema import JudgeKeys
from linn.types import Sampling


def judges_of(
    named: Mapping[str, JudgeKeys], folders: Mapping[str, Path], engine: Engine
) -> Judges:
    """A judge for every domain in `named`; `folders` holds the checkpoint of every model that is no endpoint. Equal keys share one judge."""
    made = {keys: _judge(keys, folders, engine) for keys in named.values()}
    return Judges({domain: made[keys] for domain, keys in named.items()})


def _judge(keys: JudgeKeys, folders: Mapping[str, Path], engine: Engine) -> Judge:
    how = Sampling(keys.max_tokens, keys.temperature, keys.top_p)
    if keys.endpoint is None:
        folder = folders[keys.model]
        return SamplerJudge(engine.sampler_of(folder), Codec.load(folder), how, keys.retries)
    url, model = keys.endpoint
    return EndpointJudge(
        url, model, how, keys.retries, keys.concurrency, keys.timeout_s, key_of(keys)
    )


def key_of(keys: JudgeKeys) -> str | None:
    """The endpoint's API key; UserError where the variable that should hold it is not set."""
    if keys.key_env is None:
        return None
    if not (key := os.environ.get(keys.key_env)):
        raise UserError(
            f"judge {keys.model}: the environment variable {keys.key_env} (key_env) is not set"
        )
    return key
