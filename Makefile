# Set-up is one virtual environment; the stamp makes a second call install nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: compare test test-all lint docs clean

# The main job: conformance of VGG-11 on every backend, then a short training on each from the same start.
compare: $(STAMP)
	$(BIN)/triptych compare

test: $(STAMP) lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile
	$(BIN)/python -m pytest -q tests/standin

# Also the jobs with environments of their own: no framework at all, today's JAX alone, the real torch_npu.
test-all: export TRIPTYCH_TEST_ALL := 1
test-all: test
	bash tests/environments/run

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The porting guide and these pages as a site that needs no network; a warning is an error.
docs: $(STAMP)
	$(BIN)/sphinx-build -W --keep-going --quiet -b html docs docs/_build/html
	@echo docs/_build/html/index.html

$(STAMP): pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[torch,jax,tfds,tensorboard,dev,docs]' graphviz requests
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps mxnet
	touch $@

clean:
	rm -rf $(VENV)
