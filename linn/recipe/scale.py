"""The `scale` block: what a recipe runs on, from a laptop to a cluster."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from linn.recipe.base import Config

CACHE_SHARE = 4
"""The default of `cache` on a GPU: one part in so many of its memory."""
CACHE_SHARE_CPU = 8
"""On CPUs: all processes together, of the machine's memory."""
CACHE_LEAST = 192 << 20
"""There, of each process."""
MEMORY, MEMORY_COLOCATED = 0.9, 0.5
"""The defaults of `samplers.memory`: of a GPU of its own, and of one that trainers rest on."""
VLLM_ARGUMENTS = {
    "dtype",
    "enable_chunked_prefill",
    "enable_prefix_caching",
    "enable_sleep_mode",
    "generation_config",
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "logprobs_mode",
    "max_num_seqs",
    "model",
    "seed",
    "skip_tokenizer_init",
    "tensor_parallel_size",
    "tokenizer",
    "worker_extension_cls",
}
"""Arguments of vLLM that linn sets."""


class TrainersConfig(Config):
    """The trainer ranks of a cluster, which hold the policy in shards."""

    ranks: int = Field(
        1, ge=1, le=65536, description="processes, each with one GPU or one CPU thread"
    )
    experts: int = Field(
        1,
        ge=1,
        description="ranks that hold the routed experts of a layer together: each gathers its "
        "part of them, and tokens go to where theirs are; divides ranks and the number of experts",
    )
    context: int = Field(
        1,
        ge=1,
        description="ranks that compute a row together, a piece each: for rows longer than one "
        "GPU holds; divides ranks, at most the number of attention heads (docs/cluster.md)",
    )
    moments: Literal["device", "host"] = Field(
        "device",
        description="host: AdamW's moments, 8 bytes a parameter, wait in the host's memory between "
        "steps; the same numbers, and on CPUs no difference. The local engine's GPU has this key "
        "too",
    )
    sum: Literal["micro_batch", "step"] = Field(
        "micro_batch",
        description="when ranks sum their gradients: after every micro-batch, or once a step, for "
        "which every rank holds a whole gradient; `step` has the bits of the local engine",
    )

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        for key in ("experts", "context"):
            together = getattr(self, key)
            if self.ranks % together:
                some = [n for n in range(1, self.ranks + 1) if self.ranks % n == 0]
                raise ValueError(
                    f"{key}: {together} does not divide ranks: {self.ranks}; take one of "
                    f"{', '.join(map(str, some))}, or another number of ranks"
                )
        return self


class SamplersConfig(Config):
    """The samplers of a cluster, which hold whole copies of the policy."""

    engine: Literal["linn", "vllm"] = Field(
        "linn", description="linn's own batched sampler, or vLLM (the extra linn[vllm])"
    )
    replicas: int = Field(1, ge=1, description="copies of the policy, each with its own processes")
    tensor: int = Field(
        1, ge=1, description="GPUs of one replica (tensor parallel); vllm alone takes more than one"
    )
    colocated: bool = Field(
        False,
        description="samplers and trainers take turns on the same GPUs: samplers sleep while the "
        "trainers compute, trainers free all but weights and moments while the samplers do. "
        "Sampler 0 has the GPUs of the first `tensor` ranks, and so on; Ray puts these on one "
        "machine",
    )
    memory: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of a GPU's whole memory that vllm takes for one replica; default 0.9, "
        "where colocated 0.5, since the trainers' weights and moments stay there",
    )
    deadline_s: float = Field(
        7200.0,
        gt=0,
        description="seconds after which a replica that has not answered its share of a batch is "
        "ended, and another one does the share again; one that died is seen at once",
    )

    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="further arguments of vLLM's engine, by its own names: {enforce_eager: true} "
        "starts in seconds and decodes slower; what linn sets itself is refused",
    )

    @property
    def memory_share(self) -> float:
        """`memory`, or its default."""
        if self.memory is not None:
            return self.memory
        return MEMORY_COLOCATED if self.colocated else MEMORY

    @property
    def devices(self) -> int:
        """GPUs or CPU threads that all replicas take."""
        return self.replicas * self.tensor

    @model_validator(mode="before")
    @classmethod
    def _read_default(cls, tree: Any) -> Any:
        # Run folders that are older than `colocated` have the default written out.
        if isinstance(tree, dict) and tree.get("memory") == MEMORY and not tree.get("colocated"):
            return {key: value for key, value in tree.items() if key != "memory"}
        return tree

    @model_validator(mode="after")
    def _check_tensor(self) -> Self:
        if self.tensor > 1 and self.engine != "vllm":
            raise ValueError(
                f"tensor: {self.tensor} needs engine: vllm, linn's own sampler takes one GPU"
            )
        return self

    @model_validator(mode="after")
    def _check_arguments(self) -> Self:
        if self.arguments and self.engine != "vllm":
            raise ValueError("arguments: they are vLLM's, and need engine: vllm")
        if own := sorted(VLLM_ARGUMENTS & self.arguments.keys()):
            raise ValueError(
                f"arguments: linn sets {', '.join(own)} itself, so that samplers and trainers "
                "agree (tensor, memory, capacity, precision and cache are keys of scale)"
            )
        return self


class ScaleConfig(Config):
    """The whole difference between a laptop and a cluster."""

    engine: Literal["local", "cluster"] = Field(
        "local",
        description="local: whole copies in processes of one thread each; cluster: trainer ranks "
        "over shards (FSDP2), and samplers (docs/cluster.md)",
    )
    processes: int = Field(
        2,
        ge=1,
        description="of the local engine on a CPU: worker processes of one thread each; rollouts "
        "and training are spread over them",
    )
    places: Literal["local", "ray"] = Field(
        "local",
        description="of a cluster: processes of this machine, or placed by Ray (its address from "
        "RAY_ADDRESS)",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="auto takes this machine's GPU where it has one (an NVIDIA card, or AMD's by "
        "ROCm); the local engine computes on one, in one process. Of a cluster: where there are as "
        "many as it asks for; under Ray, whose other machines auto does not see, say cuda",
    )
    trainers: TrainersConfig = Field(
        default_factory=lambda: TrainersConfig(), description="of a cluster: the trainer ranks"
    )
    samplers: SamplersConfig = Field(
        default_factory=lambda: SamplersConfig(), description="of a cluster: the samplers"
    )
    carrier: Literal["folder", "broadcast"] = Field(
        "folder",
        description="of a cluster: how weights go to the samplers after a step. folder: by files "
        "in `exchange`; broadcast: from the first trainer rank to all samplers at once, by NCCL "
        "between GPUs (docs/cluster.md). The same weights; for models whose files take long, and "
        "not where samplers are colocated",
    )
    exchange: str | None = Field(
        None,
        description="of a cluster: a folder that all its machines see, for weights on their way "
        "to the samplers; default: among the machine's temporary files",
    )
    restarts: int = Field(
        3,
        ge=0,
        description="of a cluster: times in a stage that a lost engine starts again from the last "
        "saved state before the run fails",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="bfloat16: matrix products in bf16 over float32 weights; on a CPU those of "
        "training alone, so sampler and trainer differ and max_mismatch has another default",
    )
    width: int = Field(1024, ge=16, description="tokens in a packed row")
    recompute: bool = Field(
        False,
        description="layer checkpointing: of each layer's activations only its inputs are kept, "
        "the rest is computed again in the backward pass; the same numbers in less memory, and "
        "about a fifth more time (docs/memory.md)",
    )
    share_prompts: bool = Field(
        True,
        description="siblings' prompts are computed once, in training and under teachers and "
        "references, where that saves a quarter of a group's tokens or more; the same numbers up "
        "to rounding (1e-5 in a log-prob), in less time (docs/benchmarks.md). Not where "
        "trainers.context cuts rows",
    )
    capacity: int = Field(
        256, ge=1, description="conversations that one process or replica decodes at once"
    )
    cache: int | None = Field(
        None,
        ge=1,
        description="MiB that keys, values and states of these conversations may take where all "
        "come to their last token: of long ones fewer are decoded at once, one at least. Default: "
        "on CPUs an eighth of the machine's memory for all processes, 192 each at least; a quarter "
        "of a GPU's. vLLM takes as much on a CPU; on a GPU it has a limit of its own "
        "(samplers.memory)",
    )

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        if self.engine == "cluster":
            self._check_processes()
            self._check_colocated()
            return self
        # A run folder's recipe has every key, with its default.
        plain = ScaleConfig(engine="cluster")
        for key in _CLUSTER:
            value = getattr(self, key)
            if key == "trainers":  # a GPU of the local engine has a host beside it as well
                value = value.model_copy(update={"moments": plain.trainers.moments})
            if value != getattr(plain, key):
                raise ValueError(f"{key}: only a cluster has it; set engine: cluster, or leave it")
        return self

    def _check_processes(self) -> None:
        # Written out in every run folder's recipe, so the default says nothing.
        if self.processes != type(self).model_fields["processes"].default:
            raise ValueError(
                f"processes: {self.processes} is for the local engine; a cluster has "
                "trainers.ranks and samplers.replicas: set these, and leave it out"
            )

    def _check_colocated(self) -> None:
        samplers, ranks = self.samplers, self.trainers.ranks
        if not samplers.colocated:
            return
        if self.carrier == "broadcast":
            raise ValueError(
                "carrier: broadcast needs trainers and samplers on GPUs of their own, and with "
                "samplers.colocated they share them; set carrier: folder (an `exchange` in "
                "/dev/shm is memory), or colocated: false"
            )
        if samplers.devices > ranks:
            raise ValueError(
                f"samplers.colocated: {samplers.replicas} replicas of {samplers.tensor} take "
                f"{samplers.devices} GPUs, and trainers.ranks: {ranks} has {ranks}; lower replicas "
                "or tensor, or take more ranks"
            )

    @property
    def shares_prompts(self) -> bool:
        """Whether siblings share their prompt: not where a row is cut, and they may lie apart."""
        is_cut = self.engine == "cluster" and self.trainers.context > 1
        return self.share_prompts and not is_cut

    @property
    def local_processes(self) -> int:
        """Of the local engine: a GPU has one. What `auto` finds is not known here."""
        return 1 if self.device == "cuda" else self.processes

    def cache_bytes(self, memory: float, on_gpu: bool) -> int:
        """What `cache` allows a process; memory: bytes of its GPU, or of the machine."""
        if self.cache is not None:
            return self.cache << 20
        # Of all memory and not of what is free now: equal runs decode equal batches.
        if on_gpu:
            return int(memory / CACHE_SHARE)
        return max(CACHE_LEAST, int(memory / CACHE_SHARE_CPU / self.devices))

    @property
    def training_processes(self) -> int:
        """Processes that a batch is dealt to."""
        if self.engine == "local":
            return self.local_processes
        return self.trainers.ranks // self.trainers.context

    @property
    def sampling_processes(self) -> int:
        """Processes or replicas that conversations are dealt to."""
        return self.local_processes if self.engine == "local" else self.samplers.replicas

    @property
    def devices(self) -> int:
        """GPUs or CPU threads in all."""
        if self.engine == "local":
            return self.local_processes
        apart = 0 if self.samplers.colocated else self.samplers.devices
        return self.trainers.ranks + apart


_CLUSTER = ("places", "trainers", "samplers", "carrier", "exchange", "restarts")
"""Keys that the local engine has no use for."""
