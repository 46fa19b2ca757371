# Every target makes what it needs: on a fresh machine `make demo` or `make test` is all one types.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Set EXTRAS=postgres,dashboard for the optional parts.
EXTRAS ?= dev
JOBS ?= 2

.PHONY: install demo test lint bench clean

install: $(VENV)/.installed

# pip, not uv: with the constraints file it takes the CPU build of torch where one is offered.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	# Without what it names: FBGEMM for CUDA would take the place of that for the CPU, which dev brings with the rest.
	case ",$(EXTRAS)," in *,dev,*) $(BIN)/python -m pip install --quiet --no-deps "torchrec==1.8.0" ;; esac
	touch $@

demo: install
	$(BIN)/optuna-aes demo

# One thread per test process: two pytest workers that each use every core are slower than one.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,bench]"
	$(BIN)/python -m studies.bench

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
