"""The safetensors of a model's folder: which they are, their dtypes, and writing them as shards."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from linn.errors import UserError

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PATTERNS = ("model*.safetensors", INDEX)
"""Names that the weights of a folder have."""

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Names in a safetensors header -> torch's, of the dtypes that weights are trained in."""


def weight_files(folder: Path) -> list[Path]:
    """The one file, or the shards that an index names.

    Raises UserError where one is not there, or the weights have another format.
    """
    index = folder / INDEX
    names = {WHOLE}
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{index}: not an index of shards ({error!r})") from None

    for name in sorted(names):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no {name}{_other_format(folder)}")
    return [folder / name for name in sorted(names)]


def _other_format(folder: Path) -> str:
    """What to do about weights that are not safetensors, where there are any."""
    others = sorted(
        path.name for ending in ("bin", "pth", "pt") for path in folder.glob(f"*.{ending}")
    )
    if not others:
        return f"; weights must be {WHOLE} or the shards of {INDEX}"
    return (
        f"; linn reads safetensors only, not {others[0]}: "
        "load the folder with transformers and save it anew with save_pretrained"
    )


def headers(folder: Path) -> Iterator[tuple[Path, str, str, tuple[int, ...]]]:
    """(file, tensor, dtype as safetensors names it, shape) of every tensor; no weights are read.

    Raises UserError for a file that is cut short or no safetensors.
    """
    from safetensors import SafetensorError, safe_open

    for file in weight_files(folder):
        try:
            with safe_open(file, "pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                    part = tensors.get_slice(name)
                    yield file, name, part.get_dtype(), tuple(part.get_shape())
        except SafetensorError as error:
            raise UserError(f"{file}: not whole safetensors ({error}); copy it anew") from None


def bytes_of(dtype: str) -> int:
    """Bytes of one element of a dtype as safetensors names it: `I64`, `BOOL`, `F8_E4M3`."""
    bits = re.search(r"\d+", dtype)
    return int(bits[0]) // 8 if bits else 1


@dataclass(frozen=True)
class Entry:
    """A tensor in the header of a file of weights."""

    dtype: str
    """As safetensors names it."""
    shape: tuple[int, ...]
    """Its shape."""
    size: int
    """Its bytes."""


def planned_files(entries: Mapping[str, Entry], shard_bytes: int) -> dict[str, int]:
    """The files that `write_weights` writes of such tensors, with their bytes."""
    sizes = {name: entry.size for name, entry in entries.items()}
    split = _split(sizes, shard_bytes)
    files = {}
    for file, names in split.filename_to_tensors.items():
        # The order of safetensors: the widest numbers first, then by name.
        ordered = sorted(names, key=lambda name: (-bytes_of(entries[name].dtype), name))
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in ordered:
            begin, end = end, end + sizes[name]
            entry = entries[name]
            header[name] = {
                "dtype": entry.dtype,
                "shape": list(entry.shape),
                "data_offsets": [begin, end],
            }
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        # Eight bytes say how long the header is, and blanks fill it up to a multiple of eight.
        files[file] = 8 + -(-len(text) // 8) * 8 + end

    if split.is_sharded:
        files[INDEX] = len(_index(split).encode())
    return files


def _split(sizes: Mapping[str, int], shard_bytes: int) -> Any:
    """Which tensors stand in which file."""
    from huggingface_hub import split_state_dict_into_shards_factory

    return split_state_dict_into_shards_factory(
        dict(sizes),
        get_storage_size=int,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_bytes,
    )


def _index(split: Any) -> str:
    """What model.safetensors.index.json says."""
    index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
    return json.dumps(index, indent=2, sort_keys=True) + "\n"


def write_weights(
    sizes: Mapping[str, int],
    tensor: Callable[[str], Tensor],
    folder: Path | None,
    shard_bytes: int,
    note: Callable[[int], None] = lambda written: None,
) -> None:
    """Write tensors as one file, or above `shard_bytes` as shards with an index.

    sizes: bytes of every tensor, by name; tensor: gives one of them, on the CPU. Only one shard is
    held at a time. note: is told the bytes written so far. One tensor may exceed `shard_bytes`.
    folder: None asks for the same tensors in the same order, and writes nothing.
    """
    from safetensors.torch import save_file

    split = _split(sizes, shard_bytes)
    written = 0
    for file, names in split.filename_to_tensors.items():
        if folder is None:
            for name in names:
                tensor(name)
            continue
        shard = {name: tensor(name) for name in names}
        save_file(shard, folder / file, metadata={"format": "pt"})
        written += sum(sizes[name] for name in names)
        note(written)

    if split.is_sharded and folder is not None:
        (folder / INDEX).write_text(_index(split), encoding="utf-8")


def config_of(raw: Mapping[str, Any], architecture: str, dtype: torch.dtype) -> dict[str, Any]:
    """A model's `config.json` as its base has it, with the class and the dtype of its weights."""
    return with_dtype({**raw, "architectures": [architecture]}, str(dtype).removeprefix("torch."))


def with_dtype(raw: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """A config that names this dtype, in its parts (text, vision) as well.

    Both words are written: readers of before 2025-09 know `torch_dtype` alone.
    """
    config = dict(raw)
    config["dtype"] = dtype
    config["torch_dtype"] = dtype

    for key, part in raw.items():
        # Parts of a model of text and images: `text_config`, `vision_config`.
        if not key.endswith("_config") or not isinstance(part, dict):
            continue
        if "dtype" in part or "torch_dtype" in part:
            config[key] = with_dtype(part, dtype)
    return config


def write_config(config: Mapping[str, Any], folder: Path) -> None:
    """Write `config.json`; equal contents give equal bytes."""
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
