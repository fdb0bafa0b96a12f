"""Supervised fine-tuning: demonstrations or rows -> packed samples -> one AdamW step each (paper §2).

Loss on assistant tokens only: thought, answer, calls and the end-of-turn mark; thinking and non-thinking rows alike.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from linn import chat
from linn.data.conversations import conversation
from linn.data.names import located
from linn.data.rows import BadRow, object_of, shuffled
from linn.errors import UserError
from linn.recipe import SftKeys
from linn.stages.loop import StageRun
from linn.types import Loss, Prompt, Sample, seed_of


def sft(run: StageRun) -> None:
    """The whole stage, from where it stands."""
    keys = run.keys
    assert isinstance(keys, SftKeys)
    loss = Loss("sft", length_power=keys.length_power)
    rows = _rows(run, keys) if keys.data else None
    for step in run.steps():
        began = run.clock()
        samples: list[Sample] = []
        skipped = 0
        while len(samples) < keys.batch:
            sample = next(rows) if rows else demonstration(run, keys, run.next_prompts(1)[0])
            if len(sample.tokens) > keys.max_length:
                skipped += 1
                if skipped > 1000 * keys.batch:
                    raise UserError(f"stage {keys.name}: {skipped} sequences in a row over max_length {keys.max_length}; raise it")
                continue
            samples.append(sample)
        run.train(step, samples, loss, {"skipped_long": float(skipped)}, began)


def demonstration(run: StageRun, keys: SftKeys, prompt: Prompt) -> Sample:
    """One demonstration of a domain, as a sample; `faulty_share` of them carry the domain's systematic fault."""
    rng = random.Random(seed_of(run.seed, "demonstration", prompt.id))
    faulty = rng.random() < keys.faulty_share(prompt.domain)
    turns = run.domains[prompt.domain].demonstrate(prompt, rng, faulty)
    spans = chat.spans((*prompt.messages, *turns), prompt.tools, prompt.thinking, True)
    return sample_of_spans(run.codec, spans, prompt.domain, prompt.id)


def sample_of_spans(codec: chat.Codec, spans: list[tuple[str, bool]], domain: str, source: str) -> Sample:
    """Spans of text, trained or not, as one sample of weight 1."""
    ids, mask = codec.encode_spans(spans)
    return Sample(ids, mask, [1.0 if m else 0.0 for m in mask], domain=domain, source=source)


def _rows(run: StageRun, keys: SftKeys) -> Iterator[Sample]:
    """Samples of a file of `messages` rows, epoch after epoch, each in another order, from where the stage stands.

    The lines that the stage has taken are passed over unread, so a resumed stage stands where it stood as fast as the file can be read.
    """
    assert keys.data is not None
    path, skip = located(keys.data), run.taken.get("rows", 0)
    for epoch in itertools.count():
        fruitless = True
        for line, raw in shuffled(path, seed_of(run.seed, "rows", epoch)):
            if skip > 0:
                skip, fruitless = skip - 1, False
                continue
            run.taken["rows"] = run.taken.get("rows", 0) + 1
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
            yield sample_of_spans(run.codec, chat.spans(row.messages, row.tools, row.thinking, False), row.domain, str(line))
        if fruitless:
            raise UserError(f"stage {keys.name}: data: {path} holds no rows to train on: {run.tally}")
