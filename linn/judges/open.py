"""Judge models as a recipe names them: endpoints, and checkpoints over an engine's samplers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from linn.chat.codec import Codec
from linn.chat.template import TemplateName
from linn.checkpoints import resolve
from linn.endpoint.client import Endpoint
from linn.engine.protocol import Engine
from linn.errors import UserError
from linn.judges.endpoint import EndpointJudge
from linn.judges.model import Judge, SamplerJudge
from linn.judges.panel import Judges
from linn.recipe.schema import JudgeConfig
from linn.terminal import aside
from linn.types import Sampling


def judges_of(
    named: Mapping[str, JudgeConfig],
    folders: Mapping[str, Path],
    engine: Engine,
    template: TemplateName | None = None,
    say: Callable[[str], None] = aside,
) -> Judges:
    """A judge for every domain in `named`; domains with equal configs share one.

    `folders`: the checkpoint of every model that is not an endpoint. `template`: that of the run,
    whose own checkpoints judge with it unless their config says otherwise. `say` hears how long an
    endpoint is waited for.
    """
    # One judge per config and not per domain: its questions then go out in one batch.
    by_config = {
        config: _judge(config, folders, engine, template, say) for config in named.values()
    }
    return Judges(
        {domain: by_config[config] for domain, config in named.items()},
        max_unreadable={domain: config.max_unreadable for domain, config in named.items()},
    )


def _judge(
    config: JudgeConfig,
    folders: Mapping[str, Path],
    engine: Engine,
    template: TemplateName | None,
    say: Callable[[str], None],
) -> Judge:
    how = Sampling(config.max_tokens, config.temperature, config.top_p)
    if config.endpoint is None:
        folder = folders[config.model]
        return SamplerJudge(
            sampler=engine.sampler_of(folder),
            codec=Codec.load(folder, config.template or (template if config.stage else None)),
            how=how,
            retries=config.retries,
        )
    endpoint = Endpoint(
        *config.endpoint,
        key=api_key_of(config),
        name="judge",
        key_name=config.key_env or "key_env",
        concurrency=config.concurrency,
        timeout_s=config.timeout_s,
        say=say,
    )
    return EndpointJudge(endpoint, how, config.retries)


def api_key_of(config: JudgeConfig) -> str | None:
    """The endpoint's API key. UserError if the variable that should hold it is not set."""
    if config.key_env is None:
        return None
    api_key = os.environ.get(config.key_env)
    if not api_key:
        raise UserError(
            f"judge {config.model}: the environment variable {config.key_env} (key_env) is not set"
        )
    return api_key


def judge_folders(
    named: Mapping[str, JudgeConfig], checkpoint: Callable[[str], Path] | None
) -> dict[str, Path]:
    """The checkpoint of every judge that is not an endpoint, by the recipe's name for it.

    `checkpoint` gives that of a stage of this run; None outside a run.
    """
    folders = {}
    for config in named.values():
        if config.endpoint is not None:
            continue
        if config.stage is None:
            folders[config.model] = resolve(config.model)
        elif checkpoint is not None:
            folders[config.model] = checkpoint(config.stage)
        else:
            raise UserError(
                f"judge {config.model}: names a stage of a run, and there is none here; "
                f"say RUN{config.model}"
            )
    return folders


def check_judge(config: JudgeConfig) -> None:
    """Refuse a judge whose checkpoint or API key is missing.

    Whether an endpoint answers shows only when it is asked.
    """
    api_key_of(config)
    # A stage's checkpoint need not be there yet.
    if config.endpoint is None and config.stage is None:
        resolve(config.model)
