# Each command makes its own environment in .venv, from the versions pinned in constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	$(BIN)/python -m attnviz.testing runs/tiny-checkpoint --overwrite
	$(BIN)/attnviz generate "a dog barks, then rain falls" --model runs/tiny-checkpoint --steps 4 --seed 0 \
		--out runs/demo --overwrite
	@echo
	@echo "The demo's checkpoint has random weights: its audio is noise and its maps mean nothing."
	@echo "Look at runs/demo/words.png; then give --model auffusion/auffusion."

test: $(VENV)/.installed lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# torch goes first: a range that another package asks for would bring the newest build instead.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV)
