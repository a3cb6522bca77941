# Two commands do everything on a fresh machine:
#   make demo    train on the embedded notes, tune an adapter, merge it, verify; six minutes, and what it writes
#   make test    all tests
# Each makes its own virtual environment in .venv first. PYTHON=python3.12 chooses another Python (3.11 or newer).

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo merge-check test bench mutants faults lint clean

demo: $(VENV)/.run
	$(BIN)/python train.py --config configs/demo.yaml --overwrite
	@echo
	@echo "--- The model has never seen a radiology report: this is how it goes on with the beginning of one."
	$(BIN)/python sample.py runs/demo --prompt "Examination:" --echo --max-new-tokens 120 --top-p 0.9
	@echo
	@echo "--- Teach it that kind of note by an adapter; its own weights stay as they are."
	$(BIN)/python train.py --config configs/demo-lora.yaml --overwrite
	@echo
	@echo "--- Put the adapter into the weights, and check that the result is base + adapter, every element of it."
	rm -rf runs/demo-merged
	$(BIN)/python -m lora merge runs/demo runs/demo-radiology runs/demo-merged
	$(BIN)/python -m lora verify runs/demo runs/demo-radiology runs/demo-merged --policy exact
	@echo
	@echo "--- The same beginning, with the adapter."
	$(BIN)/python sample.py runs/demo --adapter runs/demo-radiology --prompt "Examination:" --echo --max-new-tokens 120 --top-p 0.9
	@echo
	@echo "The pictures: open runs/demo/report.html and runs/demo-radiology/report.html."
	@echo "More text: $(BIN)/python sample.py runs/demo --prompt '主诉：'"

# Whether a merged checkpoint is base + adapter, as a CI job would ask: a minute of the demo.
merge-check: $(VENV)/.run
	$(BIN)/python train.py --config configs/demo.yaml --minutes 0.2 --out runs/check --overwrite --sample-every 0
	$(BIN)/python train.py --config configs/demo-lora.yaml --minutes 0.1 --init runs/check --out runs/check-lora --overwrite
	rm -rf runs/check-merged
	$(BIN)/python -m lora merge runs/check runs/check-lora runs/check-merged
	$(BIN)/python -m lora verify runs/check runs/check-lora runs/check-merged --policy exact
	! $(BIN)/python -m lora verify runs/check runs/check-lora runs/check --quiet

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2

bench: $(VENV)/.test
	$(BIN)/python -m bench all

# How many changes of the core do its tests notice?  Forty minutes; N=5 draws fewer.
N ?= 40
mutants: $(VENV)/.test
	$(BIN)/python -m tests.mutants --draw $(N)

# Damaged files, kill -9, full disks: some ten thousand; writes docs/reliability.md. Ten minutes.
faults: $(VENV)/.test
	$(BIN)/python -m tests.faults

lint: $(VENV)/.lint $(VENV)/.run
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A stamp file says what is installed; editing the versions installs again.
$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (once; PyTorch is the large part)"
	$(PIP) --editable .
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (once; PyTorch is the large part)"
	$(PIP) --editable '.[test]'
	@touch $@ $(VENV)/.run

$(VENV)/.lint: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[lint]'
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; found $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
