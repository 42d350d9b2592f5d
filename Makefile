# Linux and macOS. On Windows: py -m venv .venv, then .venv\Scripts\pip install -c constraints.txt -e .[dev]

PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
# -qq: errors only, without pip's remarks on progress and configuration.
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip -qq

# The CPU build of torch spares the large CUDA libraries. It is taken from where pip is set up to look, else from
# PyTorch's own index; where neither has it, the installation that follows brings the default build.
define INSTALL_CPU_TORCH
$(PIP) install --no-deps "torch==$(TORCH)+cpu" 2>/dev/null \
  || $(PIP) install --no-deps --index-url https://download.pytorch.org/whl/cpu "torch==$(TORCH)+cpu" \
  || echo "No CPU build of torch found; installing the default build."
endef

.DEFAULT_GOAL := help
.PHONY: help venv demo demo-clean test test-fast test-slow test-wheel test-lowest ci mutants mutants-coverage bench-ppo bench-reward bench-annotation screenshots lint format clean

help: ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1 \t\2/p' $(MAKEFILE_LIST) | expand -t 22

venv: .venv/.installed ## Install everything into .venv.

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@echo "Installing into .venv; the first time, this takes a few minutes ..."
	@$(PYTHON) -m venv .venv
	@if [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null; then $(INSTALL_CPU_TORCH); fi
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

demo: .venv/.installed ## Run the whole recipe on the toy world; ends with a table and the report's path.
	@$(BIN)/python -m stages.pipeline $(ARGS)

demo-clean: ## Remove what `make demo` made.
	rm -rf runs/toy

# Each worker takes whole files, so that what the tests of a file share is made once, in the order of tests/conftest.py.
# WORKERS=0: all in this process.
SPREAD := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
PYTEST := $(BIN)/python -m pytest $(SPREAD)
FAST := not slow and not gpu and not integration and not browser

test: .venv/.installed ## Run the tests (offline; without those marked slow or gpu).
	@$(PYTEST) $(ARGS)

test-fast: .venv/.installed ## Run nine tenths of them, those that are cheap.
	@$(PYTEST) -m "$(FAST)" $(ARGS)

test-slow: .venv/.installed ## Run the tests marked slow.
	@$(BIN)/python -m pytest -m slow $(ARGS)

# The last TRL with a PPO trainer, for the benchmark alone; a folder of its own keeps it from our version's way.
.venv/bench-trl/trl: .venv/.installed
	@$(PIP) install --no-deps --upgrade --target .venv/bench-trl trl==1.12.0
	@touch $@

bench-ppo: .venv/bench-trl/trl ## Measure PPO against TRL's, with nothing else running (docs/performance.md).
	@$(BIN)/python benchmarks/ppo_speed.py $(ARGS)

bench-reward: .venv/.installed ## Measure the training of a reward model against TRL's, on pairs in ARGS="--data FILE".
	@$(BIN)/python benchmarks/reward_speed.py $(ARGS)

bench-annotation: .venv/.installed ## Measure the annotation app under load: 32 sessions, 30 judgments each.
	@$(BIN)/python benchmarks/annotation_load.py $(ARGS)

screenshots: .venv/.installed ## Make the screenshots in docs/images again.
	@$(BIN)/python benchmarks/annotation_screenshots.py $(ARGS)

test-wheel: .venv/.installed ## Build the wheel, install it into an empty environment and run the smoke recipe from there.
	@$(BIN)/python benchmarks/installed_wheel.py $(ARGS)

# torch is the pinned one: its other builds bring gigabytes of CUDA libraries.
.venv-lowest/.installed: pyproject.toml
	@$(PYTHON) -m venv .venv-lowest
	@.venv-lowest/bin/python -m pip -qq install uv
	@if [ "$$(uname)" = Linux ]; then $(subst $(BIN),.venv-lowest/bin,$(INSTALL_CPU_TORCH)); fi
	@echo "torch==$(TORCH)" > .venv-lowest/torch.txt
	@.venv-lowest/bin/uv pip compile -q --python .venv-lowest/bin/python --resolution lowest-direct --extra dev \
	  --override .venv-lowest/torch.txt --no-emit-package torch --no-emit-package triton pyproject.toml \
	  -o .venv-lowest/compiled.txt
	@sed '/^nvidia-/d;/^cuda-/d' .venv-lowest/compiled.txt > .venv-lowest/lowest.txt
	@.venv-lowest/bin/uv pip install -q --python .venv-lowest/bin/python --no-deps -r .venv-lowest/lowest.txt -e .
	@touch $@

test-lowest: .venv-lowest/.installed ## Run the fast tests on the lowest versions that pyproject.toml allows.
	@.venv-lowest/bin/python -m pytest $(SPREAD) -m "$(FAST)" $(ARGS)

mutants-coverage: .venv/.installed ## Record which tests reach which lines, for `make mutants`.
	@$(BIN)/python benchmarks/mutant_coverage.py $(SPREAD) $(ARGS)

mutants: .venv/.installed ## Plant wrong changes in a copy and see whether tests notice (CONTRIBUTING.md).
	@$(BIN)/python benchmarks/mutants.py --workers $(WORKERS) $(ARGS)

ci: ## Everything that must hold before a change is accepted: lint, types, import rules, tests, a pipeline run.
	.ci/run

lint: .venv/.installed ## Check style, formatting, types and import rules.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.installed ## Put imports and formatting right.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove .venv, builds and caches; runs/ stays.
	rm -rf .venv .venv-lowest build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
