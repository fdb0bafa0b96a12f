"""Folders into repositories of the Hugging Face Hub, through huggingface_hub.

What others put into a repository stays, and so does its history; only weights that the new ones
replace are taken away, since a shard too many would be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from linn.errors import InfrastructureError, UserError

_STALE = [
    "model*.safetensors",
    "model*.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model*.bin.index.json",
]
"""Weights of an earlier publication that this one does not write again."""
_SCHEME = "hf://"


@dataclass(frozen=True)
class Target:
    """Where a run is published."""

    model: str
    """`OWNER/NAME` of the models."""

    @property
    def data(self) -> str:
        """The same of the data."""
        return f"{self.model}-data"

    def address(self, branch: str) -> str:
        """A branch as one writes it."""
        suffix = "" if branch == "main" else f"@{branch}"
        return f"{_SCHEME}{self.model}{suffix}"

    @property
    def data_address(self) -> str:
        """The data as recipes name it, without a file."""
        return f"{_SCHEME}datasets/{self.data}"


def target_of(name: str) -> Target:
    """The repository of `hf://OWNER/NAME`; UserError for anything else."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    # A revision has no meaning here: branches are named by the stages.
    match = re.fullmatch(rf"{_SCHEME}([^/@:]+/[^/@:]+)", name)
    if match is None:
        raise UserError(f"--to {name}: expected hf://OWNER/NAME, a repository of the Hub")
    target = Target(match[1])
    try:
        validate_repo_id(target.data)
    except HFValidationError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--to {name}: the Hub takes no such name ({reason})") from None
    return target


class Hub:
    """Two repositories of a target: the models, a branch each, and their data."""

    def __init__(self, target: Target, private: bool | None) -> None:
        """`private`: None leaves it to the Hub, or to what is there."""
        # Looked up here, so that a test can put another in its place.
        import huggingface_hub

        from linn.run.machine import versions

        self.target = target
        self._private = private
        self._api = huggingface_hub.HfApi(library_name="linn", library_version=versions()["linn"])

    def open(self, with_data: bool) -> None:
        """Make the repositories that are not there; the first thing that a missing token stops."""
        repositories: list[tuple[str, str]] = [(self.target.model, "model")]
        if with_data:
            repositories.append((self.target.data, "dataset"))
        # Those that are there stay as they are, private or not.
        for name, kind in repositories:
            create = partial(self._api.create_repo, name, repo_type=kind, exist_ok=True)
            self._do(f"the repository {name}", partial(create, private=self._private))

    def upload_model(self, folder: Path, branch: str, message: str) -> None:
        """Put a folder into a branch, which is made where it is not there."""
        name = self.target.model
        if branch != "main":
            create = partial(self._api.create_branch, name, branch=branch, exist_ok=True)
            self._do(f"the branch {branch} of {name}", create)
        upload = partial(
            self._api.upload_folder,
            repo_id=name,
            repo_type="model",
            folder_path=folder,
            revision=branch,
            commit_message=message,
            delete_patterns=_STALE,
        )
        self._do(f"upload to {self.target.address(branch)}", upload)

    def upload_data(self, folder: Path, message: str) -> None:
        """Put a folder into the repository of the data, in place of the rows it has."""
        upload = partial(
            self._api.upload_folder,
            repo_id=self.target.data,
            repo_type="dataset",
            folder_path=folder,
            commit_message=message,
            # Rows that were passed on before and may not be any more.
            delete_patterns=["sft/*.jsonl", "rl/*.jsonl"],
        )
        self._do(f"upload to {self.target.data_address}", upload)

    def _do(self, what: str, step: Callable[[], Any]) -> None:
        """A step of the Hub's; whatever goes wrong becomes one line that says what to do."""
        import httpx

        try:
            step()
        # Errors of the Hub, of the network, of a token that is missing or malformed.
        except (OSError, ValueError, httpx.HTTPError) as error:
            raise _refusal(what, error) from None


def _refusal(what: str, error: Exception) -> Exception:
    """An error of the Hub in one line."""
    reason = " ".join(str(error).split())[:300]
    response: Any = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    is_token = type(error).__name__ == "LocalTokenNotFoundError"
    if is_token or status in (401, 403):
        return UserError(
            f"{what}: the Hub refuses ({reason}); hf auth login with a token that may write there, "
            "or set HF_TOKEN"
        )
    return InfrastructureError(
        f"{what}: failed ({reason}); what was uploaded stays, and the same command goes on from it"
    )
