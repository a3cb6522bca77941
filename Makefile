# Two commands do everything on a fresh machine:
#   make demo    train on the embedded notes, a few minutes on two cores, and print what the model writes
#   make test    all tests
# Each makes its own virtual environment in .venv first. PYTHON=python3.12 chooses another Python (3.11 or newer).

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test bench lint clean

demo: $(VENV)/.run
	$(BIN)/python train.py --config configs/demo.yaml --overwrite
	$(BIN)/python sample.py runs/demo --num-samples 3 --max-new-tokens 200 --top-p 0.9
	@echo
	@echo "The picture: open runs/demo/report.html. More text: $(BIN)/python sample.py runs/demo --prompt '主诉：'"

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2

bench: $(VENV)/.test
	$(BIN)/python bench/train_step.py
	$(BIN)/python bench/import_time.py

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

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
