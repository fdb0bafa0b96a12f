"""Every domain on held-out prompts, sampled and greedy: scores with intervals and n.

The rewards and the replies behind the scores are kept beside them.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from linn import files
from linn.chat.codec import Codec
from linn.data.tally import Tally
from linn.domains.base import Domain
from linn.engine.protocol import Sampler
from linn.errors import UserError
from linn.judges.panel import Judges, Siblings
from linn.ledger import Cell, score, write_rewards
from linn.ledger.samples import pass_at_k
from linn.play.failures import check_failures, is_judged
from linn.play.rollout import Job, play, transcript
from linn.play.thoughts import warnings
from linn.recipe.evaluation import EvaluateConfig
from linn.types import Message, Prompt, Rollout, Sampling, Score, Split, seed_of

_ANSWER, _FURTHER = Message("assistant", "Done."), Message("user", "Go on.")
"""Turns by which is tried whether a conversation may go on."""

LONG_FILE = 2**24
"""Bytes of a file of rows from which on drawing prompts from it is announced."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One way to evaluate."""

    split: Split
    """Which prompts."""
    metric: str
    """Its name in the ledger."""
    sampling: Sampling
    """How replies are sampled; `stop` is filled in with the end-of-turn token."""
    as_trained: bool = False
    """Temperature and nucleus are each domain's own, as it is sampled in training."""
    siblings: int = 1
    """Rollouts per prompt."""
    thinking: bool | None = None
    """Whether replies open with a thought; None: as each prompt says."""
    domain: str | None = None
    """The only domain it is for; None: every domain that is evaluated."""

    def domains_among(self, names: Sequence[str]) -> list[str]:
        """Those of the domains that it is for."""
        return [name for name in names if self.domain in (None, name)]

    def prompt(self, prompt: Prompt) -> Prompt:
        """The prompt in the probe's mode."""
        if self.thinking is None:
            return prompt
        return replace(prompt, thinking=self.thinking)


class Evaluation:
    """The held-out prompts of a recipe's domains; the same after every stage, whatever the seed."""

    def __init__(
        self,
        domains: Mapping[str, Domain],
        config: EvaluateConfig,
        splits: Sequence[Split] = ("test", "validation"),
        say: Callable[[str], None] = lambda line: None,
        as_trained: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        """`splits`: which are measured. `say` hears how much of each file is.

        `as_trained`: temperature and nucleus mass of each domain; default: 1 and 1.
        """
        self.domains = domains
        self.config = config
        self.as_trained = as_trained or {}
        counts: dict[Split, int] = {"test": config.test, "validation": config.validation}
        self.prompts = self._draw({split: counts[split] for split in splits}, say)
        self.warnings: list[str] = []
        """What the replies of the last measurement say about template and mode."""

    @property
    def whole(self) -> list[Probe]:
        """Everything, for a checkpoint that is measured by itself.

        `accuracy` on both splits, `greedy` on test, `pass@k` on validation where the recipe has it.
        """
        # Whoever asks for one checkpoint alone wants both, unless the recipe has no greedy at all.
        return self._probes(greedy=bool(self.config.greedy))

    def after(self, stage: str) -> list[Probe]:
        """What is evaluated after a stage of the recipe: `greedy` where `evaluate.greedy` says."""
        return self._probes(greedy=self.config.is_greedy(stage))

    def _probes(self, greedy: bool) -> list[Probe]:
        config = self.config
        sampled = Sampling(config.max_tokens)
        probes = [Probe(split="test", metric="accuracy", sampling=sampled, as_trained=True)]
        if greedy:
            likeliest = Sampling(config.max_tokens, temperature=0.0)
            probes.append(Probe(split="test", metric="greedy", sampling=likeliest))
        probes.append(
            Probe(split="validation", metric="accuracy", sampling=sampled, as_trained=True)
        )
        if config.pass_at:
            probes.append(
                Probe(
                    split="validation",
                    metric=f"pass@{config.pass_at}",
                    sampling=sampled,
                    as_trained=True,
                    siblings=config.pass_at,
                )
            )
        return [probe for probe in probes if probe.split in self.prompts]

    @property
    def curve(self) -> list[Probe]:
        """What is evaluated within a stage (`curve_every`)."""
        return self.whole[:1]

    @property
    def kept(self) -> list[Probe]:
        """What a checkpoint kept within a stage needs to compete as a teacher: both splits."""
        return [probe for probe in self.whole if probe.metric == "accuracy"]

    async def measure(
        self,
        stage: str,
        step: int,
        sampler: Sampler,
        codec: Codec,
        seed: int,
        probes: Sequence[Probe],
        names: Sequence[str] = (),
        folder: Path | None = None,
        rewards_in: Path | None = None,
        on_done: Callable[[int, int], None] = lambda done, total: None,
        on_unjudged: Callable[[str], None] = lambda line: None,
        judges: Judges | None = None,
    ) -> list[Score]:
        """Scores of the sampler's model, for every probe and each domain in `names` (empty: all).

        All conversations are held at once. With `folder`, the graded replies are kept there as
        `SPLIT-METRIC.jsonl`; with `rewards_in`, a stage's folder, every prompt's reward.
        Prompts with a failed rollout leave the score and are counted in it. Raises RunFailed where
        more than `max_failed` of a domain's rollouts failed. `on_done` is called with how many
        conversations are over, of how many; `on_unjudged` with a line for each score that is
        missing, since nobody judged any prompt. A judge model decides on each reply alone in the
        domains that have one, in place of `verify`.
        """
        domains = list(names or self.domains)
        jobs_by_probe = [self._jobs(probe, domains, seed) for probe in probes]
        # All probes are one batch: their conversations fill each other's gaps.
        jobs = list(itertools.chain.from_iterable(jobs_by_probe))
        rollouts = await play(
            jobs,
            self.domains,
            sampler,
            codec,
            lambda done: on_done(done, len(jobs)),
        )
        rollouts = await judged_alone(
            rollouts, self.domains, judges or Judges(), seed_of("evaluate", seed)
        )

        self.warnings = warnings(rollouts, codec.template)

        # Rollouts come in the order of the jobs, so each probe takes its own share.
        scores = []
        rewards_by_cell: dict[Cell, dict[str, float]] = {}
        rest = iter(rollouts)
        for probe, probe_jobs in zip(probes, jobs_by_probe, strict=True):
            of_probe = list(itertools.islice(rest, len(probe_jobs)))
            # Kept first: where a broken grader stops the run, its notes are at hand.
            if folder is not None:
                path = folder / f"{probe.split}-{probe.metric}.jsonl"
                files.write_jsonl(path, map(_row, of_probe))
            where = f"evaluation of {stage}:{step}, {probe.split} {probe.metric}"
            check_failures(of_probe, self.config.max_failed, where)

            for name in probe.domains_among(domains):
                own = [rollout for rollout in of_probe if rollout.prompt.domain == name]
                if not own:  # told when the prompts were drawn
                    continue
                rewards = prompt_rewards(own, probe.siblings)
                failed = len(own) // probe.siblings - len(rewards)
                if not rewards:
                    on_unjudged(f"{where}: nobody judged any of the {failed} prompts of {name}")
                    continue
                scores.append(
                    score(stage, step, name, probe.split, probe.metric, [*rewards.values()], failed)
                )
                rewards_by_cell[name, probe.split, probe.metric] = rewards
        if rewards_in is not None:
            write_rewards(rewards_in, step, rewards_by_cell)
        return scores

    def check(self, codec: Codec) -> None:
        """Refuse a domain whose prompts the chat template cannot write, before anything runs."""
        seen: set[str] = set()
        for prompt in itertools.chain.from_iterable(self.prompts.values()):
            if prompt.domain in seen:
                continue
            seen.add(prompt.domain)
            try:
                codec.prompt_ids(prompt)
                if self.domains[prompt.domain].max_turns > 1:
                    codec.continuation_ids(prompt, [_ANSWER], [_FURTHER])
            except UserError as error:
                raise UserError(f"domain {prompt.domain}: {error}") from None

    def _draw(
        self, counts: Mapping[Split, int], say: Callable[[str], None]
    ) -> dict[Split, list[Prompt]]:
        prompts: dict[Split, list[Prompt]] = {split: [] for split in counts}
        for name, domain in self.domains.items():
            if domain.rows is not None and _is_long(domain.rows):
                say(f"{name}: drawing test and validation prompts from {domain.rows}")
            for split, found in domain.measured_prompts(counts).items():
                tally = domain.measured_tallies.get(split, domain.tally)
                file = domain.splits.file(split)
                if not found:
                    raise UserError(_without_prompts(name, split, domain.rows, file, tally))
                if file is not None:
                    say(
                        _file_in_words(f"{split} of {name}", file, len(found), counts[split], tally)
                    )
                prompts[split] += _judgeable(domain, split, found[: counts[split]], say)
        return prompts

    def _how(self, probe: Probe, domain: str) -> Sampling:
        if not probe.as_trained:
            return probe.sampling
        temperature, top_p = self.as_trained.get(domain, (1.0, 1.0))
        return replace(probe.sampling, temperature=temperature, top_p=top_p)

    def _jobs(self, probe: Probe, names: Sequence[str], seed: int) -> list[Job]:
        """The conversations of a probe. Their seeds depend on neither stage nor step."""
        domains = probe.domains_among(names)
        return [
            Job(
                prompt=probe.prompt(prompt),
                sibling=sibling,
                how=self._how(probe, prompt.domain),
                seed=seed_of(
                    "evaluate", seed, probe.split, probe.metric, prompt.domain, prompt.id, sibling
                ),
                max_sequence=self.config.max_sequence,
            )
            for prompt in self.prompts[probe.split]
            if prompt.domain in domains
            for sibling in range(probe.siblings)
        ]


def _judgeable(
    domain: Domain, split: Split, prompts: Sequence[Prompt], say: Callable[[str], None]
) -> list[Prompt]:
    """The prompts that somebody can judge a reply to, in the domain's mode; the others are told."""
    kept = []
    causes: Counter[str] = Counter()
    for prompt in prompts:
        cause = domain.unjudged(prompt)
        if cause:
            causes[cause] += 1
        else:
            kept.append(domain.in_mode(prompt))
    for cause, count in causes.items():
        say(f"{domain.name}: {count} of {len(prompts)} {split} prompts are not measured: {cause}")
    return kept


def _is_long(name: str | Path) -> bool:
    """Whether reading a local file of rows takes seconds."""
    path = Path(name)
    return path.is_file() and path.stat().st_size > LONG_FILE


def _without_prompts(
    name: str, split: Split, rows: str | Path | None, file: str | None, tally: Tally
) -> str:
    """That a domain has nothing to be measured on, and what to do."""
    text = f"domain {name} has no {split} prompts"
    if file is not None:
        return f"{text} (of {file}: {tally}); name another file as domains.{name}.{split}"
    if rows is None:
        return text
    remedy = f"give it more rows, or name a file of its own as domains.{name}.{split}"
    return f"{text} (of its rows: {tally}); {remedy}"


def _file_in_words(what: str, file: str, found: int, most: int, tally: Tally) -> str:
    """How much of a test or validation file is measured."""
    text = f"{what}: all {found:,} prompts of {file}"
    if found > most:
        split = what.partition(" ")[0]
        text = f"{what}: the first {most:,} prompts of {file}; evaluate.{split} takes more"
    if tally.bad or tally.others:
        text += f" (rows read: {tally})"
    return text


async def judged_alone(
    rollouts: Sequence[Rollout], domains: Mapping[str, Domain], judges: Judges, seed: int
) -> list[Rollout]:
    """The rollouts, those of judged domains with the judge model's verdict on each alone.

    Each is a group of one. Failed ones stay failed.
    """
    # What failed was judged by nobody and keeps its reward of 0.
    places = [
        i
        for i, rollout in enumerate(rollouts)
        if domains[rollout.prompt.domain].judged and rollout.status != "failed"
    ]

    groups = []
    for i in places:
        prompt = rollouts[i].prompt
        groups.append(Siblings(domains[prompt.domain], prompt, [rollouts[i].reply]))

    results = list(rollouts)
    verdicts_by_place = await judges.verdicts(groups, seed)
    for i, verdicts in zip(places, verdicts_by_place, strict=True):
        if verdicts is not None:  # None: the domain leaves this reply to `verify`
            results[i] = replace(rollouts[i], verdict=verdicts[0])
    return results


def prompt_rewards(rollouts: Sequence[Rollout], siblings: int) -> dict[str, float]:
    """Prompt id -> its reward, or with several siblings the estimate of pass@siblings.

    `rollouts`: every `siblings` consecutive ones are of one prompt. A prompt with a rollout that
    nobody judged is left out: pass@k needs all k.
    """
    rewards = {}
    for first in range(0, len(rollouts), siblings):
        own = rollouts[first : first + siblings]
        if not all(map(is_judged, own)):
            continue
        reward = own[0].verdict.reward
        if siblings > 1:
            solved = sum(rollout.verdict.reward >= 1.0 - 1e-9 for rollout in own)
            reward = pass_at_k(siblings, solved, siblings)
        rewards[own[0].prompt.id] = reward
    return rewards


def _row(rollout: Rollout) -> dict[str, object]:
    return {
        "prompt_id": rollout.prompt.id,
        "domain": rollout.prompt.domain,
        "sibling": rollout.sibling,
        "reward": rollout.verdict.reward,
        "status": rollout.status,
        "error": rollout.error,
        "note": rollout.verdict.note,
        "text": transcript(rollout),
    }
