"""What the server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class Metrics:
    """One server's counts; a registry of its own, so that two servers do not meet."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests that were answered", "path", "status")
        self.read = self._counter("prompt_tokens", "Tokens of prompts", "model")
        self.made = self._counter("generation_tokens", "Tokens that were sampled", "model")
        self.gone = self._counter("clients_gone", "Clients that left before their answer ended")
        self.open = Gauge(
            "linn_open_replies",
            "Replies that are being written or wait",
            registry=self._registry,
        )
        self.loaded = Gauge("linn_loaded_models", "Models in memory", registry=self._registry)
        self.first = self._histogram("first_token_seconds", "Until a stream's first token")
        self.whole = self._histogram("answer_seconds", "Until the end of an answer")

    def text(self) -> bytes:
        """All counts in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"linn_{name}", meaning, labels, registry=self._registry)

    def _histogram(self, name: str, meaning: str) -> Histogram:
        return Histogram(f"linn_{name}", meaning, registry=self._registry, buckets=_SECONDS)
