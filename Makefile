# Set-up is one virtual environment; the stamp makes a second call install nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: compare check test test-all install lint docs gpu gpu-wheels clean

# The main job: conformance of VGG-11 on every backend, then a short training on each from the same start.
compare: $(STAMP)
	$(BIN)/triptych compare

# The quick tier: the units are all tests that need no framework, so they run with none to be seen.
check: $(STAMP) lint
	TRIPTYCH_TEST_WITHOUT=torch,mxnet,jax,flax,optax $(BIN)/python -m pytest -q -n 2

# JAX's compilation cache was tried for these: from an empty cache, as on every fresh clone, it saves 2 to 5 % of the
# processor's time; from a full one a third of what trains and nothing of what conforms. Not worth another way to be wrong.
test: $(STAMP) lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile
	$(BIN)/python -m pytest -q tests/standin

# Also the jobs with environments of their own: other versions, other Pythons, no framework at all, the real torch_npu.
test-all: export TRIPTYCH_TEST_ALL := 1
test-all: test
	bash tests/environments/run

install: $(STAMP)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The porting guide and these pages as a site that needs no network; a warning is an error.
docs: $(STAMP)
	$(BIN)/sphinx-build -W --keep-going --quiet -b html docs docs/_build/html
	@echo docs/_build/html/index.html

# On a machine with a GPU whose Python has the frameworks already; where it has no network, `make gpu-wheels` before,
# elsewhere. What is done is in gpu-results/result.json and is not done again.
gpu:
	PYTHONPATH=common:backends $(PYTHON) benchmarks/gpu.py --out gpu-results

gpu-wheels: $(STAMP)
	$(BIN)/python -m pip download --quiet --only-binary=:all: --python-version 3.12 --no-deps -d benchmarks/wheels safetensors pillow scipy optax jinja2 markupsafe chex absl-py toolz attrs cyclopts rich rich-rst docutils docstring-parser pygments markdown-it-py mdurl

$(STAMP): pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[torch,jax,tfds,tensorboard,onnx,keras,sign,dev,docs]' graphviz requests
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps mxnet
	touch $@

clean:
	rm -rf $(VENV)
