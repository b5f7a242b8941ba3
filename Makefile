# make demo    install, run the embedded demo, print its recall table
# make check   install, lint, types, layer contracts, unit, property and golden tests, laws; not the slow
# make test    the same with all tests, and numbers by other instructions
# make coverage   all tests, and which lines and branches they miss: a fifth longer
# make bench   measure re-ranking, encoding, stage 1 and forecasts on the CPU (under ten minutes)
# make bench-gpu    measure all that a GPU changes: eight minutes on an H100 (TINY=1: tries it on the CPU)
# make bench-gpu-wheels   collect what that needs on a machine that can fetch nothing
# make faults  let each operation of a store fail in a run of its own (hours; STEP=50: each 50th)
# make lock    write the locks anew, after a change of pyproject.toml or constraints.txt
# make audit   known vulnerabilities of what is locked for a run (needs PyPI's whole API)
# make sbom    what is locked for a run, as CycloneDX JSON: sbom.json
# make lint-containers   look through the container files
# make train-demo   train the shipped pair anew (two to three hours)
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TRAINED ?= .train

# Every file that is installed has a hash in a lock, or is not installed. Nothing is built from source,
# since that would fetch its tools without one.
LOCKS := .ci/locks
INSTALL := pip install --quiet --no-compile --no-deps --only-binary=:all: --require-hashes
TOOLS := $(VENV)/tools

GPU_PLATFORMS := manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64

# What the numeric tests run with a second time: the instructions of a processor from 2009 in each
# library that chooses by itself (torch, oneDNN, MKL, numpy's OpenBLAS), and two threads. Sums are
# then taken in another order, as on a machine of another make.
OTHER_PROCESSOR := ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE \
    OPENBLAS_CORETYPE=Nehalem OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE

# The tests start some hundred interpreters. Where an image of a container forbids Python to keep what
# it has compiled, each would compile torch and Prefect again: a third of what it takes to start.
unexport PYTHONDONTWRITEBYTECODE

# by two processes; the slow modules begin first, as they are sorted by name
PYTEST := $(BIN)/pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder

.PHONY: demo check test coverage faults lint bench bench-gpu bench-gpu-wheels install browser train-demo clean \
    lock audit sbom lint-containers

demo: install
	$(BIN)/cir-pipeline run --dataset demo

check: lint
	$(PYTEST) -m 'not slow' tests/unit tests/property tests/golden tests/laws

test: lint
	$(PYTEST)
	$(OTHER_PROCESSOR) $(BIN)/pytest --numprocesses 2 --dist loadscope -m numeric

coverage: install
	$(PYTEST) --cov --cov-report=term

faults: install
	$(BIN)/pytest --numprocesses 2 --dist load --fail-each $(or $(STEP),1) tests/faults/test_every_operation.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=benchmarks $(BIN)/mypy benchmarks/*.py
	$(BIN)/lint-imports

install: $(INSTALLED)

$(INSTALLED): pyproject.toml $(wildcard $(LOCKS)/*.txt)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(INSTALL) --requirement $(LOCKS)/dev.txt
	$(BIN)/$(INSTALL) --requirement $(LOCKS)/torch-cpu.txt || \
	    { echo "No CPU build of torch is in reach: PyPI's, with CUDA, is installed."; \
	      $(BIN)/$(INSTALL) --requirement $(LOCKS)/cuda.txt; }
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/pip check
	touch $(INSTALLED)

$(TOOLS)/.installed: $(LOCKS)/tools.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/$(INSTALL) --requirement $(LOCKS)/tools.txt
	touch $@

lock: $(TOOLS)/.installed
	$(TOOLS)/bin/python .ci/lock.py $(TOOLS)/bin/uv

audit: $(TOOLS)/.installed
	$(TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes \
	    $(foreach lock,runtime cpu gpu cuda build,--requirement $(LOCKS)/$(lock).txt)

lint-containers: $(TOOLS)/.installed
	$(TOOLS)/bin/hadolint containers/Dockerfile

sbom: $(TOOLS)/.installed
	$(TOOLS)/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
	    --spec-version 1.6 --validate --output-file sbom.json $(LOCKS)/gpu.txt

# For the tests of the report's page, which are skipped without one. Debian's own: no other is fetched.
browser:
	command -v "$${CIR_CHROMIUM:-chromium}" || command -v chromium-browser || command -v google-chrome || \
	    { apt-get update -qq && apt-get install -y --no-install-recommends chromium; }

bench: install
	$(BIN)/python benchmarks/machine.py
	$(BIN)/python benchmarks/rerank.py
	$(BIN)/python benchmarks/encoding.py
	$(BIN)/python benchmarks/retrieval.py search
	$(BIN)/python benchmarks/retrieval.py tables
	$(BIN)/python benchmarks/plan.py demo
	$(BIN)/python benchmarks/plan.py full
	PYTHONPATH=. $(BIN)/python benchmarks/report.py

bench-gpu: install
	$(BIN)/python benchmarks/gpu.py --json gpu.json $(if $(TINY),--tiny --device cpu)

# For python 3.12 on Linux. See benchmarks/gpu-wheels.txt.
bench-gpu-wheels: install
	$(BIN)/pip download --quiet --no-deps --dest .gpu/wheels --constraint constraints.txt \
	    --only-binary=:all: --python-version 3.12 $(addprefix --platform ,$(GPU_PLATFORMS)) \
	    --requirement benchmarks/gpu-wheels.txt
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir .gpu/wheels .

# Each step resumes where an earlier, interrupted one stopped.
train-demo: install
	$(BIN)/cir-pipeline train pretrain --out $(TRAINED)/blip
	$(BIN)/cir-pipeline train stage1 --base $(TRAINED)/blip/best --out $(TRAINED)/stage1
	$(BIN)/cir-pipeline train stage2 --base $(TRAINED)/blip/best --stage1 $(TRAINED)/stage1/best \
	    --out $(TRAINED)/stage2
	$(BIN)/cir-pipeline run --dataset demo --stage1 $(TRAINED)/stage1/best --stage2 $(TRAINED)/stage2/best

clean:
	rm -rf $(VENV) cir-store
