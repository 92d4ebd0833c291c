# The two commands of a fresh machine are `make demo` and `make test`; both set everything up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A machine with an NVIDIA GPU gets vLLM itself, any other one its CPU build.
STACK ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo cuda || echo cpu)
INSTALLED := $(VENV)/.installed-$(STACK)

.PHONY: demo test test-slow test-gpu lint doctor install train-mini clean

demo: $(INSTALLED)
	$(BIN)/moltc demo

# Two processes: much of a test's time is one core's. A file's tests stay together (tests/conftest.py).
test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

test-gpu: $(INSTALLED)
	$(BIN)/python -m pytest -m gpu

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The shipped model from MOLTC_DATA, in hours; `make train-mini SMOKE=1` is a rehearsal of minutes.
MOLTC_DATA ?= $(wildcard ../shared/data)
train-mini: $(INSTALLED)
	MOLTC_DATA="$(MOLTC_DATA)" $(BIN)/python -m moltc_vllm.train.mini $(if $(SMOKE),--smoke --out runs/smoke)

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
	rm -rf $(VENV) demo
