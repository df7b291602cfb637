# The verbs of the repository. Everything runs in .venv, pinned by constraints.txt; `make PYTHON=python3.12 ...`
# picks another interpreter, `make EXTRA=gpu ...` FAISS for CUDA.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
EXTRA ?= cpu
FUZZ_SECONDS ?= 60
FUZZ_SEED ?= 0
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(CONSTRAINTS) $(wildcard csrc/*/* csrc/*/*/*)
CXX_SOURCES := $(foreach kind,h cpp cu cuh,$(wildcard csrc/*/*.$(kind) csrc/*/*/*.$(kind) release/*.$(kind)))

.PHONY: demo test test-all test-lowest test-newest test-faults fuzz sanitize lint format bench wheels docs clean

demo: $(VENV)/installed
	@$(BIN)/python demo/run.py

# Workers share the cores. Idle threads of torch and NumPy would spin on them: they sleep instead (half of the CPU time).
test test-all test-faults: export OMP_WAIT_POLICY = passive
test test-all test-faults: export OPENBLAS_NUM_THREADS = 1

test: $(VENV)/installed
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-all: $(VENV)/installed
	$(BIN)/python -m pytest -m "slow or not slow"

# The oldest versions that pyproject.toml allows, and the newest there were; each in an environment of its own.
test-lowest:
	$(MAKE) test PYTHON=python3.10 VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt

test-newest:
	$(MAKE) test PYTHON=python3.14 VENV=.venv-newest CONSTRAINTS=constraints-newest.txt

# Kills, flipped bits, full disks, signals, two writers, hostile files, odd environments, little memory: at length, each
# with its seeds. The short forms are in test.
test-faults: $(VENV)/installed
	$(BIN)/python -m pytest -m "slow or not slow" --numprocesses auto --maxprocesses 4 --dist worksteal tests/faults tests/extraction/test_extract_faults.py tests/extraction/test_ray_workers.py tests/cache

# Spoilt caches, tables and models; what breaks something is kept.
fuzz: $(VENV)/installed
	$(BIN)/python tests/faults/fuzz.py --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED) --keep fuzz-faults

# The C++ engines, encoder and tokenizer, and the CUDA engine's source on the host, under thread, address and undefined sanitizers;
# where nvcc is at hand, it compiles without a warning or a spill.
sanitize: $(VENV)/installed
	$(BIN)/python -m pytest -m slow --numprocesses auto --maxprocesses 4 --dist worksteal tests/heads/test_sanitizers.py tests/encoder/test_encoder_sanitizers.py tests/finetune/test_block_sanitizers.py tests/heads/test_cuda_host.py

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --no-build-isolation --editable '.[bench]'
	$(BIN)/python -m benchmarks.heads.speed
	$(BIN)/python -m benchmarks.extraction.speed
	$(BIN)/python -m benchmarks.search.speed
	$(BIN)/python -m benchmarks.doc_tables.search
	$(BIN)/python -m benchmarks.search.cold --json benchmarks/results/cold-minilm.json
	$(BIN)/python -m benchmarks.serve.load --json benchmarks/results/serve-100000.json
	$(BIN)/python -m benchmarks.commands.startup --json benchmarks/results/startup.json
	$(BIN)/python -m benchmarks.heads.fused_head --json benchmarks/results/fused-head-cpu.json
	$(BIN)/python -m benchmarks.doc_tables.write

# The source distribution and a wheel for every platform, into dist/ (release/README.md).
wheels: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --no-build-isolation --editable '.[release]'
	$(BIN)/python release/wheels.py

# The pages of docs/ as a site of plain files: site/index.html.
docs: $(VENV)/installed
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf .venv .venv-* build site demo/data demo/out *.egg-info embedcache/*/*.so

$(VENV)/installed: $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "embedcache needs Python 3.10 or newer: make PYTHON=/path/to/python3 ..."; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || \
		{ echo "embedcache needs a C++ compiler: apt-get install g++ (or set CXX)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) "setuptools>=77"
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --no-build-isolation --editable '.[$(EXTRA),dev]'
	@touch $@
