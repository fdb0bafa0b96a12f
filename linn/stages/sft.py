"""Supervised fine-tuning: demonstrations or rows -> packed samples -> one AdamW step each (paper §2).

Loss on assistant tokens only: thought, answer, calls and the end-of-turn mark; thinking and non-thinking rows alike.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

from linn.chat import render as chat
from linn.chat.codec import Codec
from linn.data.conversations import conversation
from linn.data.names import located
from linn.data.rows import BadRow, object_of, shuffled
from linn.errors import UserError
from linn.recipe.schema import SftConfig
from linn.stages.stage_run import StageRun
from linn.types import Loss, Prompt, Sample, seed_of


def sft(run: StageRun) -> None:
    """The whole stage, from where it stands."""
    keys = run.keys
    assert isinstance(keys, SftConfig)
    loss = Loss("sft", length_power=keys.length_power)
    feed = _rows(run, keys) if keys.files else _demonstrations(run, keys)
    batches = Batches(run, keys, feed)
    for step in run.steps():
        began = run.clock()
        samples, figures = batches.next()
        run.train(step, samples, loss, figures, began)


_Place = tuple[dict[str, int], dict[str, Any]]


class Batches:
    """Sequences into batches: so many sequences, or (`packed`) so many rows of the engine's width filled first-fit."""

    def __init__(self, run: StageRun, keys: SftConfig, feed: Iterator[Sample]) -> None:
        self.run, self.keys, self.feed = run, keys, feed
        self._held: tuple[Sample, _Place] | None = None
        """The sequence that no longer fitted into the last batch, and where the stage stands once it is used."""

    def next(self) -> tuple[list[Sample], dict[str, float]]:
        """The next batch and its figures. A sequence that does not fit begins the next batch, and counts as taken only there."""
        keys, samples, skipped = self.keys, list[Sample](), 0
        rooms = [self.run.engine.width] * keys.batch if keys.packed else []
        while keys.packed or len(samples) < keys.batch:
            before = self._place
            sample = self._draw()
            length = len(sample.tokens)
            if length > keys.max_length:
                skipped += 1
                if skipped > 1000 * keys.batch:
                    raise UserError(
                        f"stage {keys.name}: {skipped} sequences in a row over max_length {keys.max_length}; raise it"
                    )
                continue
            if keys.packed:
                row = next((r for r, room in enumerate(rooms) if room >= length), None)
                if row is None:
                    self._held = (sample, self._place)
                    self._place = before
                    break
                rooms[row] -= length
            samples.append(sample)
        figures = {"skipped_long": float(skipped)}
        if keys.packed:
            figures["row_fill"] = 1.0 - sum(rooms) / (keys.batch * self.run.engine.width)
        return samples, figures

    def _draw(self) -> Sample:
        if self._held is None:
            return next(self.feed)
        (sample, self._place), self._held = self._held, None
        return sample

    @property
    def _place(self) -> _Place:
        """What a saved state holds of where the stage stands in its data."""
        return dict(self.run.taken), self.run.tally.record()

    @_place.setter
    def _place(self, place: _Place) -> None:
        self.run.taken = dict(place[0])
        self.run.tally.restore(place[1])


def _demonstrations(run: StageRun, keys: SftConfig) -> Iterator[Sample]:
    while True:
        yield demonstration(run, keys, run.next_prompts(1)[0])


def demonstration(run: StageRun, keys: SftConfig, prompt: Prompt) -> Sample:
    """One demonstration of a domain, as a sample; `faulty_share` of them carry the domain's systematic fault."""
    rng = random.Random(seed_of(run.seed, "demonstration", prompt.id))
    faulty = rng.random() < keys.faulty_share(prompt.domain)
    turns = run.domains[prompt.domain].demonstrate(prompt, rng, faulty)
    spans = chat.spans((*prompt.messages, *turns), prompt.tools, prompt.thinking, True)
    return sample_of_spans(run.codec, spans, prompt.domain, prompt.id)


def sample_of_spans(
    codec: Codec,
    spans: list[tuple[str, bool]],
    domain: str,
    source: str,
    most: int | None = None,
) -> Sample:
    """Spans of text, trained or not, as one sample of weight 1; one of more than `most` tokens may be cut, but to more than `most`."""
    ids, mask = codec.encode_spans(spans, most)
    return Sample(ids, mask, [1.0 if m else 0.0 for m in mask], domain=domain, source=source)


def _rows(run: StageRun, keys: SftConfig) -> Iterator[Sample]:
    """Samples of the stage's files, mixed so that every batch holds their lines in the weights' proportions."""
    weights = keys.files
    places = {name: "rows" if len(weights) == 1 else f"rows {name}" for name in weights}
    feeds = {name: _file(run, keys, name, place) for name, place in places.items()}
    while True:
        total = sum(run.taken.get(place, 0) for place in places.values()) + 1
        name = max(weights, key=lambda n: weights[n] * total - run.taken.get(places[n], 0))
        yield next(feeds[name])


def _file(run: StageRun, keys: SftConfig, name: str, place: str) -> Iterator[Sample]:
    """Samples of a file of `messages` rows, epoch after epoch, each in another order, from where the stage stands: `run.taken[place]`.

    The lines that the stage has taken are passed over unread, so a resumed stage stands where it stood as fast as the file can be read.
    """
    path, skip = located(name), run.taken.get(place, 0)
    for epoch in itertools.count():
        fruitless = True
        for line, raw in shuffled(path, seed_of(run.seed, place, epoch)):
            if skip > 0:
                skip, fruitless = skip - 1, False
                continue
            run.taken[place] = run.taken.get(place, 0) + 1
            try:
                row = conversation(object_of(raw))
            except BadRow as error:
                told = f"{path} line {line}: {error}"
                if not keys.skip_bad:
                    remedy = f"--set {keys.name}.skip_bad=true counts and skips such rows; linn data {path} shows them all"
                    raise UserError(f"{told}; {remedy}") from None
                if epoch == 0:
                    run.tally.add_bad(error.reason, told)
                continue
            fruitless = False
            run.tally.good += epoch == 0
            spans = chat.spans(row.messages, row.tools, row.thinking, False)
            yield sample_of_spans(run.codec, spans, row.domain, str(line), keys.max_length)
        if fruitless:
            raise UserError(
                f"stage {keys.name}: data: {path} holds no rows to train on: {run.tally}"
            )
