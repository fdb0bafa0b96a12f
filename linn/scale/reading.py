"""A checkpoint into shards, without any rank holding the whole of a large one.

linn's own family is built without memory, cut, and each rank reads its own rows from the files. Any
other family is read whole by its own code, which knows its names, one rank after the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from linn.engine.models.interface import CausalLM
from linn.engine.models.kernels.products import take_products
from linn.engine.models.load import load as load_whole
from linn.engine.models.load import read_config
from linn.engine.models.nemotron_h import weights
from linn.engine.models.nemotron_h.model import NemotronH
from linn.engine.models.precision import KEY, kept, precision_of
from linn.engine.models.vocabulary import ids_without_text
from linn.engine.models.weight_files import headers
from linn.errors import UserError
from linn.scale.sharding import Sharding, check_whole, local, shard


def load_sharded(folder: Path, how: Sharding) -> CausalLM:
    """The model of a folder in float32 shards; every rank calls it.

    Raises UserError where the folder is not a model, as `engine.models.load` does, on every rank.
    """
    config = read_config(folder)
    if config["model_type"] != "nemotron_h":
        check_whole(how, str(folder))
    config[KEY] = kept(precision_of(config, folder))
    if config["model_type"] == "nemotron_h":
        return _own_family(folder, config, how)
    return _other_family(folder, how)


def _other_family(folder: Path, how: Sharding) -> CausalLM:
    model: CausalLM | None = None
    failure: Exception | None = None
    for rank in range(how.mesh.size()):
        # One whole model in the host's memory at a time.
        if rank == dist.get_rank():
            try:
                model = load_whole(folder)
                model.absent = _on(how, model.absent)
                shard(model, how)
            except Exception as error:
                failure = error
        dist.barrier()
    if failure is not None:
        raise failure
    assert model is not None
    return model


def _own_family(folder: Path, config: dict[str, Any], how: Sharding) -> CausalLM:
    with torch.device("meta"):
        model = NemotronH(config, folder / "config.json")
    if how.mesh.device_type == "cpu":
        take_products(model)
    with ExitStack() as stack:
        files = _Files(folder, stack)
        if model.config.tie_word_embeddings and not _ties_head(model, files):
            model.raw = {**config, "tie_word_embeddings": False}
            model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight))
        _check_names(model, files, folder)

        shard(model, how)
        model.to_empty(device=how.mesh.device_type)
        broken = None
        for name, tensor in _tensors_of(model):
            if not _fill(tensor, how.part(tensor), files, name):
                broken = broken or name

    _refuse_broken(broken, folder)
    model.absent = _on(how, ids_without_text(folder, model.vocab))
    return model


class _Files:
    """The tensors of a folder by linn's names for them, read slice by slice."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        """stack: closes what is opened."""
        self.shapes: dict[str, Tensor] = {}
        """Tensors of these shapes, without memory."""
        self._places: dict[str, tuple[Path, str]] = {}
        for file, written, _, shape in headers(folder):
            name = weights.own_name(written)
            if name is not None:
                self.shapes[name] = torch.empty(shape, device="meta")
                self._places[name] = file, written
        self._stack = stack
        self._open: dict[Path, Any] = {}

    def rows(self, name: str, rows: range) -> Tensor:
        """Some rows of a tensor; of a tied head, which may not be there, the embeddings'."""
        if name not in self._places and name == "lm_head.weight":
            name = "backbone.embeddings.weight"
        file, written = self._places[name]
        if file not in self._open:
            self._open[file] = self._stack.enter_context(safe_open(file, "pt"))
        try:
            part: Tensor = self._open[file].get_slice(written)[rows.start : rows.stop]
        except SafetensorError as error:
            raise UserError(f"{file}: not whole safetensors ({error}); copy it anew") from None
        return part


def _ties_head(model: NemotronH, files: _Files) -> bool:
    """Whether the head is the embeddings, where the config says so: the file has none, or equal.

    A file with another head keeps it: the stock class never ties.
    """
    if "lm_head.weight" not in files.shapes:
        return True
    whole = range(model.vocab)
    head = files.rows("lm_head.weight", whole)
    return torch.equal(head, files.rows("backbone.embeddings.weight", whole))


def _check_names(model: NemotronH, files: _Files, folder: Path) -> None:
    """Refuse tensors that are missing, unknown or misshapen."""
    expected = {name: value.shape for name, value in weights.unstacked(model.state_dict())}
    if model.config.tie_word_embeddings and "lm_head.weight" not in files.shapes:
        del expected["lm_head.weight"]
    weights.check_shapes(files.shapes, expected, folder)


def _tensors_of(model: NemotronH) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers that a file holds, each once."""
    yield from model.named_parameters()
    for name, buffer in model.named_buffers():
        if name != "absent":
            yield name, buffer


@torch.no_grad()
def _fill(tensor: Tensor, part: tuple[range, range], files: _Files, name: str) -> bool:
    """Read this rank's part of a tensor into its memory; whether all numbers are finite."""
    own = local(tensor)
    rows, columns = part

    if ".experts." in name:
        # In the file every expert has a matrix of its own.
        matrices = list(weights.names_of_experts(name, rows.stop))[rows.start :]
        for place, (matrix, _) in enumerate(matrices):
            own[place].copy_(files.rows(matrix, columns))
    elif rows:
        own.copy_(files.rows(name, rows))
    return bool(own.isfinite().all())


def _refuse_broken(own: str | None, folder: Path) -> None:
    """Raise on all ranks where any of them read a number that is not finite."""
    names: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(names, own)
    for name in names:
        if name is not None:
            raise UserError(
                f"{folder}: tensor {name} holds NaN or infinity; "
                "the weights are broken: take another checkpoint"
            )


def _on(how: Sharding, ids: Tensor | None) -> Tensor | None:
    return None if ids is None else ids.to(how.mesh.device_type)


def read_meta(folder: Path, name: str) -> dict[str, Any]:
    """A small JSON file of a saved state; UserError where it is not there or cannot be read."""
    try:
        meta: dict[str, Any] = json.loads((folder / name).read_text())
    except FileNotFoundError:
        raise UserError(f"{folder}: not a checkpoint of a training run: it has no {name}") from None
    except ValueError as error:
        raise UserError(f"{folder}: its training state cannot be read: {error}") from None
    return meta
