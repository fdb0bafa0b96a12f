"""Which domain a row of a blended file is for: the agents that released rows name in `agent_ref` (NeMo-Gym 0.4.0's configurations)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from linn.data.rows import BadRow

_AGENTS = {
    "instruct": ("instruction_following_simple_agent", "ifbench_simple_agent", "ifbench_benchmark_simple_agent"),
    "mcqa": ("mcqa_simple_agent", "gpqa_diamond_simple_agent"),
    "workplace": ("workplace_assistant_simple_agent",),
    "structured": (
        "structured_outputs_simple_agent", "structured_outputs_v3_simple_agent", "structured_outputs_v4_simple_agent",
    ),
    "math": ("math_with_judge_simple_agent", "math_with_autograder_simple_agent"),
    "preference": ("genrm_simple_agent", "genrm_simple_agent_reasoning_off"),
    "longctx": ("lc_judge_simple_agent", "lc_equivalence_rule_simple_agent", "ruler_simple_agent", "ruler_benchmark_simple_agent"),
    "code": ("code_gen_simple_agent", "evalplus_simple_agent"),
    "swe_agentless": ("swerl_gen_simple_agent",),
    "swe_agentic": ("swe_agents", "swe_agents_train", "swe_agents_val", "mini_swe_simple_agent", "mini_swe_agent_2"),
    "proof": ("proof_simple_agent", "proof_verification_simple_agent", "imo_proofbench_judge_simple_agent", "math_formal_lean_simple_agent"),
}  # fmt: skip

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


def domain_of(agent: str) -> str | None:
    """The domain that an agent's rows are for; a row may also name a domain itself. Benchmarks put their name before the agent's: `aime24_…`."""
    if agent in _AGENTS:
        return agent
    return _DOMAIN_OF.get(agent) or next(
        (domain for name, domain in _DOMAIN_OF.items() if agent.endswith(f"_{name}")), None
    )


def metadata_of(row: Mapping[str, Any]) -> Any:
    """A row's `metadata`, or that of its request, where agentic SWE rows have theirs."""
    params = row.get("responses_create_params")
    own = row.get("metadata")
    return params.get("metadata") if own is None and isinstance(params, Mapping) else own


def agent_of(row: Mapping[str, Any]) -> str | None:
    """The agent that a row names, or None; BadRow where `agent_ref` cannot be read."""
    told = row.get("agent_ref")
    name = told.get("name") if isinstance(told, Mapping) else told
    if name is None or (isinstance(name, str) and name):
        return name
    raise BadRow(
        f"agent_ref.name is {str(name)[:40]!r}; allowed: the name of an agent", "agent_ref"
    )


def whose(row: Mapping[str, Any], domain: str) -> str:
    """Empty where a row is for `domain` (or for nobody in particular), else whose it is; BadRow where its verifier has nothing to go by.

    A domain that no agent is known for, such as a user's own, takes the rows of agents that no other domain is known for.
    """
    agent = agent_of(row)
    owner = domain_of(agent) if agent is not None else domain
    if owner is None and domain in _AGENTS:
        return f"of agent {str(agent)[:60]}, which no domain knows"
    if owner not in (None, domain):
        return "of other domains"
    if row.get("_hf_placeholder"):
        raise BadRow(
            "_hf_placeholder: its question is to be taken from another data set first",
            "placeholder",
        )
    fields = SIGNAL.get(domain, ())
    if fields and all(
        (metadata_of(row) if field == "metadata" else row.get(field)) in (None, "", [], {})
        for field in fields
    ):
        raise BadRow(
            f"no verifier signal: {' and '.join(fields)} {'are' if len(fields) > 1 else 'is'} missing or empty",
            "no verifier signal",
        )
    return ""
