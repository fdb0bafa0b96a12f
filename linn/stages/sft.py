"""Supervised fine-tuning: demonstrations or rows -> samples -> one AdamW step each (paper §2).

Loss on assistant tokens only: thought, answer, calls and the end-of-turn mark; thinking and
non-thinking rows alike.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from linn.chat.codec import Codec
from linn.chat.template import Spans
from linn.data.conversations import Conversation, conversation
from linn.data.names import located
from linn.data.rows import BadRow, object_of, shuffled
from linn.data.tally import Tally
from linn.errors import UserError
from linn.recipe.stages import SftConfig
from linn.stages.prompts import Position
from linn.stages.stage_run import StageRun
from linn.types import Loss, Prompt, Sample, seed_of

LONG_PER_SEQUENCE = 1000
"""Sequences over max_length, per sequence of a batch, after which a stage gives up."""


def sft(stage: StageRun) -> None:
    """The whole stage, from where it stands."""
    config = stage.config
    assert isinstance(config, SftConfig)
    loss = Loss("sft", length_power=config.length_power)

    # Neither feed reads anything before the first batch, when the position is restored.
    if config.files:
        feed = samples_of_files(config, stage.codec, stage.seed, stage.position)
    else:
        feed = samples_of_demonstrations(stage, config)
    batches = Batches(config, stage.engine.width, feed, stage.position)

    first_step = stage.resume()
    for step in range(first_step, config.steps):
        before = stage.costs()
        samples, batch_metrics = batches.next()
        metrics = stage.train(step, samples, loss) | batch_metrics
        stage.record(step, metrics, before)
        stage.save_if_due(step)
    stage.finish()


# ---------------------------------------------------------------- batches


class Batches:
    """Sequences into batches.

    A batch is `batch` sequences, or (`packed`) `batch` rows of the engine's width filled first-fit.
    """

    def __init__(
        self, config: SftConfig, width: int, feed: Iterator[Sample], position: Position
    ) -> None:
        """`width`: tokens of a packed row. `position` is moved by `feed`."""
        self.config = config
        self.width = width
        self.feed = feed
        self.position = position
        self._leftover: tuple[Sample, dict[str, Any]] | None = None
        """The sequence that no longer fitted into the last batch, and the position after it."""

    def next(self) -> tuple[list[Sample], dict[str, float]]:
        """The next batch and its metrics.

        A sequence that does not fit begins the next batch, and counts as taken only there.
        """
        config = self.config
        samples: list[Sample] = []
        skipped = 0
        rooms = [self.width] * config.batch if config.packed else []
        while config.packed or len(samples) < config.batch:
            before = self.position.record()
            sample = self._draw()
            length = len(sample.tokens)
            if length > config.max_length:
                skipped += 1
                self._check_skipped(skipped)
                continue

            if config.packed:
                row = _first_with_room(rooms, length)
                if row is None:
                    # To a state saved after this batch, the sequence was never read.
                    self._leftover = (sample, self.position.record())
                    self.position.restore(before)
                    break
                rooms[row] -= length
            samples.append(sample)

        metrics = {"skipped_long": float(skipped)}
        if config.packed:
            metrics["row_fill"] = 1.0 - sum(rooms) / (config.batch * self.width)
        return samples, metrics

    def _draw(self) -> Sample:
        if self._leftover is None:
            return next(self.feed)
        sample, after = self._leftover
        self._leftover = None
        self.position.restore(after)
        return sample

    def _check_skipped(self, skipped: int) -> None:
        """Refuse to look for a sequence that fits for ever."""
        if skipped > LONG_PER_SEQUENCE * self.config.batch:
            raise UserError(
                f"stage {self.config.name}: {skipped} sequences in a row over max_length "
                f"{self.config.max_length}; raise it"
            )


def _first_with_room(rooms: list[int], length: int) -> int | None:
    for row, room in enumerate(rooms):
        if room >= length:
            return row
    return None


# ---------------------------------------------------------------- demonstrations of the domains


def samples_of_demonstrations(stage: StageRun, config: SftConfig) -> Iterator[Sample]:
    """Demonstrations of the stage's domains, for ever."""
    while True:
        (prompt,) = stage.prompts.take(1)
        yield demonstration(stage, config, prompt)


def demonstration(stage: StageRun, config: SftConfig, prompt: Prompt) -> Sample:
    """One demonstration of a domain, as a sample.

    A `faulty` share of them carries the domain's systematic fault.
    """
    # A prompt's demonstration is the same whenever the stage comes to it.
    rng = random.Random(seed_of(stage.seed, "demonstration", prompt.id))
    faulty = rng.random() < config.faulty_share(prompt.domain)
    turns = stage.domains[prompt.domain].demonstrate(prompt, rng, faulty)
    messages = (*prompt.messages, *turns)
    spans = stage.codec.template.spans(messages, prompt.tools, prompt.thinking, keep_thinking=True)
    return sample_of_spans(stage.codec, spans, prompt.domain, prompt.id)


def sample_of_spans(
    codec: Codec,
    spans: Spans,
    domain: str,
    source: str,
    most: int | None = None,
) -> Sample:
    """Spans of text, trained or not, as one sample of weight 1.

    A sample of more than `most` tokens may be cut, but to more than `most`.
    """
    ids, mask = codec.encode_spans(spans, most)
    weights = [1.0 if trained else 0.0 for trained in mask]
    return Sample(ids, mask, weights, domain=domain, source=source)


# ---------------------------------------------------------------- files of `messages` rows


def samples_of_files(
    config: SftConfig, codec: Codec, seed: int, position: Position
) -> Iterator[Sample]:
    """Samples of the stage's files, for ever, from `position` on, which moves along.

    The files are mixed, so that every batch holds their lines in the weights' proportions.
    """
    weights = config.files
    keys = {name: f"rows {name}" for name in weights}
    if len(weights) == 1:
        keys = dict.fromkeys(weights, "rows")
    feeds = {
        name: _samples_of_file(config, codec, seed, position, name, key)
        for name, key in keys.items()
    }
    while True:
        # The file furthest behind its share of all lines, the next one included.
        taken = {name: position.taken.get(key, 0) for name, key in keys.items()}
        total = sum(taken.values()) + 1
        behind = {name: weights[name] * total - taken[name] for name in weights}
        name = max(behind, key=behind.__getitem__)
        yield next(feeds[name])


def _samples_of_file(
    config: SftConfig, codec: Codec, seed: int, position: Position, name: str, key: str
) -> Iterator[Sample]:
    """Samples of one file, epoch after epoch, each in another order; `key`: its count's name.

    The lines that the stage has taken are passed over unread, so a resumed stage stands where it
    stood as fast as the file can be read.
    """
    # Only a fresh generator skips: what it takes later it counts itself.
    path = located(name)
    skip = position.taken.get(key, 0)
    for epoch in itertools.count():
        fruitless = True
        for line, raw in shuffled(path, seed_of(seed, key, epoch)):
            if skip > 0:
                skip -= 1
                fruitless = False
                continue

            # Rows are counted in the first epoch alone: later ones read the same rows again.
            tally = position.tally if epoch == 0 else None
            position.taken[key] = position.taken.get(key, 0) + 1
            row = _conversation_of(raw, f"{path} line {line}", config, path, tally)
            if row is None:
                continue
            fruitless = False
            for spans in codec.template.samples(row.messages, row.tools, row.thinking):
                yield sample_of_spans(codec, spans, row.domain, str(line), config.max_length)

        if fruitless:
            raise UserError(
                f"stage {config.name}: data: {path} holds no rows to train on: {position.tally}"
            )


def _conversation_of(
    raw: bytes, where: str, config: SftConfig, path: Path, tally: Tally | None
) -> Conversation | None:
    """A line as a conversation, counted in `tally`; None for a bad one that is skipped."""
    try:
        row = conversation(object_of(raw))
    except BadRow as error:
        message = f"{where}: {error}"
        if not config.skip_bad:
            raise UserError(
                f"{message}; --set {config.name}.skip_bad=true counts and skips such rows; "
                f"linn data {path} shows them all"
            ) from None
        if tally is not None:
            tally.add_bad(error.reason, message)
        return None
    if tally is not None:
        tally.good += 1
    return row
