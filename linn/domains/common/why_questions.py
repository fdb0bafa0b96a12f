"""Why-questions on sixty topics, and a program that judges answers to them.

Shared by `preference` and `genrm`.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from linn.judges.pairwise import Comparison
from linn.types import Message, Prompt

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


@dataclass(frozen=True)
class WhyFact:
    """What is true of a generated question's topic; the prompt's `hidden`."""

    topic: str
    """A sentence that the question asks about, e.g. `birds sing`."""
    reason: str
    """Why it is so, without `because`."""
    example: str
    """A place where it can be seen."""


_TOPICS = [WhyFact(*line.split("|")) for line in _FACTS.splitlines()]
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
RAMBLE = "that is a good thing to ask."
"""A filler that answers nothing."""
_BRIEF = 100
"""Characters: a longer answer is not brief (generated prompts)."""
_SHOWN = 4_000
"""The program judge reads this many characters of an answer; a longer one is not brief anyway."""


class ProgramJudge:
    """A judge whose preference is written down, so that a small model's gain can be checked by eye.

    It likes an answer that (1) names the topic, (2) gives the reason after `because`, (3) gives
    the example after `for example`, and (4) is brief: says no sentence twice and stays under a
    limit. Reason and example must be the true ones. Score: 1, and one more for each; an answer off
    the topic gets 1, and brevity counts only beside a reason or an example. Ranking: 3.5 less half
    the difference of the scores, times 5/4 (1 = the first is far better … 6); between equal scores
    the shorter answer is slightly better.
    """

    def score(self, prompt: Prompt, answer: str) -> int:
        """1 to 5."""
        text = _plain(answer[:_SHOWN])
        fact = why_fact(prompt)
        named = _has(text, fact.topic)
        reason = _has(text, f"because {fact.reason}")
        example = _has(text, f"for example {fact.example}")
        if not named:  # off the topic: nothing else counts
            return 1

        score = 2 + reason + example
        brief = len(answer.strip()) <= _BRIEF and not _repeats(answer)
        if brief and (reason or example):  # brevity alone is no merit
            score += 1
        return score

    def compare(self, prompt: Prompt, first: str, second: str) -> Comparison:
        """Mirrored when the two change places."""
        # 0.625 maps differences of 1 to 4 onto rankings from 2.875 to 1, evenly.
        score_1 = self.score(prompt, first)
        score_2 = self.score(prompt, second)
        length_1, length_2 = len(first.strip()), len(second.strip())
        if score_1 != score_2:
            ranking = 3.5 - (score_1 - score_2) * 0.625
        elif length_1 == length_2:
            ranking = 3.5
        elif length_1 < length_2:
            ranking = 3.0
        else:
            ranking = 4.0
        return Comparison(score_1, score_2, ranking)


def why_fact(prompt: Prompt) -> WhyFact:
    """What is true of a generated question's topic."""
    assert isinstance(prompt.hidden, WhyFact), prompt.hidden
    return prompt.hidden


def why_prompt(domain: str, rng: random.Random) -> Prompt:
    """A topic, a way of asking and a wish."""
    fact = rng.choice(_TOPICS)
    opening = rng.choice(_OPENINGS).format(fact.topic)
    text = f"{opening} {rng.choice(_WISHES)}".strip()
    return Prompt(domain, "", (Message("user", text),), hidden=fact)


def full_answer(fact: WhyFact) -> str:
    """The fact with its reason and its example: what the program judge likes best."""
    return f"{fact.topic} because {fact.reason}. for example {fact.example}."


def _plain(text: str) -> str:
    """Lower case, words apart by one space, marks gone."""
    return " ".join(re.findall(r"[\w']+", text.lower()))


def _has(text: str, phrase: str) -> bool:
    return f" {phrase} " in f" {text} "


def _repeats(answer: str) -> bool:
    # Marks and case aside: the same words again are a repetition.
    sentences = [_plain(sentence) for sentence in re.split(r"[.!?\n]+", answer[:_SHOWN])]
    filled = [sentence for sentence in sentences if sentence]
    return len(set(filled)) < len(filled)
