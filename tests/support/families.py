"""Tiny tokenizers and chat templates in the layout of thirteen model families.

Vocabularies are trained on a few sentences; pre-tokenizers, normalizers, added tokens, BOS, stop
tokens and the shape of the chat template are those of the family. `write(name, folder)` makes what
a model folder holds beside its config and weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from support.family_templates import TEMPLATES

CORPUS = [
    "You are a helpful assistant. What is the capital of France? The capital of France is Paris.",
    "Count to ten: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10. Then 12 + 34 = 46 and 2024 - 1999 = 25.",
    'def add(a, b):\n    return a + b\n\n\nprint(add(1, 2))\n{"name": "add", "arguments": {}}',
    "I think that the answer is yes, because the user asked so. Therefore no call is needed.",
    "system\nuser\nassistant\ntool\nipython\nmodel\nanalysis\nfinal\ncommentary\ndeveloper\n",
] * 3


@dataclass(frozen=True)
class Family:
    """The tokenizer side of a model family."""

    name: str
    """Its name, also that of its template."""
    make: Callable[[Family], Tokenizer]
    """Its kind of tokenizer."""
    specials: tuple[str, ...]
    """Special tokens, in the order of their ids."""
    eos: str
    """The tokenizer's `eos_token`."""
    stops: tuple[str, ...]
    """What ends a turn: the generation config's list."""
    bos: str | None = None
    """The tokenizer's `bos_token`."""
    adds_bos: bool = False
    """Whether plain text is given the BOS by the tokenizer itself."""
    plain: tuple[str, ...] = ()
    """Added tokens that are not special."""
    rstrip: bool = False
    """Whether special tokens swallow the white space behind them."""
    regex: str = ""
    """Of byte-level layouts: how words are cut."""

    @property
    def template(self) -> str | None:
        """The chat template; None where the family has none."""
        return TEMPLATES.get(self.name)


# ---------------------------------------------------------------- kinds of tokenizers

_GPT2 = ""
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def _bytes(family: Family) -> Tokenizer:
    """Byte-level BPE (gpt2, qwen, llama3, gpt-oss, granite, nemotron)."""
    tokenizer = Tokenizer(models.BPE())
    steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    if family.regex:
        steps = [
            pre_tokenizers.Split(Regex(family.regex), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _with_added(tokenizer, family)


def _pieces(family: Family) -> Tokenizer:
    """SentencePiece BPE with byte fallback; every stretch of text begins with `▁` (llama2)."""
    prefix = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = _byte_fallback(family)
    tokenizer.normalizer = prefix
    tokenizer.decoder = _pieces_decoder(strip=True)
    return _with_added(tokenizer, family)


def _metaspace(family: Family) -> Tokenizer:
    """SentencePiece BPE with byte fallback; only the first stretch begins with `▁` (mistral)."""
    tokenizer = _byte_fallback(family)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement="▁", prepend_scheme="first", split=False
    )
    tokenizer.decoder = _pieces_decoder(strip=True)
    return _with_added(tokenizer, family)


def _gemma(family: Family) -> Tokenizer:
    """SentencePiece BPE with byte fallback, without any prefix."""
    tokenizer = _byte_fallback(family)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = _pieces_decoder(strip=False)
    return _with_added(tokenizer, family)


def _pieces_decoder(strip: bool) -> Any:
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if strip:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)


def _byte_fallback(family: Family) -> Tokenizer:
    """A BPE whose vocabulary begins as SentencePiece's does: specials, then all bytes."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    model = json.loads(trained.to_str())["model"]

    names = [*family.specials[:3], *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    vocab = {name: i for i, name in enumerate(dict.fromkeys(names))}
    merges = [tuple(merge) for merge in model["merges"]]
    unknown = "<unk>"
    return Tokenizer(
        models.BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )


def _with_added(tokenizer: Tokenizer, family: Family) -> Tokenizer:
    special = []
    for name in family.specials:
        # What a SentencePiece vocabulary begins with never swallows white space.
        rstrip = family.rstrip and name not in ("<unk>", "<s>", "</s>")
        special.append(AddedToken(name, special=True, normalized=False, rstrip=rstrip))
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in family.plain])
    if family.adds_bos:
        assert family.bos is not None
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A",
            special_tokens=[(family.bos, tokenizer.token_to_id(family.bos))],
        )
    return tokenizer


# ---------------------------------------------------------------- families

_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_QWEN_PLAIN = ("<tool_call>", "</tool_call>")
_SPM = ("<unk>", "<s>", "</s>")
_GEMMA = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
_THOUGHT = ("<think>", "</think>")

FAMILIES = {
    family.name: family
    for family in (
        Family("llama2", _pieces, _SPM, "</s>", ("</s>",), "<s>", adds_bos=True),
        Family(
            "llama3",
            _bytes,
            (
                "<|begin_of_text|>",
                "<|end_of_text|>",
                "<|start_header_id|>",
                "<|end_header_id|>",
                "<|eom_id|>",
                "<|eot_id|>",
                "<|python_tag|>",
            ),
            "<|eot_id|>",
            ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
            "<|begin_of_text|>",
            adds_bos=True,
            regex=_LLAMA3,
        ),
        Family(
            "mistral",
            _metaspace,
            (
                *_SPM,
                "[INST]",
                "[/INST]",
                "[TOOL_CALLS]",
                "[AVAILABLE_TOOLS]",
                "[/AVAILABLE_TOOLS]",
                "[TOOL_RESULTS]",
                "[/TOOL_RESULTS]",
            ),
            "</s>",
            ("</s>",),
            "<s>",
            adds_bos=True,
        ),
        Family(
            "qwen2",
            _bytes,
            _CHATML,
            "<|im_end|>",
            ("<|im_end|>", "<|endoftext|>"),
            plain=_QWEN_PLAIN,
            regex=_QWEN,
        ),
        Family(
            "qwen3",
            _bytes,
            _CHATML,
            "<|im_end|>",
            ("<|im_end|>", "<|endoftext|>"),
            plain=(*_QWEN_PLAIN, "<tool_response>", "</tool_response>", *_THOUGHT),
            regex=_QWEN,
        ),
        Family(
            "gemma2", _gemma, _GEMMA, "<eos>", ("<eos>", "<end_of_turn>"), "<bos>", adds_bos=True
        ),
        Family(
            "gemma3",
            _gemma,
            _GEMMA,
            "<eos>",
            ("<eos>", "<end_of_turn>"),
            "<bos>",
            adds_bos=True,
            plain=("<start_of_image>",),
        ),
        Family(
            "phi3",
            _pieces,
            (
                *_SPM,
                "<|endoftext|>",
                "<|assistant|>",
                "<|system|>",
                "<|end|>",
                "<|user|>",
            ),
            "<|endoftext|>",
            ("<|endoftext|>", "<|assistant|>", "<|end|>"),
            "<s>",
            rstrip=True,
        ),
        Family("gpt2", _bytes, ("<|endoftext|>",), "<|endoftext|>", ("<|endoftext|>",)),
        Family("smollm2", _bytes, _CHATML, "<|im_end|>", ("<|im_end|>",), "<|im_start|>"),
        Family(
            "gpt-oss",
            _bytes,
            (
                "<|startoftext|>",
                "<|endoftext|>",
                "<|return|>",
                "<|constrain|>",
                "<|channel|>",
                "<|start|>",
                "<|end|>",
                "<|message|>",
                "<|call|>",
            ),
            "<|return|>",
            ("<|return|>", "<|endoftext|>", "<|call|>"),
            "<|startoftext|>",
            regex=_LLAMA3,
        ),
        Family(
            "granite-hybrid",
            _bytes,
            ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"),
            "<|end_of_text|>",
            ("<|end_of_text|>",),
            "<|end_of_text|>",
            plain=("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
            regex=_LLAMA3,
        ),
        Family(
            "nemotron_h",
            _bytes,
            ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"),
            "<|im_end|>",
            ("</s>", "<|im_end|>"),
            "<s>",
            plain=(*_THOUGHT, "<tool_call>", "</tool_call>"),
            regex=_LLAMA3,
        ),
    )
}


def write(name: str, folder: Path) -> Tokenizer:
    """Write tokenizer.json, its config, the generation config and the chat template."""
    family = FAMILIES[name]
    tokenizer = family.make(family)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = [tokenizer.token_to_id(stop) for stop in family.stops]
    assert None not in ids, family.stops

    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": family.eos,
        "pad_token": family.eos,
        "clean_up_tokenization_spaces": False,
    }
    if family.bos is not None:
        config["bos_token"] = family.bos
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    generation = {"eos_token_id": ids if len(ids) > 1 else ids[0]}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    if family.template is not None:
        (folder / "chat_template.jinja").write_text(family.template)
    return tokenizer
