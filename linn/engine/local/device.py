"""What is computed on: this machine's CPU or GPUs. No torch."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from linn.errors import UserError
from linn.recipe.scale import ScaleConfig

APPLE = "Apple GPU"
"""torch computes on it by another backend, which linn does not use."""


def gpus(root: Path = Path("/")) -> list[str]:
    """Names of the GPUs that this process could see; `root`: where the system's files are."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return []
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return [APPLE]

    names = []
    for file in sorted(root.glob("proc/driver/nvidia/gpus/*/information")):
        names.append(_model_in(file) or "NVIDIA GPU")
    # Containers may have the devices without the driver's own files.
    if not names:
        names = ["NVIDIA GPU" for _ in root.glob("dev/nvidia[0-9]*")]

    # AMD's driver lists processors as well: those without SIMD units.
    for file in sorted(root.glob("sys/class/kfd/kfd/topology/nodes/*/properties")):
        if re.search(r"^simd_count[ \t]+[1-9]", _text(file), re.MULTILINE):
            names.append("AMD GPU")
    return names


def _model_in(file: Path) -> str:
    """The name in the driver's description of one GPU; empty where it has none."""
    for line in _text(file).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Model":
            return value.strip()
    return ""


def _text(file: Path) -> str:
    """What a driver tells; empty where it may not be read, as of a card that is another's."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def local_device(scale: ScaleConfig, names: list[str]) -> str:
    """`cpu` or `cuda`, for the local engine of a machine with these GPUs.

    Raises UserError where there is none that is asked for.
    """
    usable = [name for name in names if name != APPLE]
    if scale.device == "cuda" and not usable:
        raise UserError(
            "scale.device: cuda: this machine has no GPU that torch's CUDA or ROCm build computes "
            "on, or CUDA_VISIBLE_DEVICES hides it; set scale.device: cpu"
        )
    if scale.device == "auto":
        return "cuda" if usable and not _is_cpu_build() else "cpu"
    return scale.device


def _is_cpu_build() -> bool:
    """Whether the torch that is installed has no GPU support at all.

    Its number need not say so (`+cpu`): that of conda's builds does not, nor that of some on PyPI.
    """
    found = find_spec("torch")  # looks where it is, and imports nothing
    if found is None or found.origin is None:
        return False
    text = _text(Path(found.origin).with_name("version.py"))
    toolkits = re.findall(r"^(?:cuda|hip)\b[^=\n]*=\s*(\S+)", text, re.MULTILINE)
    return bool(toolkits) and all(toolkit == "None" for toolkit in toolkits)


def device_line(scale: ScaleConfig, names: list[str]) -> str:
    """What the local engine computes on, for a person whose machine has these GPUs."""
    device = local_device(scale, names)
    if device == "cuda":
        more = f" (the first of {len(names)}; engine: cluster uses them all)"
        products = "products in bfloat16" if scale.precision == "bfloat16" else "in float32"
        return f"{names[0]}{more if len(names) > 1 else ''}, {products}"
    if not names:
        return "the CPU"

    found = names[0] if len(names) == 1 else f"{len(names)} x {names[0]}"
    if scale.device == "cpu":
        why = "scale.device is cpu"
    elif names[0] == APPLE:
        why = "linn's local engine has no support for it"
    else:
        why = "this torch is a build for CPUs: install the one for this GPU's driver"
    return f"the CPU; this machine's {found} is not used, {why}"


def say_device(say: Callable[[str], object], scale: ScaleConfig | None = None) -> None:
    """Say what the local engine computes on; nothing where there is no choice.

    scale: None for verbs that have no such block. Raises UserError where there is no such device.
    """
    names = gpus()
    line = device_line(scale or ScaleConfig(), names)
    if names:
        say(f"computing on {line}")


def computed_on(scale: ScaleConfig) -> str:
    """What an engine of this `scale` computes on here, for a run's record.

    Raises UserError where this machine has not what is asked for.
    """
    if scale.engine == "cluster":
        return "GPUs" if device_of(scale, len(cuda_ids())) == "cuda" else "CPUs"
    names = gpus()
    return names[0] if local_device(scale, names) == "cuda" else "CPUs"


def gpu_bytes() -> int | None:
    """Memory of the first NVIDIA GPU; None where its driver does not tell."""
    asked = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout
        return int(told.split()[0]) << 20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def cuda_ids(root: Path = Path("/")) -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls the GPUs that this process may use: NVIDIA's and AMD's."""
    there = [name for name in gpus(root) if name != APPLE]
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
        in_turn = ""
        advice = (
            "lower trainers.ranks or samplers.replicas, set samplers.colocated: true, "
            "device: cpu, or places: ray"
        )
        if scale.samplers.colocated:
            in_turn, advice = " in turn", "lower trainers.ranks, or set device: cpu or places: ray"
        raise UserError(
            f"scale: {scale.trainers.ranks} trainer ranks and {scale.samplers.replicas} samplers "
            f"of {scale.samplers.tensor}{in_turn} need {scale.devices} GPUs, this machine has "
            f"{there}; {advice}"
        )
    return asked
