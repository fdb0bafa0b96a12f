"""What a process of the local engine sets and asks of the device that it computes on."""

from __future__ import annotations

import torch

from linn.errors import UserError
from linn.recipe.scale import CACHE_LEAST, CACHE_SHARE


def set_up() -> None:
    """How this whole process computes on its CPU."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def device_of(name: str) -> torch.device:
    """The device, with arithmetic that means what it says.

    Raises UserError for a GPU that this build of torch cannot use.
    """
    if name == "cpu":
        return torch.device("cpu")

    if not torch.cuda.is_available():
        raise UserError(
            f"scale.device: {name}: torch {torch.__version__} finds no GPU that it can "
            "use; install the build of torch for this GPU's driver, or set scale.device: cpu, or "
            "CUDA_VISIBLE_DEVICES=-1 in the environment where there is no recipe"
        )
    # float32 is float32: sampler and trainer must agree to 1e-4. Under `precision: bfloat16` the
    # sums of a product stay in float32.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    return torch.device("cuda", 0)


def cache_bytes(asked: int | None, device: torch.device) -> int:
    """What the states of one checkpoint's conversations may take; `asked`: None for the default.

    On a CPU that is the least: whoever opens an engine knows the machine's other processes.
    """
    if asked is not None:
        return asked
    if device.type == "cpu":
        return CACHE_LEAST
    return torch.cuda.get_device_properties(device).total_memory // CACHE_SHARE
