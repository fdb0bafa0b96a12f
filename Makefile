# make demo: the whole cascade on this machine.  make test: the tests; make test-long: those that CI runs too.
# make check: lint, types, and how the code reads.
# make real: a small cascade on a real pretrained model, under an hour on 2 cores.
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
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache

.PHONY: demo real test test-long gpu-test check clean
