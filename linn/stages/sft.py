"""Supervised fine-tuning: demonstrations or rows -> samples -> one AdamW step each (paper §2).

Loss on assistant tokens only: thought, answer, calls and the end-of-turn mark; thinking and
non-thinking rows alike.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linn.chat.codec import Codec
from linn.chat.template import Spans
from linn.data.conversations import Conversation, conversation
from linn.data.names import located
from linn.data.rows import BadRow, object_of, shuffled
from linn.data.tally import Tally
from linn.domains.base import Domain
from linn.errors import UserError
from linn.recipe.stages import SftConfig
from linn.stages.lengths import Lengths
from linn.stages.prompts import Position
from linn.stages.stage_run import StageRun
from linn.types import Loss, Message, Prompt, Sample, seed_of

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
        long_before = stage.position.lengths.long
        samples, batch_metrics = batches.next()
        metrics = stage.train(step, samples, loss) | batch_metrics
        stage.record(step, metrics, before)
        # The first loss at once, and what it came to at the end.
        last = step == config.steps - 1
        if stage.position.lengths.long and (last or not long_before):
            stage.progress.say(_long_in_words(config, stage.position.lengths))
        stage.keep_if_due(step)
        stage.save_if_due(step)
    stage.finish()


def _long_in_words(config: SftConfig, lengths: Lengths) -> str:
    share = lengths.long / lengths.count
    return (
        f"{config.name}: {lengths.long:,} of {lengths.count:,} sequences ({share:.1%}) are longer "
        f"than max_length {config.max_length:,} and are not trained; "
        f"max_length {lengths.holding(0.95):,} holds 95 % of them"
    )


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
        long_before = self.position.lengths.long
        skipped_before = sum(self.position.skipped.values())
        rooms = [self.width] * config.batch if config.packed else []
        while config.packed or len(samples) < config.batch:
            before = self.position.record()
            sample = self._draw()

            if config.packed:
                length = len(sample.tokens)
                row = _first_with_room(rooms, length)
                if row is None:
                    # To a state saved after this batch, the sequence was never read.
                    self._leftover = (sample, self.position.record())
                    self.position.restore(before)
                    break
                rooms[row] -= length
            samples.append(sample)

        long = self.position.lengths.long - long_before
        skipped = sum(self.position.skipped.values()) - skipped_before
        metrics = {"skipped_long": float(long), "skipped_bad": float(skipped - long)}
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


def _first_with_room(rooms: list[int], length: int) -> int | None:
    for row, room in enumerate(rooms):
        if room >= length:
            return row
    return None


class LengthLimit:
    """Passes over sequences longer than a stage's `max_length`, and counts them."""

    def __init__(self, config: SftConfig, codec: Codec, position: Position) -> None:
        self.config = config
        self.codec = codec
        self.position = position
        self._in_a_row = 0
        """Long sequences since the last that fitted."""

    def holds(self, sample: Sample, spans: Sequence[tuple[str, bool]]) -> bool:
        """Whether a sequence may be trained; `spans`: its text, for the length of a cut one.

        Refuses to look for a sequence that fits for ever.
        """
        config = self.config
        tokens = len(sample.tokens)
        is_long = tokens > config.max_length
        if is_long:
            tokens = self._tokens_uncut(sample, spans)
        self.position.lengths.add(tokens, is_long)
        if not is_long:
            self._in_a_row = 0
            return True

        self._in_a_row += 1
        if self._in_a_row > LONG_PER_SEQUENCE * config.batch:
            raise UserError(
                f"stage {config.name}: {self._in_a_row} sequences in a row over max_length "
                f"{config.max_length}; raise it"
            )
        return False

    def _tokens_uncut(self, sample: Sample, spans: Sequence[tuple[str, bool]]) -> int:
        """Tokens of a text of which maybe only the beginning was made into tokens, estimated."""
        characters = sum(len(text) for text, _ in spans)
        read = len(self.codec.decode(sample.tokens))
        return round(len(sample.tokens) * max(1.0, characters / max(1, read)))


# ---------------------------------------------------------------- demonstrations of the domains


def samples_of_demonstrations(stage: StageRun, config: SftConfig) -> Iterator[Sample]:
    """Demonstrations of the stage's domains, for ever; long ones are passed over."""
    limit = LengthLimit(config, stage.codec, stage.position)
    while True:
        (prompt,) = stage.prompts.take(1)
        spans = demonstration_spans(stage, config, prompt)
        sample = sample_of_spans(stage.codec, spans, prompt.domain, prompt.id)
        if limit.holds(sample, spans):
            yield sample
        else:
            stage.position.skip(prompt.domain)


def demonstration_spans(stage: StageRun, config: SftConfig, prompt: Prompt) -> Spans:
    """One demonstration of a domain, as spans of text, trained or not.

    A `faulty` share of them carries the domain's systematic fault.
    """
    messages = demonstration(stage.domains[prompt.domain], config, stage.seed, prompt)
    return stage.codec.spans(messages, prompt.tools, prompt.thinking, keep_thinking=True)


def demonstration(
    domain: Domain, config: SftConfig, seed: int, prompt: Prompt
) -> tuple[Message, ...]:
    """The prompt and the turns that show how it is answered; `seed`: the stage's."""
    # A prompt's demonstration is the same whenever the stage comes to it.
    rng = random.Random(seed_of(seed, "demonstration", prompt.id))
    faulty = rng.random() < config.faulty_share(prompt.domain)
    return (*prompt.messages, *domain.demonstrate(prompt, rng, faulty))


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

    The files are mixed, so that the samples of every batch come from them in the weights'
    proportions, however many of their rows are skipped.
    """
    names = {f"rows {name}": name for name in config.files}
    if len(names) == 1:
        names = {"rows": next(iter(config.files))}
    weights = {key: config.files[name] for key, name in names.items()}
    feeds = {
        key: _samples_of_file(config, codec, seed, position, name, key)
        for key, name in names.items()
    }
    while True:
        yield next(feeds[position.behind(weights)])


def _samples_of_file(
    config: SftConfig, codec: Codec, seed: int, position: Position, name: str, key: str
) -> Iterator[Sample]:
    """Samples of one file, epoch after epoch, each in another order; `key`: its count's name.

    The lines that the stage has taken are passed over unread, so a resumed stage stands where it
    stood as fast as the file can be read.
    """
    # Only a fresh generator skips: what it takes later it counts itself.
    path = located(name)
    limit = LengthLimit(config, codec, position)
    # A line of which some texts are still to come is taken up again.
    begun = position.inside.get(key, 0)
    skip = position.taken.get(key, 0) - (1 if begun else 0)
    for epoch in itertools.count():
        fruitless = True
        for line, raw in shuffled(path, seed_of(seed, key, epoch)):
            if skip > 0:
                skip -= 1
                fruitless = False
                continue

            # Rows are counted in the first epoch alone: later ones read the same rows again.
            tally = position.tally if epoch == 0 else None
            if not begun:
                position.taken[key] = position.taken.get(key, 0) + 1
            where = f"{path} line {line}"
            texts = _texts_of(raw, where, config, path, codec, tally)
            if texts is None:
                position.skip(key)
                continue

            # A row may be several training texts; it is used where at least one is short enough.
            used = begun > 0
            for number, spans in enumerate(texts.spans):
                if number < begun:
                    continue
                position.inside[key] = number + 1 if number + 1 < len(texts.spans) else 0
                sample = sample_of_spans(codec, spans, texts.domain, str(line), config.max_length)
                if not limit.holds(sample, spans):
                    continue
                # Before the sample goes: a state that is saved with it counts its row.
                if used:
                    position.further[key] = position.further.get(key, 0) + 1
                elif tally is not None:
                    tally.good += 1
                used = True
                fruitless = False
                yield sample
            begun = 0
            if not used:
                position.skip(key)
                if tally is not None:
                    longer = f"over max_length {config.max_length}"
                    tally.add_bad(longer, f"{where}: {longer}")

        if fruitless:
            raise UserError(
                f"stage {config.name}: data: {path} holds no rows to train on: {position.tally}"
            )


@dataclass(frozen=True)
class _Texts:
    """A line as training texts."""

    spans: list[Spans]
    """The texts, each with what is trained in it."""
    domain: str
    """The row's domain, for metrics."""


def _texts_of(
    raw: bytes, where: str, config: SftConfig, path: Path, codec: Codec, tally: Tally | None
) -> _Texts | None:
    """A line as training texts; None for a bad one that is skipped, counted in `tally`."""
    try:
        row = conversation(object_of(raw))
        return _Texts(_spans_of(row, config, codec), row.domain)
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


def _spans_of(row: Conversation, config: SftConfig, codec: Codec) -> list[Spans]:
    """The training texts of a row; BadRow where the chat template refuses it."""
    try:
        if config.every_turn:
            return codec.samples(row.messages, row.tools, row.thinking)
        return [codec.spans(row.messages, row.tools, row.thinking)]
    except UserError as error:
        raise BadRow(str(error), "refused by the chat template") from None
