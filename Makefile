# Two commands do all the set-up: `make demo` runs the companion on its built-in default, `make test` passes the tests.
# Each target installs what it needs into .venv and does nothing that is already done.
# Every file that pip fetches is held to its hash in requirements.lock (tools/lock.py: pip install --require-hashes).
# TORCH=cpu or TORCH=cuda chooses torch's build on Linux (else: CUDA where an NVIDIA card is); TORCH_INDEX=URL names
# an index that has CPU builds. Both count in a fresh .venv.

VENV   ?= .venv
BIN    := $(VENV)/bin
# The first of these that is a Python from 3.11 to 3.13; override with `make PYTHON=/path/to/python demo`.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
READY  := $(VENV)/.ready
TOOLS  := $(VENV)/.ready-tools
CODE   := vwsdlib polclip vwsd_standins vwsd_companion
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test lint types paper rehearsal refresh bench lab reference newcomer tools lock clean help

help:
	@echo 'make demo       run the companion on EmojiWSD with the lite encoder (no GPU, no model hub)'
	@echo 'make test       run all tests'
	@echo 'make lint       ruff check, ruff format --check, and pyright on the four packages'
	@echo 'make types      pyright alone'
	@echo 'make paper      run what can run here of the papers'"'"' profile (real checkpoints, official data; see README)'
	@echo 'make rehearsal  run the papers'"'"' profile on tiny random checkpoints and generated pictures (no download)'
	@echo 'make refresh    put the last run of the demo in the place of the reference, results/demo, where it reproduces it'
	@echo 'make bench      measure: the plain loop and this library in turns, shares of the machine'"'"'s peak, growth (see benchmarks/)'
	@echo 'make reference  write docs/reference/index.html: every module, class and function, from the docstrings'
	@echo 'make newcomer   walk through the README as a newcomer would, in a fresh clone, and print how long each step takes'
	@echo 'make lab        open the explorer, and with it the notebooks, in JupyterLab'
	@echo 'make tools      install what make test, lint, bench and reference add, and do nothing else'
	@echo 'make lock       make requirements.lock and requirements-dev.lock from pyproject.toml, hashes included'
	@echo 'make clean      remove .venv, caches and built data (runs and results stay)'

demo: $(READY)
	@$(BIN)/vwsd run --profile demo

test: $(TOOLS)
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: $(TOOLS)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(PYRIGHT)

types: $(TOOLS)
	@$(PYRIGHT)

# pyright runs on node; where there is none, on the one that playwright brings
PYRIGHT = PATH="$$PATH:$$($(BIN)/python -c 'import playwright; print(playwright.__path__[0])')/driver" \
	$(BIN)/pyright --pythonpath $(BIN)/python

paper: $(READY)
	@$(BIN)/vwsd run --profile paper

rehearsal: $(READY)
	@$(BIN)/vwsd run --profile rehearsal

refresh: $(READY)
	@$(BIN)/vwsd refresh --profile demo

bench: $(TOOLS)
	@$(BIN)/python -m benchmarks

# 200 MB of own pictures may go to the explorer at once, not the server's 10
lab: $(READY)
	@$(BIN)/jupyter lab notebooks/explore.ipynb --ServerApp.tornado_settings="{'websocket_max_message_size': 209715200}"

# the warnings: pdoc does not find the names in some annotations; the page has them as they are written
reference: $(TOOLS)
	@PYTHONWARNINGS='ignore:Error parsing type annotation,ignore:Failed to run TYPE_CHECKING code' $(BIN)/pdoc --docformat markdown --no-show-source --output-directory docs/reference $(CODE)
	@echo docs/reference/index.html

newcomer:
	@$(PYTHON) tests/newcomer.py

lock: $(TOOLS)
	@$(BIN)/python tools/lock.py make $(if $(TORCH_INDEX),--torch-index '$(TORCH_INDEX)')

tools: $(TOOLS)

clean:
	rm -rf $(VENV) .cache data/emojiwsd .pytest_cache build *.egg-info test-artefacts docs/reference

$(READY): requirements.lock pyproject.toml
	@test -n '$(PYTHON)' || { echo 'No Python from 3.11 to 3.13 found. Install one, or name it: make PYTHON=/path/to/python $(MAKECMDGOALS)'; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo 'Python could not make a virtual environment. On Debian or Ubuntu: apt install python3-venv'; exit 1; }
	@echo 'Installing what requirements.lock lists into $(VENV) (about two minutes) ...'
	@$(BIN)/python tools/lock.py install $(if $(TORCH),--torch '$(TORCH)') $(if $(TORCH_INDEX),--torch-index '$(TORCH_INDEX)')
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(TOOLS): $(READY) requirements-dev.lock
	@echo 'Installing what requirements-dev.lock adds ...'
	@$(BIN)/python tools/lock.py install --dev
	@touch $@
