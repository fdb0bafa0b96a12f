"""Which layout a row has, told by its fields, and who takes it: a domain, or supervised training.

Rows of the SFT layouts become `messages` here. Rows of the others are read by their domain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from linn.chat.values import decoded
from linn.data.agents import agent_of, domain_of, metadata_of
from linn.data.rows import BadRow

_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "function_response": "tool",
}
"""Who speaks in ShareGPT's turns, as chat turns have it."""
_CALLS = ("function_call", "tool_call")
"""Speakers of ShareGPT's turns whose text is a call."""
_TURNS = ("messages", "conversations", "conversation")
"""Where rows keep their turns."""
_ANSWERS = ("completion", "response", "output")
"""Where rows of one question and one answer keep the answer."""


@dataclass(frozen=True)
class Layout:
    """What a row is."""

    name: str
    """The name that people know it by."""
    domain: str | None
    """The domain that takes it; None: no domain, or none that is known."""
    sft: bool = False
    """Whether it is a demonstration, for `data:` of an SFT stage."""

    @property
    def use(self) -> str:
        """Where a recipe names a file of such rows."""
        if self.sft:
            return "data: of an sft stage"
        if self.domain is None:
            return "nothing that linn knows; name a domain that reads it"
        return f"domains.{self.domain}.rows"


def present(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without its nulls: a table has every column in every row."""
    return {key: value for key, value in row.items() if value is not None}


def layout_of(row: Mapping[str, Any]) -> Layout:
    """The layout of a row, nulls aside; BadRow where `agent_ref` cannot be read."""
    row = present(row)
    if _is_demonstration(row):
        return Layout(_demonstration_name(row), None, sft=True)

    agent = agent_of(row)
    if agent is not None:
        return Layout("NeMo-Gym, by its agent", domain_of(agent))
    name, domain = next(_by_fields(row), ("unknown", None))
    if isinstance(row.get("responses_create_params"), Mapping):
        name = "NeMo-Gym without an agent" if domain is None else f"NeMo-Gym, {name}"
    return Layout(name, domain)


# ---------------------------------------------------------------- demonstrations


def _is_demonstration(row: Mapping[str, Any]) -> bool:
    if "responses_create_params" in row:
        return False
    if "messages" in row:
        turns = row["messages"]
        last = turns[-1] if isinstance(turns, list) and turns else None
        asks = isinstance(last, Mapping) and last.get("role") == "user"
        # A conversation that somebody is to answer, with what a grader needs.
        return not (asks and next(_by_fields(row), None) is not None)
    if "conversations" in row or "conversation" in row:
        return True
    return _question_and_answer(row) is not None


def _demonstration_name(row: Mapping[str, Any]) -> str:
    if "messages" in row:
        return "messages"
    if "conversations" in row or "conversation" in row:
        return "ShareGPT"
    return "Alpaca" if "instruction" in row else "prompt and completion"


def _question_and_answer(row: Mapping[str, Any]) -> tuple[Any, Any] | None:
    """The prompt and the answer of a row that holds one of each."""
    if "instruction" in row and isinstance(row.get("output"), str):
        extra = row.get("input")
        question = str(row["instruction"])
        return (f"{question}\n\n{extra}" if extra else question), row["output"]
    if "prompt" not in row or next(_by_fields(row), None) is not None:
        return None
    answers = [row[key] for key in _ANSWERS if key in row]
    return (row["prompt"], answers[0]) if len(answers) == 1 else None


def as_messages(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of an SFT layout with its turns under `messages`; other rows as they are.

    BadRow where ShareGPT's turns cannot be read.
    """
    row = present(row)
    for key in _TURNS:
        if key in row:
            return row | {"messages": _turns_of(row[key], key)}
    pair = _question_and_answer(row)
    if pair is None:
        return row
    question, answer = pair
    turns = [*_history(row), *_listed(question, "user"), *_listed(answer, "assistant")]
    return row | {"messages": turns}


def _history(row: Mapping[str, Any]) -> list[Any]:
    """The earlier questions and answers of an Alpaca row."""
    pairs = row.get("history") or []
    turns = []
    for i, pair in enumerate(pairs if isinstance(pairs, list) else [pairs]):
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadRow(f"history[{i}]: expected a question and its answer", "unreadable history")
        question, answer = pair
        turns += [*_listed(question, "user"), *_listed(answer, "assistant")]
    return turns


def _listed(turns: Any, role: str) -> list[Any]:
    """Turns as a list: text is one turn of `role`."""
    return list(turns) if isinstance(turns, list) else [{"role": role, "content": turns}]


def _turns_of(turns: Any, where: str) -> Any:
    """ShareGPT's turns as chat turns; what is no list of objects is left to who reads them."""
    if isinstance(turns, str):
        turns = decoded(turns)
    if not isinstance(turns, list):
        return turns
    return [_turn(turn, f"{where}[{i}]") for i, turn in enumerate(turns)]


def _turn(turn: Any, where: str) -> Any:
    if not isinstance(turn, Mapping):
        return turn
    is_chat = turn.get("from") is None and turn.get("value") is None
    speaker = str(turn["from"] if turn.get("from") is not None else turn.get("role"))
    text = turn["value"] if turn.get("value") is not None else turn.get("content")
    known = speaker in _SPEAKERS or speaker in _CALLS
    # What is wrong with a chat turn is said by who reads those.
    if is_chat and (where.startswith("messages") or not known or speaker in _SPEAKERS.values()):
        return turn
    if speaker in _CALLS:
        call = decoded(text) if isinstance(text, str) else text
        calls = call if isinstance(call, list) else [call]
        return {"role": "assistant", "content": "", "tool_calls": calls}
    if not known:
        allowed = ", ".join([*_SPEAKERS, *_CALLS])
        raise BadRow(f"{where}.from is {speaker[:40]!r}; allowed: {allowed}", "unknown role")
    rest = {key: value for key, value in turn.items() if key not in ("from", "value", "role")}
    return rest | {"role": _SPEAKERS[speaker], "content": text}


# ---------------------------------------------------------------- rows of domains


def _by_fields(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(layout, domain) that a row's own fields point to, the surest first."""
    fields = row.keys()
    verifier = row.get("verifier_metadata")
    verifier_fields = verifier.keys() if isinstance(verifier, Mapping) else set()

    if "instruction_id_list" in fields or "instruction_id_list" in verifier_fields:
        yield "IFEval and IFBench", "instruct"
    if "schema_str" in fields:
        yield "structured output", "structured"
    if {"ground_truth", "environment_name"} <= fields:
        yield "workplace", "workplace"
    if {"unit_tests", "test"} & verifier_fields:
        yield "programs with tests", "code"
    if {"test", "entry_point", "prompt"} <= fields:
        yield "HumanEval", "code"
    if {"response1", "response2"} <= fields:
        yield "HelpSteer3", "genrm"
    if {"chosen", "rejected"} <= fields:
        yield "prompt, chosen and rejected", "preference"
    if "outputs" in fields and "expected_answer" not in fields:
        yield "RULER", "longctx"
    yield from _issues(row)
    yield from _questions(row)


def _questions(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows of a question and its answer."""
    fields = row.keys()
    has_answer = bool({"answer", "answerKey", "expected_answer", "answer_index"} & fields)
    has_options = bool({"options", "choices"} & fields) or {"question", "A", "B"} <= fields
    if has_options and has_answer:
        yield "multiple choice", "mcqa"
    if {"formal_statement"} <= fields:
        yield "Lean 4", "proof"
    if {"given", "goal", "problem"} <= fields:
        yield "equations", "proof"

    reward_model = row.get("reward_model")
    if isinstance(reward_model, Mapping) and reward_model.get("ground_truth") is not None:
        yield "verl", "math"
    answer = row.get("answer")
    if "question" in fields and isinstance(answer, str) and "####" in answer:
        yield "GSM8K", "math"
    asks = bool({"question", "problem", "Question", "Problem"} & fields)
    if asks and {"answer", "expected_answer", "Answer"} & fields:
        yield "question and answer", "math"
    solution = row.get("solution")
    if asks and isinstance(solution, str) and "\\boxed" in solution:
        yield "MATH", "math"


def _issues(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows of issues of repositories."""
    metadata = metadata_of(row)
    within = metadata.keys() if isinstance(metadata, Mapping) else set()
    if "relevant_file_contents" in row or "relevant_file_contents" in within:
        yield "issue with its files", "swe_agentless"
    elif "base_commit" in row or "commit_hash" in row or "problem_statement" in within:
        yield "issue of a repository", "swe_agentic"
