"""Judge models as a recipe names them: endpoints, and checkpoints over an engine's samplers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from linn.chat.render import Codec
from linn.checkpoints import resolve
from linn.engine.protocol import Engine
from linn.errors import UserError
from linn.judges.endpoint import EndpointJudge
from linn.judges.panel import Judge, Judges, SamplerJudge
from linn.recipe.schema import JudgeConfig
from linn.types import Sampling


def judges_of(
    named: Mapping[str, JudgeConfig], folders: Mapping[str, Path], engine: Engine
) -> Judges:
    """A judge for every domain in `named`; `folders` holds the checkpoint of every model that is no endpoint. Equal keys share one judge."""
    made = {keys: _judge(keys, folders, engine) for keys in named.values()}
    return Judges({domain: made[keys] for domain, keys in named.items()})


def _judge(keys: JudgeConfig, folders: Mapping[str, Path], engine: Engine) -> Judge:
    how = Sampling(keys.max_tokens, keys.temperature, keys.top_p)
    if keys.endpoint is None:
        folder = folders[keys.model]
        return SamplerJudge(engine.sampler_of(folder), Codec.load(folder), how, keys.retries)
    url, model = keys.endpoint
    return EndpointJudge(
        url, model, how, keys.retries, keys.concurrency, keys.timeout_s, api_key_of(keys)
    )


def api_key_of(keys: JudgeConfig) -> str | None:
    """The endpoint's API key; UserError where the variable that should hold it is not set."""
    if keys.key_env is None:
        return None
    if not (key := os.environ.get(keys.key_env)):
        raise UserError(
            f"judge {keys.model}: the environment variable {keys.key_env} (key_env) is not set"
        )
    return key


def judge_folders(
    named: Mapping[str, JudgeConfig], checkpoint: Callable[[str], Path] | None
) -> dict[str, Path]:
    """The checkpoint of every judge that is no endpoint, by the recipe's word for it; `checkpoint`: that of a stage of this run."""
    found = {}
    for keys in named.values():
        if keys.endpoint is None:
            if keys.stage is not None and checkpoint is None:
                raise UserError(
                    f"judge {keys.model}: names a stage of a run, and there is none here; say RUN{keys.model}"
                )
            found[keys.model] = (
                checkpoint(keys.stage)
                if keys.stage is not None and checkpoint is not None
                else resolve(keys.model)
            )
    return found


def check_judge(keys: JudgeConfig) -> None:
    """Refuse a judge whose checkpoint or key is not there; whether an endpoint answers shows when it is asked."""
    api_key_of(keys)
    if keys.endpoint is None and keys.stage is None:
        resolve(keys.model)
