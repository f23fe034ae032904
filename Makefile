# Two commands on a fresh machine: `make demo` and `make test`. Each sets up .venv by itself.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types bench clean

BIN := .venv/bin
DEMO := $(BIN)/embodied demo
BENCHMARKS ?= env_step ppo sac crash_safety endpoint_faults sandbox experts backends demo \
    text_env_step reward_quality reward_to_success shaping imitation reward_code turn_rewards \
    judge judge_pairs deploy_faults sim_to_sim
QUICK ?=
export PYTHON TORCH_INDEX_URL

help: ## list these targets
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/p' Makefile | expand -t 16

# A stamp: done again only when what is installed may have changed.
.venv/.ready: pyproject.toml constraints.txt scripts/setup
	@scripts/setup
	@touch $@

.venv/.ready-bench: .venv/.ready
	@EXTRAS=dev,bench scripts/setup
	@touch $@

setup: .venv/.ready ## make .venv with all that is needed (the others do this by themselves)

demo: setup ## train a policy on a real task and show the result
	$(DEMO)

test: lint types ## lint, check types and run the tests
	$(BIN)/python -m pytest $(ARGS)

lint: setup ## ruff
	$(BIN)/ruff check

types: setup ## mypy
	$(BIN)/mypy

bench: .venv/.ready-bench ## run the benchmarks (rough and fast: make bench QUICK=--quick)
	@set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name $(QUICK); done
	$(BIN)/python -m benchmarks.readme

clean: ## remove caches and build outputs; keeps .venv and runs/
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis MUJOCO_LOG.TXT
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
