# Each command makes its own environment in .venv, from the versions pinned in constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: demo test test-slow lint lock clean

demo: $(VENV)/.installed
	$(BIN)/attnviz generate "a dog barks, then rain falls" --seed 0 --out runs/demo --overwrite
	@echo
	@echo "Listen to runs/demo/audio.wav; look at runs/demo/words.png: when and where each word was attended to."

test: $(VENV)/.installed lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal -m "not slow"

# Whole studies on tiny checkpoints, interrupts at every line, notebooks, a whole README, and longer repetitions of fast tests.
test-slow: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal -m slow

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Refreshes the one lock, constraints.txt: the newest versions, installed together, of all that pyproject.toml names.
lock:
	$(PYTHON) -m venv --clear $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet torch
	$(VENV)-lock/bin/python -m pip install --quiet --editable ".[all]"
	head -n 1 constraints.txt > constraints.new
	$(VENV)-lock/bin/python -m pip freeze --exclude-editable | grep -v '^nvidia-\|^cuda-\|^triton==' | sed 's/+[a-z0-9.]*$$//' >> constraints.new
	mv constraints.new constraints.txt
	rm -rf $(VENV)-lock

# torch goes first: a range that another package asks for would bring the newest build instead.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV)
