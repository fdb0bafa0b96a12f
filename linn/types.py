"""The nouns of the whole house: messages, prompts, rollouts, verdicts, samples, scores.

Standard library only. Every noun is a frozen dataclass; functions take them and return them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Split = Literal["train", "validation", "test"]
Role = Literal["system", "user", "assistant", "tool", "principle", "response_1", "response_2"]
"""The last three occur only in the input of a generative reward model (paper §4.4)."""


# ---------------------------------------------------------------- conversations


@dataclass(frozen=True)
class ToolCall:
    """One call that an assistant turn makes."""

    name: str
    """The function's name."""
    arguments: Mapping[str, Any] | str
    """Arguments by name; a `str` only where a row's JSON text could not be parsed."""
    id: str | None = None
    """The `tool_call_id` of OpenAI-style rows, where one was given."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation, before it becomes tokens."""

    role: Role
    """Who speaks. On the wire `tool` turns become user turns (paper §6.1)."""
    content: str
    """Its text, reasoning excluded."""
    reasoning: str | None = None
    """The thought of an assistant turn, without its marks; None where the turn has no thought."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Calls of an assistant turn, in order."""
    tool_call_id: str | None = None
    """Which call a `tool` turn answers."""


@dataclass(frozen=True)
class Prompt:
    """A task of a domain: what the model reads, and what only the grader may see."""

    domain: str
    """Name of the domain that made it and grades it."""
    id: str
    """Stable and unique in its domain and split; seeds depend on it."""
    messages: tuple[Message, ...]
    """The conversation so far; the last turn is not the assistant's."""
    thinking: bool = True
    """Whether the reply opens with a thought (paper §6.1)."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """OpenAI-style function definitions shown in the system block."""
    hidden: object = None
    """The grader's own: answers, tests, schemas. Never rendered."""
    pass_rate: float | None = None
    """Share of rollouts in which some checkpoint solved it, where its row has one.

    `linn filter` writes it; the curriculum orders prompts by it.
    """


@dataclass(frozen=True)
class Reply:
    """What the model answered: one turn, or a multi-turn exchange with the environment."""

    text: str
    """The last assistant turn's answer: everything after its last `</think>`.

    Empty where a thought never ended.
    """
    reasoning: str = ""
    """The thoughts of all assistant turns, joined by a newline."""
    messages: tuple[Message, ...] = ()
    """Every turn after the prompt (assistant and tool), parsed."""
    finished: bool = True
    """False when a turn ran into its token limit."""


@dataclass(frozen=True)
class Verdict:
    """A grader's judgement of one reply."""

    reward: float
    """Usually 0 or 1; some domains give values between, the RLHF reward may leave [0, 1]."""
    note: str = ""
    """Why, in one line a person can use."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Named parts of the judgement, averaged in the step's metrics."""
    undecided: bool = False
    """No judge's answer could be read: the reward means nothing and leaves all statistics."""


@dataclass(frozen=True)
class Sampling:
    """How to sample one completion."""

    max_tokens: int
    """At most this many sampled tokens."""
    temperature: float = 1.0
    """0 is greedy: the most likely token each time."""
    top_p: float = 1.0
    """Nucleus: the smallest set of tokens with at least this mass."""
    stop: tuple[int, ...] = ()
    """Token ids that end a completion; the stopping token is kept in it."""
    more: bool = False
    """Set when a further turn is likely.

    The sampler may keep its cache, so that a later request that begins with these tokens continues
    from it.
    """
    top: int = 0
    """How many of the most likely tokens a stream tells beside each sampled one."""


@dataclass(frozen=True)
class Completion:
    """What a sampler gives back for one request."""

    ids: tuple[int, ...]
    """Sampled token ids, the stopping token included."""
    logprobs: tuple[float, ...]
    """Behaviour log-prob of each id under the tempered distribution, before any top-p cut.

    Same length as `ids`.
    """
    finish: Literal["stop", "length"]
    """`stop`: a stopping token came; `length`: the limit came first."""


@dataclass(frozen=True)
class Turn:
    """A run of tokens in a rollout that share one origin."""

    ids: tuple[int, ...]
    """Token ids."""
    logprobs: tuple[float, ...] | None
    """Behaviour log-probs of a sampled turn; None for prompt, tool and environment tokens."""
    text: str
    """The decoded turn, for people; never tokenised again."""
    told: int | None = None
    """Tokens of a turn that a server sampled, as it counts them: its ids are not known here."""


@dataclass(frozen=True)
class Rollout:
    """One conversation from a prompt to its verdict."""

    prompt: Prompt
    """Where it started."""
    sibling: int
    """Index among the rollouts of the same prompt."""
    turns: tuple[Turn, ...]
    """Prompt tokens, then sampled and environment turns alternating."""
    reply: Reply
    """What the grader saw."""
    verdict: Verdict
    """What the grader said; reward 0 and the cause where `status` is not `ok`."""
    status: Literal["ok", "truncated", "failed"] = "ok"
    """`truncated`: a turn hit its limit. `failed`: a bad reply broke something; see `error`."""
    error: str = ""
    """The boundary at which it failed and why; empty when it did not."""
    unclosed: bool = False
    """Whether its last thought never ended, so that it has no answer."""
    rewritten: bool = False
    """Whether it holds thoughts that the chat template would have cut from its history: what the
    model saw stays, and deployment by the template shows it less."""


@dataclass(frozen=True)
class Group:
    """All rollouts of one prompt in one step."""

    rollouts: tuple[Rollout, ...]
    """Siblings in order."""
    rewards: tuple[float, ...]
    """What credit is computed from, one per sibling: the verdicts' rewards, or a comparison's."""


# ---------------------------------------------------------------- training


@dataclass(frozen=True)
class Sample:
    """One sequence with its own training signal; all the trainer ever sees.

    Every list has one entry per token (length T). Entry t is about predicting `tokens[t]` from
    `tokens[:t]`; entry 0 is never trained.
    """

    tokens: Sequence[int]
    """Token ids."""
    mask: Sequence[bool]
    """True where a token is trained: the policy's own, never prompt, tool or environment tokens."""
    advantage: Sequence[float]
    """Advantage (RL) or weight (SFT) of each token."""
    behaviour: Sequence[float] | None = None
    """Log-prob under the sampler that made the token, 0 where `mask` is False.

    None where nothing was sampled (SFT).
    """
    teacher: Sequence[float] | None = None
    """Log-prob under the other model: MOPD's teacher, or the reference of RLHF's KL.

    None where no other model takes part.
    """
    domain: str = ""
    """Where it came from, for metrics."""
    source: str = ""
    """Prompt id and sibling, for the record when a batch must be saved."""
    group: int = 0
    """Index of its prompt in the step's batch; normalising per prompt needs it."""


@dataclass(frozen=True)
class Loss:
    """Which objective, with its constants. Formulas: paper Eq. 1 (`grpo`), Eq. 2-4 (`mopd`)."""

    kind: Literal["sft", "grpo", "mopd"]
    """The objective."""
    normalise: Literal["token", "sequence", "prompt"] = "token"
    """Divide by the tokens of the global batch, average per sequence, or average per prompt group.

    Eq. 1 as printed averages per prompt group.
    """
    kl: float = 0.0
    """Coefficient of the k3 estimate of KL(policy ‖ teacher field); 0 switches it off."""
    band: tuple[float, float] = (0.5, 2.0)
    """MOPD: importance weights outside are zeroed, not clamped (Eq. 3)."""
    temperature: float = 1.0
    """Logits are divided by this before log-probs, as in sampling."""
    length_power: float = 0.0
    """SFT: each sequence weighs length**-power against the token mean.

    0 is the plain token mean, 1 the sequence mean.
    """


@dataclass(frozen=True)
class Optim:
    """AdamW's constants for one stage (paper Tables 7-10)."""

    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's betas."""
    eps: float = 1e-8
    """AdamW's epsilon."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    clip: float = 1.0
    """Global gradient norm above this is scaled down to it."""


@dataclass(frozen=True)
class Score:
    """One row of the ledger."""

    stage: str
    """The stage that made the checkpoint."""
    step: int
    """The stage's step at which it was measured."""
    domain: str
    """What was measured."""
    split: Split
    """Teachers are chosen on validation; results are reported on test."""
    metric: str
    """`accuracy`: mean reward at the recipe's sampling; `greedy`: at temperature 0; `pass@k`, …"""
    value: float
    """The estimate."""
    n: int
    """Prompts behind it."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""
    failed: int = 0
    """Prompts that are not behind it: a rollout of theirs failed, or nobody could judge it."""


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed as a function of its parts, e.g. (run seed, stage, step, prompt id, sibling).

    Stable across machines.
    """
    text = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


# ---------------------------------------------------------------- checks


@dataclass(frozen=True)
class Finding:
    """One thing that was tried, of a domain or of a model."""

    what: str
    """What was tried, on how much."""
    ok: bool
    """Whether it held."""
    detail: str = ""
    """What was seen; where it did not hold, also what to do."""
