"""What a recipe costs before it runs, stage by stage.

Tokens, FLOPs, device-hours, verifier core-hours, judge questions and memory. All of it is
arithmetic on the recipe's values and the model's shape. What a recipe cannot know (mean lengths,
utilisation, lengths of prompts) is a field of `Assumptions` and printed with the result.
The reading `expected` goes by them; `most` is what the recipe's limits allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from linn.domains.base import Domain
from linn.engine.local.host_memory import machine_bytes
from linn.errors import UserError, nearest
from linn.pricing.amounts import Amount, Price, StagePrice
from linn.pricing.assumptions import DEVICES, DOMAINS, GENERATED, Assumptions, DomainCost
from linn.pricing.layout import Layout, layout_of
from linn.pricing.memory import Memory, memory_of
from linn.pricing.prompt_lengths import Lengths
from linn.pricing.shape import Shape
from linn.pricing.smallest import smallest_cluster, smallest_that_fits
from linn.recipe.base import short
from linn.recipe.schema import DomainConfig, Recipe
from linn.recipe.stages import DistillConfig, RlConfig, RolloutConfig, SftConfig, StageConfig


def price(
    recipe: Recipe,
    shape: Shape,
    domains: Mapping[str, Domain],
    assumed: Assumptions | None = None,
    prompts: Mapping[str, Lengths] | None = None,
) -> Price:
    """The price of a recipe. `domains`: each of its domains, by its short name.

    prompts: by domain, where its rows are at hand; others are taken as `assumptions` says.
    """
    assumed = assumed or Assumptions()
    if assumed.device not in DEVICES:
        raise UserError(f"--device {assumed.device!r}: unknown{nearest(assumed.device, DEVICES)}")
    if not 0 < assumed.mean_length <= 1:
        raise UserError(
            f"--mean-length {assumed.mean_length}: must be above 0 and at most 1, "
            "a share of the longest reply"
        )

    prompts = prompts or {}
    pricer = _Pricer(recipe, shape, domains, assumed, prompts)

    return Price(
        shape=shape,
        stages=tuple(pricer.stage(stage) for stage in recipe.stages),
        evaluation=pricer.evaluation(),
        memory=pricer.memory(),
        devices=recipe.scale.devices,
        assumed=assumed,
        layout=pricer.layout(),
        beyond_one=pricer.beyond_one(),
        prompts=prompts,
    )


@dataclass(frozen=True)
class _Talk:
    """The conversations of one domain in a stage; means, so no whole numbers."""

    prompt: float
    """Tokens of the prompt."""
    length: float
    """Tokens after the prompt."""
    sampled: float
    """Those that the policy samples."""

    @property
    def total(self) -> float:
        """Tokens of the whole conversation."""
        return self.prompt + self.length

    @property
    def attended(self) -> float:
        """Earlier tokens looked at, summed over the tokens after the prompt."""
        return self.length * self.prompt + self.length**2 / 2


class _Pricer:
    """Arithmetic over one recipe, shape and set of assumptions."""

    def __init__(
        self,
        recipe: Recipe,
        shape: Shape,
        domains: Mapping[str, Domain],
        assumed: Assumptions,
        prompts: Mapping[str, Lengths],
    ) -> None:
        self.recipe = recipe
        self.shape = shape
        self.domains = domains
        self.assumed = assumed
        self.prompts = prompts
        self.device = DEVICES[assumed.device]
        self.costs = {
            short(name): _cost_of(short(name), config) for name, config in recipe.domains.items()
        }

    def stage(self, config: StageConfig) -> StagePrice:
        """One stage, both readings."""
        if isinstance(config, SftConfig):
            kind = "sft"
            expected, most = (self._sft(config, most) for most in (False, True))
        else:
            assert isinstance(config, RolloutConfig)
            kind = "distill" if isinstance(config, DistillConfig) else "rl"
            expected, most = (self._rollouts(config, most) for most in (False, True))
        return StagePrice(config.name, kind, config.steps, expected, most)

    def evaluation(self) -> StagePrice:
        """The held-out conversations after each evaluated stage."""
        config = self.recipe.evaluate
        names = self.recipe.stage_names()
        conversations = sum(map(self.recipe.conversations_after, names))
        readings = []

        for most in (False, True):
            amount = Amount()
            for name in map(short, self.recipe.domains):
                talk = self._talk(name, config.max_tokens, None, config.max_sequence, most)
                work = self._sampling(name, talk, conversations, conversations)
                amount += work + self._verdicts(name, conversations, siblings=1)

            readings.append(amount)

        expected, most_of_it = readings

        return StagePrice("evaluation", "", 0, expected, most_of_it)

    def memory(self) -> Memory:
        """Of a process, in the stage that needs most of each; see `Memory`."""
        scale = self.recipe.scale
        stages = self.recipe.stages
        tokens = max(self._tokens_of(stage) for stage in stages)
        cached = max(self._cached(stage) for stage in stages)
        on_host = scale.device != "cpu" and scale.trainers.moments == "host"
        return memory_of(self.shape, scale.width, tokens, cached, scale.recompute, on_host)

    def layout(self) -> Layout | None:
        """The processes of a cluster; None where the engine is local."""
        if self.recipe.scale.engine == "local":
            return None
        return self._layout_of(self.recipe)

    def beyond_one(self) -> str:
        """What fits where one GPU is too small for the local engine; empty where it is not asked.

        Keys first that leave it one GPU, then the smallest cluster.
        """
        scale, memory, has = self.recipe.scale, self.memory(), self.device.memory
        if scale.engine == "cluster" or scale.device == "cpu" or memory.on_gpu <= has:
            return ""
        recomputed = replace(memory, activations=memory.recomputed)
        keys = {
            "scale.recompute: true": recomputed,
            "scale.trainers.moments: host": replace(memory, host_moments=True),
            "scale.recompute: true, scale.trainers.moments: host": replace(
                recomputed, host_moments=True
            ),
        }
        for named, smaller in keys.items():
            if smaller.on_gpu <= has:
                return f"fits one {self.assumed.device} with {named}"
        cluster = self.recipe.model_copy(update={"scale": smallest_cluster(scale)})
        return smallest_that_fits(self._layout_of(cluster))

    def _layout_of(self, recipe: Recipe) -> Layout:
        talks = [self._longest(one) for one in self.recipe.stages if isinstance(one, RolloutConfig)]
        trained = max(talks, default=0.0)
        if self.recipe.domains:
            limits = (self.recipe.evaluate.max_tokens, None, self.recipe.evaluate.max_sequence)
            names = map(short, self.recipe.domains)
            talks += [self._talk(name, *limits, most=True).total for name in names]
        longest = max(talks, default=float(self.recipe.scale.width))
        by_vllm = recipe.scale.samplers.engine == "vllm"
        kept = self.shape.cache_bytes if by_vllm else self.shape.state_bytes
        return layout_of(
            recipe,
            self.shape,
            trained,
            kept(longest),
            self.assumed.device,
            self.device.memory,
        )

    def _tokens_of(self, config: StageConfig) -> float:
        """Tokens of a process's share of a step, at most."""
        processes = self.recipe.scale.training_processes
        if isinstance(config, SftConfig):
            width = self.recipe.scale.width if config.packed else config.max_length
            return max(width, config.batch * width / processes)
        assert isinstance(config, RolloutConfig)
        longest = self._longest(config)
        return max(longest, config.prompts * config.rollouts * longest / processes)

    def _cached(self, config: StageConfig) -> float:
        """Caches of what a process decodes together, every conversation at its longest.

        The evaluation that follows counts too.
        """
        scale, evaluate = self.recipe.scale, self.recipe.evaluate
        cached = 0.0
        if isinstance(config, RolloutConfig):
            rows = -(-config.prompts * config.rollouts // scale.sampling_processes)
            cached = self._cached_rows(rows, self._longest(config))
        if config.evaluate and self.recipe.domains:
            held_out = len(self.recipe.domains) * max(evaluate.test, evaluate.validation)
            rows = -(-held_out // scale.sampling_processes)
            limits = (evaluate.max_tokens, None, evaluate.max_sequence)
            talks = [self._talk(short(name), *limits, most=True) for name in self.recipe.domains]
            longest = max(talk.total for talk in talks)
            cached = max(cached, self._cached_rows(rows, longest))
        return cached

    def _cached_rows(self, rows: int, longest: float) -> float:
        """Caches of `rows` conversations of `longest` tokens, of those that are decoded at once."""
        scale = self.recipe.scale
        each = self.shape.state_bytes(longest)
        on_gpu = scale.device == "cuda"
        memory = self.device.memory if on_gpu else machine_bytes()
        fit = max(1.0, scale.cache_bytes(memory, on_gpu) // each)
        return min(rows, scale.capacity, fit) * each

    def _longest(self, config: RolloutConfig) -> float:
        """Tokens of a stage's longest conversation."""
        limits = (config.max_tokens, config.max_turns, config.max_sequence)
        talks = [self._talk(name, *limits, most=True) for name in self.recipe.weights_of(config)]
        return max(talk.total for talk in talks)

    def _sft(self, config: SftConfig, most: bool) -> Amount:
        width = self.recipe.scale.width if config.packed else config.max_length
        share = 1.0 if config.packed or most else self.assumed.mean_length
        tokens = config.steps * config.batch * width * share

        if most:
            sequence: float = min(width, config.max_length)
        else:
            sequence = min(self.assumed.sequence, width * share)

        # Over a sequence of n tokens, the tokens look at n/2 earlier ones on average.
        flops = 3 * self.shape.forward_flops(tokens, tokens * sequence / 2)

        return Amount(
            trained=tokens,
            training_flops=flops,
            device_s=flops / (self.device.flops * self.assumed.training),
        )

    def _rollouts(self, config: RolloutConfig, most: bool) -> Amount:
        rounds = self._rounds(config, most)
        # A second model scores every sample: the teacher of MOPD, or the reference of RLHF's KL.
        scored = isinstance(config, DistillConfig) or _has_reference(config)
        amount = Amount()

        for name, weight in self.recipe.weights_of(config).items():
            talk = self._talk(name, config.max_tokens, config.max_turns, config.max_sequence, most)
            used = config.steps * config.prompts * config.rollouts * weight
            groups = config.steps * config.prompts * rounds * weight
            rollouts = groups * config.rollouts
            amount += self._sampling(name, talk, groups, rollouts)
            asked = isinstance(config, RlConfig)
            amount += self._verdicts(name, rollouts, config.rollouts, asked)
            # Groups that filtering dropped were sampled and graded, but are not trained.
            tokens = used * talk.total
            forward = self.shape.forward_flops(tokens, used * talk.total**2 / 2)
            amount += Amount(
                trained=tokens,
                training_flops=3 * forward,
                device_s=3 * forward / (self.device.flops * self.assumed.training),
            )

            if scored:
                seconds = forward / (self.device.flops * self.assumed.scoring)
                amount += Amount(
                    scored=tokens,
                    scoring_flops=forward,
                    device_s=seconds,
                )

        return amount

    def _rounds(self, config: RolloutConfig, most: bool) -> float:
        """How many times the prompts of its batches a stage samples, refills included."""
        if not isinstance(config, RlConfig) or not config.dynamic_filter:
            return 1.0
        return float(config.refill) if most else min(config.refill, 1 / self.assumed.kept)

    def _talk(
        self,
        name: str,
        max_tokens: int,
        max_turns: int | None,
        max_sequence: int | None,
        most: bool,
    ) -> _Talk:
        """A conversation of a domain: as long as its limits allow, or the assumed share of that."""
        prompt = float(self._prompt(name, most))
        turns = self.domains[name].max_turns
        if turns > 1 and max_turns:
            turns = max_turns
        longest = float(max_tokens * turns)
        if max_sequence is not None:
            # A prompt of the assumed length may not fit: at most half of a conversation is prompt.
            prompt = min(prompt, max_sequence / 2)
            longest = min(longest, max_sequence - prompt)

        length = longest if most else longest * self.assumed.mean_length
        sampled = length if turns == 1 or most else length * self.assumed.sampled

        return _Talk(prompt, length, sampled)

    def _prompt(self, name: str, most: bool) -> int:
        """Tokens of a domain's prompt: of its rows where they are at hand."""
        if lengths := self.prompts.get(name):
            return lengths.long if most else lengths.median
        return self.costs[name].prompt

    def _sampling(
        self,
        name: str,
        talk: _Talk,
        groups: float,
        rollouts: float,
    ) -> Amount:
        """Prompts are read once per group, environment turns once per rollout.

        Every sampled token is one row of a decoding step.
        """
        shape, device, assumed = self.shape, self.device, self.assumed
        read = shape.forward_flops(groups * talk.prompt, groups * talk.prompt**2 / 2)
        environment = talk.length - talk.sampled
        share = environment / talk.length if talk.length else 0.0
        read += rollouts * shape.forward_flops(environment, talk.attended * share)
        decoded = rollouts * shape.forward_flops(talk.sampled, talk.attended * (1 - share))
        # A decoding step moves the weights once for all its rows, and each row's own cache.
        rows = self.recipe.scale.capacity
        weights = 2 * shape.weights_read(rows) / rows
        cache = shape.cache_bytes(talk.prompt + talk.length / 2)
        written_states = 4 * shape.scan
        moved = weights + cache + written_states
        moving_s = rollouts * talk.sampled * moved / (device.bandwidth * assumed.decoding)
        computing_s = decoded / (device.flops * assumed.scoring)
        reading_s = read / (device.flops * assumed.scoring)

        return Amount(
            groups=groups,
            rollouts=rollouts,
            sampled=rollouts * talk.sampled,
            sampling_flops=read + decoded,
            device_s=max(moving_s, computing_s) + reading_s,
        )

    def _verdicts(
        self,
        name: str,
        rollouts: float,
        siblings: int,
        asked: bool = True,
    ) -> Amount:
        """Verifier and judge.

        Each rollout is verified. A judge is asked what the domain asks about so many siblings,
        if `asked`.
        """
        cost = self.costs[name]
        calls = rollouts / siblings * self.domains[name].question_count(siblings) if asked else 0.0
        answers = 2 if cost.pairs else 1
        read = self._prompt(name, most=False) + cost.answer * answers

        return Amount(
            core_s=rollouts * cost.core_s,
            judge_calls=calls,
            judge_tokens=calls * (read + self.assumed.judged),
        )


def _cost_of(name: str, config: DomainConfig) -> DomainCost:
    return DOMAINS.get(name, DomainCost()) if config.rows else GENERATED


def _has_reference(config: RolloutConfig) -> bool:
    return isinstance(config, RlConfig) and config.kl > 0
