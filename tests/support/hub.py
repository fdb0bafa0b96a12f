"""A Hub without a network: takes what huggingface_hub's client would send, and no other call."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import huggingface_hub

Real = huggingface_hub.HfApi


class FakeHub:
    """Repositories in memory. `api` stands in for `huggingface_hub.HfApi`.

    Every call is held against the signature of the real method: what that does not take, this
    refuses. `error` is raised by the method named in it.
    """

    def __init__(self, error: tuple[str, Exception] | None = None) -> None:
        self.error = error
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.repositories: dict[tuple[str, str], dict[str, dict[str, bytes]]] = {}
        """(kind, name) -> branch -> file -> content."""
        self.messages: list[str] = []

    def api(self, *arguments: Any, **options: Any) -> FakeHub:
        inspect.signature(Real.__init__).bind(self, *arguments, **options)
        return self

    def create_repo(self, *arguments: Any, **options: Any) -> None:
        call = self._note("create_repo", arguments, options)
        key = (call["repo_type"] or "model", call["repo_id"])
        assert key not in self.repositories or call["exist_ok"]
        self.repositories.setdefault(key, {"main": {".gitattributes": b""}})

    def create_branch(self, *arguments: Any, **options: Any) -> None:
        call = self._note("create_branch", arguments, options)
        branches = self._of(call)
        assert call["branch"] not in branches or call["exist_ok"]
        branches.setdefault(call["branch"], dict(branches["main"]))

    def upload_folder(self, *arguments: Any, **options: Any) -> None:
        call = self._note("upload_folder", arguments, options)
        files = self._of(call)[call["revision"] or "main"]
        for name in list(files):
            if any(Path(name).match(pattern) for pattern in call["delete_patterns"] or []):
                del files[name]
        folder = Path(call["folder_path"])
        for path in folder.rglob("*"):
            if path.is_file():
                files[str(path.relative_to(folder))] = path.read_bytes()
        self.messages.append(call["commit_message"])

    def _of(self, call: dict[str, Any]) -> dict[str, dict[str, bytes]]:
        return self.repositories[call["repo_type"] or "model", call["repo_id"]]

    def _note(self, name: str, arguments: Any, options: Any) -> dict[str, Any]:
        bound = inspect.signature(getattr(Real, name)).bind(self, *arguments, **options)
        bound.apply_defaults()
        call = dict(bound.arguments)
        self.calls.append((name, call))
        if self.error is not None and self.error[0] == name:
            raise self.error[1]
        return call
