"""Weights from the first trainer rank to all samplers at once, without files between them.

The rank and all processes that hold a sampler meet in a group of their own, for this one hand-over:
between GPUs it is NCCL's, on CPUs gloo's. Nothing is kept of it, so whoever was replaced since the
last one needs no word of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from linn.scale.weights import NotReached

_HEADER = 1024
"""Bytes that go before each tensor and say what it is; spaces where there is less to say."""
_MEETS = timedelta(seconds=20)
"""In which those who receive must have come; they are told to before the sender."""
_TAKES = timedelta(seconds=60)
"""In which all must have taken a tensor: how the sender comes to know that one is gone, which gloo
does not always tell."""
_COMES = timedelta(minutes=30)
"""In which the next tensor must come: the sender may have to gather a whole model for the first."""


class WeightGroup:
    """The sender of weights and all who receive them."""

    def __init__(self, meeting: str, place: int, members: int, device: torch.device) -> None:
        """Returns when all are there; NotReached where one does not come.

        meeting: where they find each other, as torch takes it; each hand-over has one of its own.
        place: 0 is the sender, from 1 on they receive. device: this member's, of the same type as
        everybody's.
        """
        self._device = device
        meets, moves = (_MEETS, _TAKES) if place == 0 else (_COMES, _COMES)
        try:
            store, *_ = next(rendezvous(meeting, place, members, timeout=meets))
            store.set(f"member {place}", "")
            store.wait([f"member {number}" for number in range(members)], meets)
            self._group = _group(device, store, place, members, moves)
        except RuntimeError as error:
            seconds = meets.total_seconds()
            raise NotReached(
                f"not all of {members} processes met within {seconds:g} s for the weights ({error})"
            ) from None

    def send(self, name: str, tensor: Tensor) -> None:
        """A tensor to everybody; it may lie on another device."""
        shape, dtype = list(tensor.shape), str(tensor.dtype).removeprefix("torch.")
        self._send_header({"name": name, "dtype": dtype, "shape": shape})
        if tensor.numel():
            self._broadcast(tensor.detach().to(self._device).contiguous())

    def end(self) -> None:
        """Tell everybody that there was the last one."""
        self._send_header({})

    def received(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors as they were sent, each in memory of its own."""
        while said := self._receive_header():
            dtype = getattr(torch, said["dtype"])
            tensor = torch.empty(said["shape"], dtype=dtype, device=self._device)
            if tensor.numel():
                self._broadcast(tensor)
            yield said["name"], tensor

    def _send_header(self, said: dict[str, Any]) -> None:
        header = json.dumps(said).encode().ljust(_HEADER)
        assert len(header) == _HEADER, f"the name of a tensor is too long: {said}"
        self._broadcast(torch.frombuffer(bytearray(header), dtype=torch.uint8).to(self._device))

    def _receive_header(self) -> dict[str, Any]:
        header = torch.empty(_HEADER, dtype=torch.uint8, device=self._device)
        self._broadcast(header)
        said: dict[str, Any] = json.loads(bytes(header.tolist()))
        return said

    def _broadcast(self, tensor: Tensor) -> None:
        try:
            # The root is the member at place 0 unless the options say another.
            self._group.broadcast([tensor], dist.BroadcastOptions()).wait()
        except RuntimeError as error:
            raise NotReached(str(error)) from None

    def close(self) -> None:
        """Leave; whoever still waits for this member hears of it."""
        if self._device.type == "cuda":
            # What was sent last may still be under way.
            torch.cuda.synchronize(self._device)
        self._group.shutdown()


def _group(device: torch.device, store: Any, place: int, members: int, timeout: timedelta) -> Any:
    """Apart from the process group of the trainers or of vLLM, which this process may have."""
    if device.type != "cuda":
        return dist.ProcessGroupGloo(store, place, members, timeout)
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = timeout
    return dist.ProcessGroupNCCL(store, place, members, options)
