"""RLHF: siblings are compared pair by pair by a judge, with group-relative length control (paper §4.4)."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from linn.data.request import request_messages
from linn.domains.base import Domain, Question
from linn.errors import UserError
from linn.play.judge import (
    UNREADABLE,
    Comparison,
    Order,
    Pairs,
    Shaping,
    base_rewards,
    genrm_question,
    group_rewards,
    judge_question,
    pairs_of,
    read_comparison,
    read_score,
    score_question,
    shown,
)
from linn.types import Message, Prompt, Reply, Verdict

# topic | reason | example
_FACTS = """
birds sing|they call friends|a robin at dawn
cats purr|they feel safe|a cat on a lap
dogs bark|they guard the home|a dog at the gate
bees dance|they share good news|a bee near roses
fish swim|they look for food|a trout in a river
frogs jump|they flee from danger|a frog by the pond
bears sleep|they save their food|a bear in winter
ducks float|they have light bones|a duck on a lake
owls hunt|they see well at night|an owl in the barn
ants march|they follow a smell|an ant on a wall
cows chew|they eat tough grass|a cow in a field
sheep grow wool|they need warm coats|a lamb in spring
wolves howl|they call the pack|a wolf on a hill
snakes hiss|they warn others|a snake in the sand
lions roar|they mark their land|a lion at night
horses run|they fear wolves|a horse on a plain
mice hide|they fear cats|a mouse in a wall
spiders spin|they trap flies|a web in the shed
whales dive|they chase squid|a whale in the deep
bats hang|they rest their wings|a bat in a cave
leaves fall|they lack light|an oak in autumn
flowers smell|they invite bees|a rose in june
trees grow tall|they seek the sun|a pine in a wood
seeds sleep|they wait for rain|a bean in dry soil
roots dig|they look for water|a fig in the sand
apples turn red|they are ripe|an apple in fall
grapes taste sweet|they hold sugar|a grape in the sun
onions sting|they let out acid|an onion on a board
corn pops|its water turns to steam|a pot on the fire
bread rises|the yeast makes gas|dough in a bowl
milk turns sour|small germs eat it|milk in the sun
honey keeps|it holds little water|a jar in a tomb
ice floats|it is light|a cube in a glass
ice melts|it takes in heat|snow in april
water boils|it gets very hot|a pot on the stove
rain falls|clouds grow heavy|a storm in may
snow is white|it throws back light|a hill in winter
wind blows|warm air goes up|a breeze by the sea
waves roll|the wind pushes them|a bay in a storm
tides turn|the moon pulls them|a beach at noon
rivers bend|the banks wear away|a creek in clay
stars shine|they burn gas|the sun by day
the sky is blue|air scatters light|the sky at noon
the moon glows|it mirrors the sun|a full moon in may
shadows grow|the sun sinks low|a tree at dusk
thunder booms|the air gets hot fast|a flash in july
iron rusts|air eats it|a nail in the rain
wood burns|it feeds on air|a log in a stove
glass breaks|it cannot bend|a cup on a stone
salt melts ice|it stops the freezing|a road in winter
magnets pull|their poles line up|a pin on the door
wheels turn|they cut the drag|a cart on a road
boats float|they push water aside|a ship at sea
kites fly|the wind lifts them|a kite on a hill
balls bounce|they spring back|a ball on a floor
bells ring|the metal shakes|a bell in a tower
clocks tick|a small wheel stops|a clock on a shelf
lamps glow|the wire gets hot|a bulb in a hall
people yawn|they are tired|a child at night
people laugh|they feel joy|a friend at a party
""".strip()
_TOPICS = [tuple(line.split("|")) for line in _FACTS.splitlines()]
_OPENINGS = (
    "why is it that {}?",
    "tell me why {}.",
    "explain why {}.",
    "please say why {}.",
    "i wonder why {}.",
    "do you know why {}?",
    "can you tell me why {}?",
    "my son asks why {}.",
    "my friend asks why {}.",
    "what is the reason that {}?",
    "help me see why {}.",
    "how come {}?",
)
_WISHES = (
    "",
    "it is for a child.",
    "it is for a letter.",
    "it is for a friend.",
    "it is for school.",
    "it is for my class.",
    "it is for a book.",
    "it is for a talk.",
    "it is for a game.",
    "be kind.",
    "be clear.",
    "be brief.",
)
_THOUGHT = "reason, example."
_RAMBLE = "that is a good thing to ask."
_BRIEF = 100
"""Characters: a longer answer is not brief (generated prompts)."""
_BRIEF_ROW = 2_000
"""The same for the free questions of released rows."""
_SHOWN = 4_000
"""The program judge reads this many characters of an answer; a longer one is not brief anyway."""


class ProgramJudge:
    """A judge whose preference is written down, so that a small model's gain can be checked by eye.

    It likes an answer that (1) names the topic, (2) gives the reason after `because`, (3) gives the example after `for example`, and
    (4) is brief: says no sentence twice and stays under a limit. Score: 1 and one more for each; an answer off the topic gets 1, and
    brevity counts only beside a reason or an example. Generated prompts: the reason and the example must be the true ones.
    Ranking: 3.5 less half the difference of the scores, times 5/4 (1 = far better … 6); between equal scores the shorter gets 3.
    """

    def score(self, prompt: Prompt, answer: str) -> int:
        """1 to 5."""
        text, hidden = _plain(answer[:_SHOWN]), prompt.hidden
        if "topic" in hidden:
            named = _has(text, hidden["topic"])
            reason = _has(text, f"because {hidden['reason']}")
            example = _has(text, f"for example {hidden['example']}")
            brief = len(answer.strip()) <= _BRIEF
        else:
            asked = {w for w in re.findall(r"\w{4,}", prompt.messages[-1].content[:_SHOWN].lower())}
            named = bool(asked & set(re.findall(r"\w{4,}", text)))
            reason = re.search(r"\b(because|since|so that)\b(?: \w+){2}", text) is not None
            example = re.search(r"\b(for example|for instance|such as)\b(?: \w+){2}", text) is not None
            brief = len(answer.strip()) <= _BRIEF_ROW
        if not named:
            return 1
        brief = brief and not _repeats(answer) and (reason or example)
        return 2 + reason + example + brief

    def compare(self, prompt: Prompt, first: str, second: str) -> Comparison:
        """Mirrored when the two change places."""
        one, two = self.score(prompt, first), self.score(prompt, second)
        if one != two:
            return Comparison(one, two, 3.5 - (one - two) * 0.625)
        lengths = len(first.strip()), len(second.strip())
        return Comparison(one, two, 3.5 if lengths[0] == lengths[1] else 3.0 if lengths[0] < lengths[1] else 4.0)


class Preference(Domain):
    """Why-questions on sixty topics. `judge` rewards a group by pairwise comparison; `verify` grades one answer alone, for evaluation."""

    name: ClassVar[str] = "preference"

    def __init__(
        self,
        level: str = "tiny",
        rows: str | Path | None = None,
        pairs: Pairs = "all",
        order: Order = "random",
        shaping: Shaping | None = None,
        layout: Literal["plain", "genrm"] = "plain",
        principle: str = "",
        judged: bool = False,
    ) -> None:
        """`pairs`: all or circular; `order`: random, both or given; `judged`: by a model instead of the program.

        `layout`: `plain` asks a general model in words, `genrm` shows a generative reward model turns of the roles `response_1` and
        `response_2`. `principle`: what alone counts, where a row names none of its own.
        """
        super().__init__(level, rows)
        self.judged = judged
        pairs_of(2, pairs, order)  # a wrong word is the user's mistake now, not in the first step
        if layout not in ("plain", "genrm"):
            raise UserError(f"domain preference: layout is {layout!r}; allowed: plain, genrm")
        self.pairs, self.order, self.shaping, self.layout, self.principle = pairs, order, shaping or Shaping(), layout, principle
        self._program = ProgramJudge()

    def make(self, rng: random.Random) -> Prompt:
        """A topic, a way of asking and a wish."""
        topic, reason, example = rng.choice(_TOPICS)
        text = f"{rng.choice(_OPENINGS).format(topic)} {rng.choice(_WISHES)}".strip()
        return Prompt(self.name, "", (Message("user", text),), hidden={"topic": topic, "reason": reason, "example": example})

    def questions(self, prompt: Prompt, replies: Sequence[Reply]) -> Sequence[Question]:
        """A group: one comparison a pair. A reply alone: against the row's reference, both ways; else its score (`plain` only)."""
        texts = [shown(r.text) for r in replies]
        if not self.judged or not any(texts):
            return ()
        if len(texts) > 1:
            return [self._comparison(prompt, texts[i], texts[j]) for i, j in self._pairs(prompt, len(texts))]
        if reference := shown(prompt.hidden.get("reference", "")):
            return [self._comparison(prompt, texts[0], reference), self._comparison(prompt, reference, texts[0])]
        if self.layout == "genrm":
            return ()
        return [Question(score_question(prompt.messages, texts[0], self._principle(prompt)), lambda text: read_score(text) is not None)]

    def judge(self, prompt: Prompt, replies: Sequence[Reply], answers: Sequence[str] = ()) -> list[Verdict] | None:
        """Rewards R_i of a group (paper §4.4); may leave [0, 1]. The judge sees the answers, the length terms also the thoughts.

        A reply alone that a model judges: (score - 1) / 4, or the share of comparisons won against the reference (a tie counts half).
        """
        if self.judged and len(replies) == 1:
            return self._alone(prompt, replies[0], answers)
        compared = self._pairs(prompt, len(replies))
        if self.judged:
            said = [read_comparison(text) or UNREADABLE for text in answers] or [UNREADABLE] * len(compared)
        else:
            said = [self._program.compare(prompt, replies[i].text, replies[j].text) for i, j in compared]
        base = base_rewards(len(replies), compared, said)
        texts, thoughts = [r.text for r in replies], [r.reasoning for r in replies]
        rewards = group_rewards(base, thoughts, texts, self.shaping)
        verdicts = []
        for reward, of_judge, text, thought in zip(rewards, base, texts, thoughts, strict=True):
            lengths = {"answer_chars": float(len(text.strip())), "think_chars": float(len(thought.strip()))}
            note = f"judge {of_judge:.2f}, length terms and bonuses {reward - of_judge:+.2f}"
            verdicts.append(Verdict(reward, note, {"judge_score": of_judge, **lengths}))
        return verdicts

    def _alone(self, prompt: Prompt, reply: Reply, answers: Sequence[str]) -> list[Verdict] | None:
        if not reply.text.strip():
            return [Verdict(0.0, "no answer")]
        if not answers:
            return None
        if not prompt.hidden.get("reference", "").strip():
            score = read_score(answers[0]) or 3.0
            return [Verdict((score - 1) / 4, f"score {score:g} of 5")]
        first, second = (_share_won(read_comparison(text) or UNREADABLE) for text in answers)
        return [Verdict((first + 1 - second) / 2, f"won {first:g} shown first and {1 - second:g} shown second, against the reference")]

    def _comparison(self, prompt: Prompt, first: str, second: str) -> Question:
        ask = genrm_question if self.layout == "genrm" else judge_question
        messages = ask(prompt.messages, first, second, self._principle(prompt))
        return Question(messages, lambda text: read_comparison(text) is not None)

    def _pairs(self, prompt: Prompt, count: int) -> list[tuple[int, int]]:
        return pairs_of(count, self.pairs, self.order, prompt.id)

    def _principle(self, prompt: Prompt) -> str:
        return str(prompt.hidden.get("principle", self.principle))

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """Absolute quality by the program judge, in [0, 1]: (score - 1) / 4."""
        score = self._program.score(prompt, reply.text)
        return Verdict((score - 1) / 4, f"score {score} of 5")

    def gold(self, prompt: Prompt) -> Reply:
        """The fact with its reason and its example; for a released row, an answer that has every part the program judge looks for."""
        if "topic" in prompt.hidden:
            return Reply(_answer(prompt), _THOUGHT)
        word = max(re.findall(r"\w{4,}", prompt.messages[-1].content[:_SHOWN].lower()), key=len, default="")
        return Reply(f"{word} because it is so. for example {word} as asked.")

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The fault: no example, and a filler said twice in its place."""
        answer = f"{_answer(prompt).partition(' for example')[0]} {_RAMBLE} {_RAMBLE}" if faulty else _answer(prompt)
        return (Message("assistant", answer, reasoning=_THOUGHT),)

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """`responses_create_params.input`; the judge decides. Optional: `reference` (an answer to compare with) and `principle`."""
        hidden = {}
        for key in ("reference", "principle"):
            if (value := row.get(key)) is not None:
                if not isinstance(value, str):
                    raise UserError(f"row {index}: {key} is {type(value).__name__}; allowed: text")
                hidden[key] = value
        return Prompt(self.name, str(row.get("id", row.get("uuid", index))), request_messages(row, index), hidden=hidden)


def _share_won(said: Comparison) -> float:
    """1 where the first is better, 0 where the second is, 0.5 for a tie in scores and ranking."""
    first, second = base_rewards(2, [(0, 1)], [said])
    return 0.5 if first == second else float(first > second)


def _answer(prompt: Prompt) -> str:
    return "{topic} because {reason}. for example {example}.".format(**prompt.hidden)


def _plain(text: str) -> str:
    """Lower case, words apart by one space, marks gone."""
    return " ".join(re.findall(r"[\w']+", text.lower()))


def _has(text: str, phrase: str) -> bool:
    return f" {phrase} " in f" {text} "


def _repeats(answer: str) -> bool:
    sentences = [_plain(s) for s in re.split(r"[.!?\n]+", answer[:_SHOWN])]
    filled = [s for s in sentences if s]
    return len(set(filled)) < len(filled)
