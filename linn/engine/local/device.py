"""What is computed on: the CPU by the local engine, GPUs by a cluster that has them. No torch."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from linn.errors import UserError
from linn.recipe.scale import ScaleConfig


def gpus(root: Path = Path("/")) -> list[str]:
    """Names of the GPUs that this process could see; `root`: where the system's files are."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return []
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return ["Apple GPU"]

    names = []
    for file in sorted(root.glob("proc/driver/nvidia/gpus/*/information")):
        names.append(_model_in(file) or "NVIDIA GPU")
    # Containers may have the devices without the driver's own files.
    if not names:
        names = ["NVIDIA GPU" for _ in root.glob("dev/nvidia[0-9]*")]

    # AMD's driver lists processors as well: those without SIMD units.
    for file in sorted(root.glob("sys/class/kfd/kfd/topology/nodes/*/properties")):
        words = file.read_text(encoding="utf-8", errors="replace").split()
        if "simd_count" in words and words[words.index("simd_count") + 1] != "0":
            names.append("AMD GPU")
    return names


def _model_in(file: Path) -> str:
    """The name in the driver's description of one GPU; empty where it has none."""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Model":
            return value.strip()
    return ""


def device_line(names: list[str]) -> str:
    """What is computed on, for a person whose machine has these GPUs."""
    if not names:
        return "the CPU"
    found = names[0] if len(names) == 1 else f"{len(names)} x {names[0]}"
    return f"the CPU; this machine's {found} is not used, linn's local engine has no GPU support"


def cuda_ids(root: Path = Path("/")) -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls the GPUs that this process may use: NVIDIA's and AMD's."""
    there = [name for name in gpus(root) if "Apple" not in name]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if there and visible is not None:
        return [name.strip() for name in visible.split(",")]
    return [str(number) for number in range(len(there))]


def device_of(scale: ScaleConfig, there: int) -> str:
    """`cpu` or `cuda`, for a cluster.

    there: GPUs of this machine; Ray's other machines may have more. Raises UserError where they
    are too few for what is asked.
    """
    if scale.device != "auto":
        asked = scale.device
    else:
        asked = "cuda" if there >= scale.devices else "cpu"
    if asked == "cuda" and scale.places == "local" and there < scale.devices:
        raise UserError(
            f"scale: {scale.trainers.ranks} trainer ranks and {scale.samplers.replicas} samplers "
            f"of {scale.samplers.tensor} need {scale.devices} GPUs, this machine has {there}; "
            "lower trainers.ranks or samplers.replicas, set device: cpu, or places: ray"
        )
    return asked
