"""A small byte-level BPE tokenizer that knows the chat protocol.

Trained from text, saved in Hugging Face layout.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from linn import files
from linn.chat import render as chat
from linn.chat import tool_calls as calls
from linn.errors import UserError

PAD = "<|endoftext|>"
SPECIALS = (
    PAD,
    chat.START,
    chat.END,
    chat.THINK,
    chat.THINK_END,
    calls.CALL,
    calls.CALL_END,
    chat.RESULT,
    chat.RESULT_END,
)
"""Marks of the protocol, ids 0, 1, 2, … in this order. `<|endoftext|>` pads."""

SENTENCES = (
    chat.TOOLS_HEADING,
    chat.CALL_FORMAT + chat.CALL_REMINDER,
    chat.CALL_FORMAT,
    chat.CALL_REMINDER,
    # System blocks and turns open and close with these runs; one token each keeps a tiny model's
    # prompts short.
    "\n<function>\n<name>",
    "</name>\n<description>",
    "</name>\n<type>",
    "</type>\n<description>",
    "</description>\n<parameters>",
    "</description>\n</parameter>",
    "\n<parameter>\n<name>",
    "</type>\n</parameter>",
    "\n<required>",
    "</required>\n</parameters>",
    "\n</parameters>\n</function>",
    "\n</function>",
    "<tools>",
    "</tools>",
    "<function>",
    "<name>",
    "</name>",
    "<description>",
    "</description>",
    "<type>",
    "</type>",
    "<enum>",
    "</enum>",
    "<required>",
    "</required>",
    "<parameters>",
    "</parameters>",
    "<parameter>",
    "</parameter>",
    "\n" + calls.FUNCTION,
    calls.FUNCTION,
    calls.FUNCTION_END,
    "\n" + calls.PARAMETER,
    calls.PARAMETER,
    "\n</parameter>\n" + calls.PARAMETER,
    "\n</parameter>\n" + calls.FUNCTION_END + "\n",
    "\n</parameter>",
    ">\n",
    "\n" + chat.RESULT_END,
    # Roles, as they follow `<|im_start|>`.
    "system\n",
    "user\n",
    "assistant\n",
    # The edits of code repair (graders.md): marks that stand alone on their lines.
    "<<<<<<< SEARCH",
    "=======",
    ">>>>>>> REPLACE",
    "<solution>",
    "</solution>",
    "```",
)
"""Fixed text of the protocols that costs one token each.

They are ordinary tokens, matched leftmost and longest before BPE.
"""


def train_tokenizer(texts: Iterable[str], vocab: int) -> Tokenizer:
    """Byte-level BPE over `texts` with at most `vocab` tokens in all.

    The same texts give the same tokenizer. Marks and fixed sentences are single tokens, every digit
    is its own, and `decode(encode(x)) == x` for any text.

    Raises UserError for a vocabulary too small to hold the bytes and the fixed tokens.
    """
    smallest = 256 + len(SPECIALS) + len(SENTENCES)
    if vocab < smallest:
        raise UserError(
            f"vocab: {vocab} is too small; "
            f"bytes, marks and fixed sentences alone are {smallest} tokens"
        )

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(SENTENCES),
        special_tokens=list(SPECIALS),
        # Every byte has a token, whether or not the texts hold it.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_without_fixed(texts), trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in SENTENCES])
    return tokenizer


def _without_fixed(texts: Iterable[str]) -> Iterator[str]:
    """The stretches between marks and fixed sentences.

    So that no merge is spent on what has a token already.
    """
    longest_first = sorted((*SPECIALS, *SENTENCES), key=len, reverse=True)
    fixed = re.compile("|".join(re.escape(text) for text in longest_first))
    for text in texts:
        yield from filter(None, fixed.split(text))


def save_tokenizer(tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja.

    Each file is there whole or not at all.
    """
    folder = Path(folder)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": chat.END,
        "pad_token": PAD,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 262144,
    }
    files.write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    files.write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")
    template = chat.TEMPLATE.read_text(encoding="utf-8")
    files.write_text(folder / "chat_template.jinja", template)
