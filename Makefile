# The checks of .ci/run, one by one, in the environment that the README's commands make.
.PHONY: test lint types parity

test: .venv/.made
	.venv/bin/pytest

lint: .venv/.made
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports

types: .venv/.made
	.venv/bin/mypy

# It brings torch, which the tests above must not need.
parity: .venv/.made
	.venv/bin/pip install -q -e '.[test,dev,parity]'
	.venv/bin/pip install -q --no-deps optimum-intel==2.2.0
	.venv/bin/pytest tests/parity

# Made anew when what is depended on may have changed.
.venv/.made: pyproject.toml
	python3 -m venv .venv
	.venv/bin/pip install -q -e '.[test,dev]'
	touch $@
