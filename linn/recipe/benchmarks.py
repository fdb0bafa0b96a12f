"""How a recipe or a command uses a benchmark: what it changes of the benchmark's own protocol."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from linn.recipe.base import Config


class BenchmarkUse(Config):
    """What is changed of a benchmark's protocol; every default is the protocol's own value."""

    k: int | None = Field(None, ge=1, description="samples of each prompt: avg@k")
    limit: int | None = Field(
        None, ge=1, description="only the first rows; the score is then marked as of a part"
    )
    max_tokens: int | None = Field(None, ge=1, description="tokens of one assistant turn at most")
    max_sequence: int | None = Field(None, ge=1, description="tokens of a conversation at most")
    max_turns: int | None = Field(None, ge=1, description="assistant turns at most")
    temperature: float | None = Field(None, ge=0, description="sampling temperature; 0 is greedy")
    top_p: float | None = Field(None, gt=0, le=1, description="nucleus mass")
    thinking: bool | None = Field(None, description="whether replies open with a thought")
    rows: str | None = Field(
        None, description="a file of rows (JSONL or Parquet) instead of the benchmark's own place"
    )
    judge: str | None = Field(
        None,
        description="the model that judges, in place of the published one: "
        "RUN@STAGE[:STEP], a checkpoint folder, or http(s)://HOST:PORT/v1#MODEL",
    )


def uses_of(given: Any) -> Any:
    """`[aime25, ifbench]` as `{aime25: {}, ifbench: {}}`; anything else as it is."""
    if isinstance(given, list) and all(isinstance(name, str) for name in given):
        return {name: {} for name in given}
    if isinstance(given, dict):
        return {name: {} if use is None else use for name, use in given.items()}
    return given
