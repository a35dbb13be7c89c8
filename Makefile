PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
PYTHON3_10 ?= python3.10
# One thread for each of the processes that share the tests
PYTEST := -m pytest --quiet --numprocesses auto --maxprocesses 4 --dist loadfile \
	--no-loadscope-reorder

.PHONY: demo test fast-test test-oldest slow-test gpu-benchmark lint types wheel clean

# Segments a rendered street, or your own picture: make demo IMAGE=my.jpg
demo: .venv/installed
	$(BIN)/ccnet predict $(if $(IMAGE),"$(IMAGE)") --save overlay,legend,labels --output demo --overwrite

test: .venv/installed-dev
	$(MAKE) --jobs lint types fast-test

fast-test: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST)

# With the oldest versions that pyproject.toml allows: about 3 GB of downloads
test-oldest: .venv-oldest/installed
	OMP_NUM_THREADS=1 .venv-oldest/bin/python $(PYTEST)

slow-test: .venv/installed-dev
	$(BIN)/python -m pytest --quiet -m slow

# At most six minutes, beside another version: make gpu-benchmark BEFORE=main. The same runs on small
# sizes with DEVICE=cpu.
gpu-benchmark: .venv/installed-dev
	$(BIN)/python scripts/benchmarks/gpu.py --device $(or $(DEVICE),cuda) \
		$(if $(BEFORE),--before "$(BEFORE)")

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	$(BIN)/mypy

wheel: .venv/installed-dev
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable .
	touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable '.[dev]'
	touch $@

.venv-oldest/installed: pyproject.toml constraints-oldest.txt
	$(PYTHON3_10) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --constraint constraints-oldest.txt \
		--editable '.[test]'
	touch $@

clean:
	rm -rf .venv .venv-oldest demo dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
