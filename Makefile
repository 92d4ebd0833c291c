# The two commands for a fresh machine are `make demo` and `make test`; each installs what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# vLLM itself where there is an NVIDIA driver, its CPU build elsewhere.
STACK ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo cuda || echo cpu)
INSTALLED := $(VENV)/.installed-$(STACK)

.PHONY: demo test test-fast test-slow test-gpu lint docs doctor install train-mini clean

demo: $(INSTALLED)
	$(BIN)/moltc demo

# Two processes, because much of a test's time is spent on one core. The tests of a file stay
# together (tests/conftest.py).
test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder

# Tests without the marker `heavy`, which tests/conftest.py sets.
test-fast: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder -m "not slow and not gpu and not heavy"

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

test-gpu: $(INSTALLED)
	$(BIN)/python -m pytest -m gpu

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Fails on any warning, e.g. a broken link; the pages are in build/docs.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict --quiet

# The shipped model from the data in MOLTC_DATA, in hours; SMOKE=1 is a rehearsal of minutes, and
# DEVICE=cpu or DEVICE=cuda chooses the device. MiniMol's embeddings are calculated once.
DEVICE ?= auto
MOLTC_DATA ?= $(wildcard ../shared/data)
train-mini: $(INSTALLED)
	$(if $(SMOKE),,$(BIN)/pip install --quiet --disable-pip-version-check -e '.[$(STACK),dev,distill]')
	MOLTC_DATA="$(MOLTC_DATA)" $(BIN)/python -m moltc_vllm.train.mini --device $(DEVICE) $(if $(SMOKE),--smoke --out runs/smoke)

doctor: $(INSTALLED)
	$(BIN)/moltc doctor

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[$(STACK),dev]'
# Wheels of these three that do not fit the CPU build of torch fail at import; vLLM runs without.
	for name in torchvision torchaudio torchcodec; do \
	  $(BIN)/python -c "import $$name" >/dev/null 2>&1 \
	    || $(BIN)/pip uninstall --quiet --yes --disable-pip-version-check $$name; \
	done
	touch $@

clean:
	rm -rf $(VENV) build demo
