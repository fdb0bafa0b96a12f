"""lm-eval's two OpenAI paths: log-likelihoods of given answers, and generation in a chat."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import lm_eval
import yaml
from lm_eval.tasks import TaskManager

from linn.checkpoints import resolve

_ROWS = ({"question": "What is 3 + 4?", "answer": 0}, {"question": "What is 4 + 4?", "answer": 1})
_CHOICE = {
    "task": "linn_choice",
    "output_type": "multiple_choice",
    "doc_to_choice": ["7", "8"],
}
_GENERATION = {
    "task": "linn_generation",
    "output_type": "generate_until",
    "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 24, "temperature": 0.0},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


def talk(url: str, model: str) -> None:
    """Two sums by both paths."""
    print("lm-eval", lm_eval.__version__)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = folder / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in _ROWS))
        for task in (_CHOICE, _GENERATION):
            path = folder / f"{task['task']}.yaml"
            path.write_text(yaml.safe_dump(_task(task, rows)))
        manager = TaskManager(include_path=str(folder), include_defaults=False)

        # Its log-likelihoods need the tokenizer: how long the question is, in tokens.
        how: dict[str, Any] = {"model": model, "base_url": f"{url}/completions"}
        how |= {"tokenizer": str(resolve(model)), "tokenizer_backend": "huggingface"}
        _evaluate("local-completions", how, _CHOICE["task"], manager, chat=False)
        how = {"model": model, "base_url": f"{url}/chat/completions"}
        _evaluate("local-chat-completions", how, _GENERATION["task"], manager, chat=True)


def _task(task: dict[str, Any], rows: Path) -> dict[str, Any]:
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(rows)}}}
    texts = {"doc_to_text": "{{question}}", "doc_to_target": "{{answer}}"}
    return {**data, "test_split": "test", **texts, **task}


def _evaluate(path: str, how: dict[str, Any], task: Any, manager: Any, chat: bool) -> None:
    found = lm_eval.simple_evaluate(
        path, how, tasks=[task], task_manager=manager, apply_chat_template=chat, verbosity="ERROR"
    )
    scores = found["results"][task].items()
    told = [f"{name} {value:g}" for name, value in scores if "," in name]
    print(f"{path}: {'; '.join(told)}")
