"""TRL's side: its own trainers, with what is slow on a CPU switched off.

Bfloat16 and gradient checkpointing are TRL's defaults and cost time here; logs, states and reports
cost time everywhere. A trainer's `train` runs once: a callback hands the turns over between steps.
"""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, TrainerCallback
from trl import (
    DistillationConfig,
    DistillationTrainer,
    GRPOConfig,
    GRPOTrainer,
    SFTConfig,
    SFTTrainer,
)

from bench.peers import workload
from bench.peers.turns import Turns

STEPS = 10_000
"""More than anybody waits for."""


class _InTurn(TrainerCallback):
    """Steps on the parent's word. A turn is from the end of a step to that of the next."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.tokens = 0
        """Trained in the step that runs."""
        self.more: dict[str, Any] = {}
        """What else there is to tell."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.turns.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.turns.end(self.tokens, **self.more)
        self.turns.begin()


def _common(output: str, batch: int, micro: int) -> dict[str, Any]:
    """Arguments of all three trainers; micro: of a batch's samples, those computed together."""
    return {
        "output_dir": output,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": batch // micro,
        "max_steps": STEPS,
        "learning_rate": workload.LR,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "adam_beta2": 0.95,
        "max_grad_norm": 1.0,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _sampling(task: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the two trainers that sample."""
    lengths = workload.LENGTHS[task["lengths"]]
    generation: dict[str, Any] = {}
    if lengths.stops:
        generation["eos_token_id"] = list(lengths.stops)
    else:
        # TRL adds the tokenizer's own end to what stops a reply.
        generation["min_new_tokens"] = lengths.most
    return {
        "max_completion_length": lengths.most,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "generation_kwargs": generation,
        "log_completions": False,
    }


def _model(folder: Path, task: dict[str, Any]) -> PreTrainedModel:
    attention = task["setting"].get("attention", "sdpa")
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype="float32", attn_implementation=attention
    )


def grpo(task: dict[str, Any], turns: Turns) -> None:
    """GRPOTrainer: no reference model, one update per batch."""
    groups = workload.GROUPS["grpo"]
    folder, setting = Path(task["folder"]), task["setting"]
    callback = _InTurn(turns)

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        # Every other reply of a group earns 1, so that all of them train.
        callback.tokens = sum(len(ids) for ids in completion_ids)
        return [float(number % 2) for number in range(len(completion_ids))]

    cache = setting.get("cache")
    with tempfile.TemporaryDirectory() as output:
        config = GRPOConfig(
            **_common(output, groups.replies, setting.get("micro", groups.replies)),
            **_sampling(task),
            num_generations=groups.siblings,
            cache_implementation=cache if cache == "static" else None,
            use_transformers_continuous_batching=cache == "continuous",
            beta=0.0,  # no reference model, as linn's GRPO without `kl`
            loss_type="dapo",
        )
        trainer = GRPOTrainer(
            model=_model(folder, task),
            reward_funcs=reward,
            args=config,
            train_dataset=_dataset(workload.prompts_of(groups)),
            processing_class=AutoTokenizer.from_pretrained(folder),
            callbacks=[callback],
        )
        trainer.train()


def mopd(task: dict[str, Any], turns: Turns) -> None:
    """DistillationTrainer: the student's own replies, reverse KL to one teacher."""
    groups = workload.GROUPS["mopd"]
    folder, setting = Path(task["folder"]), task["setting"]
    callback = _InTurn(turns)
    # It counts no tokens for anybody outside; only fixed lengths are compared.
    callback.tokens = groups.replies * workload.LENGTHS["fixed"].most
    repeated = [ids for ids in workload.prompts_of(groups) for _ in range(groups.siblings)]
    with tempfile.TemporaryDirectory() as output:
        config = DistillationConfig(
            **_common(output, groups.replies, setting.get("micro", groups.replies)),
            **_sampling(task),
            cache_implementation=setting.get("cache"),
            beta=1.0,  # reverse KL, MOPD's own; over the whole vocabulary, not the drawn token
        )
        trainer = DistillationTrainer(
            model=_model(folder, task),
            teacher_model=_model(folder / workload.TEACHER, task),
            args=config,
            train_dataset=_dataset(repeated),
            processing_class=AutoTokenizer.from_pretrained(folder),
            callbacks=[callback],
        )
        trainer.train()


def sft(task: dict[str, Any], turns: Turns) -> None:
    """SFTTrainer over rows that it packs."""
    rows = workload.rows_of_text()
    setting = task["setting"]
    callback = _InTurn(turns)
    callback.tokens = workload.trained_tokens(rows)
    with tempfile.TemporaryDirectory() as output:
        # A step is an epoch: how many packed rows that is, TRL knows once it has packed them.
        # So it packs twice; the first trainer is for its count alone.
        packed = _sft_trainer(task, rows, output, batch=1, micro=1)
        batch = len(packed.train_dataset)
        micro = setting.get("micro", 1)
        trainer = _sft_trainer(task, rows, output, batch, batch if micro == "all" else micro)
        # Rows that saw each other would be other work.
        callback.more["log-probs off by"] = _off_by(trainer)
        trainer.add_callback(callback)
        trainer.train()


def _sft_trainer(
    task: dict[str, Any], rows: list[list[int]], output: str, batch: int, micro: int
) -> SFTTrainer:
    folder = Path(task["folder"])
    config = SFTConfig(
        **_common(output, batch, micro),
        max_length=workload.WIDTH,
        packing=True,
        packing_strategy=task["setting"].get("strategy", "bfd"),
    )
    return SFTTrainer(
        model=_model(folder, task),
        args=config,
        train_dataset=Dataset.from_dict({"input_ids": rows}),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )


@torch.no_grad()
def _off_by(trainer: SFTTrainer) -> float:
    """The most by which a log-prob in TRL's first packed row is not that of its own row alone."""
    model = trainer.model
    packed = trainer.data_collator([trainer.train_dataset[0]])
    packed.pop("labels")
    ids = packed["input_ids"][0]
    together = model(**packed).logits[0]

    starts = (packed["position_ids"][0] == 0).nonzero().flatten().tolist()
    worst = 0.0
    for start, end in pairwise([*starts, len(ids)]):
        alone = model(input_ids=ids[None, start:end]).logits[0]
        gaps = _logprobs(together[start:end], ids[start:end]) - _logprobs(alone, ids[start:end])
        worst = max(worst, float(gaps.abs().max()))
    return worst


def _logprobs(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Of each token but the first."""
    return logits[:-1].log_softmax(-1).gather(-1, ids[1:, None])


def _dataset(prompts: list[list[int]]) -> Dataset:
    return Dataset.from_dict({"prompt": [workload.text_of(ids) for ids in prompts]})
