"""Data by name: a path, or a file of the Hugging Face Hub.

Remote names are `hf://datasets/OWNER/REPO[@REVISION]/PATH/IN/REPO.jsonl`, read by way of
huggingface_hub.
"""

from __future__ import annotations

import re
from pathlib import Path

from linn.errors import UserError

_FORM = re.compile(
    r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/\s]+))?/(?P<path>\S+)"
)


def is_remote(name: str) -> bool:
    """Whether `name` names a file of the Hub; UserError where it tries to and fails."""
    if not name.startswith("hf:"):
        return False
    if _FORM.fullmatch(name) is None:
        raise UserError(
            f"{name}: expected hf://datasets/OWNER/REPO/PATH/IN/REPO.jsonl, "
            "with @REVISION after REPO to pin one"
        )
    return True


def located(name: str | Path) -> Path:
    """The local file of a name.

    A remote file comes from the local cache, or is downloaded into it. UserError says what to run
    where neither works, as on a machine without network.
    """
    if not is_remote(str(name)):
        return Path(name)
    form = _FORM.fullmatch(str(name))
    assert form is not None
    repo, revision, path = form["repo"], form["revision"], form["path"]
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    # The cache first, and without asking the Hub: a run on a machine without network begins.
    try:
        cached = hf_hub_download(
            repo, path, repo_type="dataset", revision=revision, local_files_only=True
        )
        return Path(cached)
    except LocalEntryNotFoundError:
        pass

    try:
        return Path(
            hf_hub_download(
                repo,
                path,
                repo_type="dataset",
                revision=revision,
            )
        )
    except Exception as error:
        command = f"hf download {repo} {path} --repo-type dataset"
        if revision:
            command += f" --revision {revision}"
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"{name}: not in the local cache and not available ({why}); "
            f"where there is network: {command}"
        ) from None
