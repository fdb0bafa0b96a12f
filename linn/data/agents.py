"""Which domain a row of a blended file is for.

Released rows name an agent in `agent_ref`; the agents are those of NeMo-Gym 0.4.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from linn.data.rows import BadRow

_AGENTS = {
    "instruct": (
        "instruction_following_simple_agent",
        "ifbench_simple_agent",
        "ifbench_benchmark_simple_agent",
    ),
    "mcqa": (
        "mcqa_simple_agent",
        "gpqa_diamond_simple_agent",
    ),
    "workplace": ("workplace_assistant_simple_agent",),
    "structured": (
        "structured_outputs_simple_agent",
        "structured_outputs_v3_simple_agent",
        "structured_outputs_v4_simple_agent",
    ),
    "math": (
        "math_with_judge_simple_agent",
        "math_with_autograder_simple_agent",
        "ns_tools_simple_agent",
    ),
    "preference": (
        "genrm_simple_agent",
        "genrm_simple_agent_reasoning_off",
    ),
    "longctx": (
        "lc_judge_simple_agent",
        "lc_equivalence_rule_simple_agent",
        "ruler_simple_agent",
        "ruler_benchmark_simple_agent",
    ),
    "code": (
        "code_gen_simple_agent",
        "evalplus_simple_agent",
    ),
    "swe_agentless": ("swerl_gen_simple_agent",),
    "swe_agentic": (
        "swe_agents",
        "swe_agents_train",
        "swe_agents_val",
        "mini_swe_simple_agent",
        "mini_swe_agent_2",
    ),
    "proof": (
        "proof_simple_agent",
        "proof_verification_simple_agent",
        "imo_proofbench_judge_simple_agent",
        "math_formal_lean_simple_agent",
    ),
}

_DOMAIN_OF = {agent: domain for domain, agents in _AGENTS.items() for agent in agents}

SIGNAL = {
    "instruct": ("instruction_id_list", "verifier_metadata"),
    "mcqa": ("expected_answer",),
    "workplace": ("ground_truth",),
    "structured": ("schema_str",),
    "math": ("expected_answer", "answer"),
    "longctx": ("expected_answer", "outputs"),
    "code": ("verifier_metadata",),
    "swe_agentless": ("metadata", "relevant_file_contents"),
    "swe_agentic": ("metadata", "base_commit", "commit_hash"),
}
"""Fields of a row of which a domain's verifier needs at least one."""

_PUBLISHED_SIGNAL = {
    "mcqa": ("answer", "answerKey", "answer_index"),
    "math": ("Answer", "solution", "reward_model"),
    "code": ("test",),
}
"""Fields that do as well, in rows of benchmarks as they are published."""


def domain_of(agent: str) -> str | None:
    """The domain that an agent's rows are for; a row may also name a domain itself."""
    if agent in _AGENTS:
        return agent
    if agent in _DOMAIN_OF:
        return _DOMAIN_OF[agent]
    # Benchmarks put their name before the agent's: `aime24_math_with_judge_simple_agent`.
    for name, domain in _DOMAIN_OF.items():
        if agent.endswith(f"_{name}"):
            return domain
    return None


def metadata_of(row: Mapping[str, Any]) -> Any:
    """A row's `metadata`, or that of its request, where agentic SWE rows have theirs."""
    params = row.get("responses_create_params")
    own = row.get("metadata")
    if own is None and isinstance(params, Mapping):
        return params.get("metadata")
    return own


def agent_of(row: Mapping[str, Any]) -> str | None:
    """The agent that a row names, or None; BadRow where `agent_ref` cannot be read."""
    reference = row.get("agent_ref")
    name = reference.get("name") if isinstance(reference, Mapping) else reference
    if name is None or (isinstance(name, str) and name):
        return name
    raise BadRow(
        f"agent_ref.name is {str(name)[:40]!r}; allowed: the name of an agent", "agent_ref"
    )


def owner(row: Mapping[str, Any]) -> str | None:
    """The domain that a row is for, by its agent; None where it names no agent.

    The agent's own name where no domain is known for it. BadRow where `agent_ref` cannot be read.
    """
    agent = agent_of(row)
    if agent is None:
        return None
    return domain_of(agent) or agent


def is_for(owner: str | None, domain: str) -> bool:
    """Whether `domain` takes rows of this `owner`.

    Rows that name nobody are for any domain. A domain that no agent is known for, such as a
    user's own, takes the rows of agents that no other domain is known for.
    """
    if owner is None or owner == domain:
        return True
    return owner not in _AGENTS and domain not in _AGENTS


def owner_in_words(owner: str) -> str:
    """Whose the rows are that a domain passes over, as counts name it."""
    if owner in _AGENTS:
        return "of other domains"
    return f"of agent {owner[:60]}, which no domain knows"


def check_signal(row: Mapping[str, Any], domain: str) -> None:
    """BadRow where the domain's verifier has nothing in the row to go by."""
    if row.get("_hf_placeholder") not in (None, False, "", 0, "False", "false"):
        raise BadRow(
            "_hf_placeholder: its question is to be taken from another data set first",
            "placeholder",
        )

    fields = SIGNAL.get(domain, ())
    for field in (*fields, *_PUBLISHED_SIGNAL.get(domain, ())):
        value = metadata_of(row) if field == "metadata" else row.get(field)
        if value not in (None, "", [], {}):
            return

    if fields:
        verb = "are" if len(fields) > 1 else "is"
        raise BadRow(
            f"no verifier signal: {' and '.join(fields)} {verb} missing or empty",
            "no verifier signal",
        )
