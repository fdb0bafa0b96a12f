"""An engine without a model: its policy is a scripted sampler, which training never changes."""

from linn.errors import RunFailed


class StillEngine:
    """Notes the batches that it was trained on; saves a step's number in place of weights."""

    def __init__(self, sampler, width: int = 64) -> None:
        self.sampler = sampler
        self.width = width
        self.trainer = self
        self.batches: list[list] = []
        """The samples of every optimiser step."""
        self.fails_at: int | None = None
        """The optimiser step, counted from 0, that raises."""
        self.error: BaseException = RunFailed("the loss is not finite")

    def step(self, samples, loss, lr) -> dict[str, float]:
        if len(self.batches) == self.fails_at:
            raise self.error
        self.batches.append(list(samples))
        return {}

    def load(self, folder, optim) -> None:
        pass

    def save(self, folder) -> None:
        folder.mkdir(parents=True)
        (folder / "weights").write_text(str(len(self.batches)))

    def restore(self, folder) -> None:
        assert (folder / "weights").exists()

    def export(self, folder) -> None:
        for name in ("config.json", "model.safetensors"):
            (folder / name).write_text("{}")

    def score(self, folder, sequences, temperature=1.0) -> list[list[float]]:
        return [[0.0] * len(ids) for ids in sequences]

    def cpu_seconds(self) -> float:
        return 0.0
