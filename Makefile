# The verbs of the repository. Everything runs in .venv, pinned by constraints.txt; `make PYTHON=python3.12 ...`
# picks another interpreter, `make EXTRA=gpu ...` FAISS for CUDA.
PYTHON ?= python3
EXTRA ?= cpu
FUZZ_SECONDS ?= 60
FUZZ_SEED ?= 0
BIN := .venv/bin
SOURCES := setup.py pyproject.toml constraints.txt $(wildcard csrc/*/* csrc/*/*/*)
CXX_SOURCES := $(foreach kind,h cpp cu cuh,$(wildcard csrc/*/*.$(kind) csrc/*/*/*.$(kind) release/*.$(kind)))

.PHONY: demo test test-all test-faults fuzz sanitize lint format bench wheels docs clean

demo: .venv/installed
	@$(BIN)/python demo/run.py

# Workers share the cores. Idle threads of torch and NumPy would spin on them: they sleep instead (half of the CPU time).
test test-all test-faults: export OMP_WAIT_POLICY = passive
test test-all test-faults: export OPENBLAS_NUM_THREADS = 1

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-all: .venv/installed
	$(BIN)/python -m pytest -m "slow or not slow"

# Kills, flipped bits, full disks, signals, two writers, hostile files, odd environments, little memory: at length, each
# with its seeds. The short forms are in test.
test-faults: .venv/installed
	$(BIN)/python -m pytest -m "slow or not slow" --numprocesses auto --maxprocesses 4 --dist worksteal tests/faults tests/extraction/test_extract_faults.py tests/extraction/test_ray_workers.py tests/cache

# Spoilt caches, tables and models; what breaks something is kept.
fuzz: .venv/installed
	$(BIN)/python tests/faults/fuzz.py --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED) --keep fuzz-faults

# The C++ engines, encoder and tokenizer, and the CUDA engine's source on the host, under thread, address and undefined sanitizers;
# where nvcc is at hand, it compiles without a warning or a spill.
sanitize: .venv/installed
	$(BIN)/python -m pytest -m slow --numprocesses auto --maxprocesses 4 --dist worksteal tests/heads/test_sanitizers.py tests/encoder/test_encoder_sanitizers.py tests/finetune/test_block_sanitizers.py tests/heads/test_cuda_host.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

bench: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[bench]'
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
wheels: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[release]'
	$(BIN)/python release/wheels.py

# The pages of docs/ as a site of plain files: site/index.html.
docs: .venv/installed
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf .venv build site demo/data demo/out *.egg-info embedcache/*/*.so

.venv/installed: $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "embedcache needs Python 3.10 or newer: make PYTHON=/path/to/python3 ..."; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || \
		{ echo "embedcache needs a C++ compiler: apt-get install g++ (or set CXX)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "setuptools>=77"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[$(EXTRA),dev]'
	@touch $@
