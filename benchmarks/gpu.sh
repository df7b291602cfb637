#!/usr/bin/env bash
# Everything that wants a GPU, in under eight minutes: build, tests, compute-sanitizer, benchmarks.
#
#     benchmarks/gpu.sh                 # PYTHON=... picks an interpreter (default .venv/bin/python, else python3)
#
# Logs and JSON go to $OUT, or to benchmarks/results/. A step that fails or takes too long is noted, its log kept, and
# the next one runs; the summary at the end says which. Exit 1 if any failed.
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
RESULTS=${OUT:-$PWD/benchmarks/results}
GPU=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1)
SLUG=$(echo "${GPU:-no-gpu}" | tr '[:upper:] ' '[:lower:]-' | tr -cd 'a-z0-9-')
LOGS=$RESULTS/gpu-$SLUG
PYTEST=("$PYTHON" -m pytest -q --continue-on-collection-errors) # a missing package must not cost the other tests
TOTAL=470                                                       # seconds, for everything
export PYTHONPATH=$PWD PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
mkdir -p "$LOGS"
: >"$LOGS/summary.txt"
failed=0

note() { echo "$*" | tee -a "$LOGS/summary.txt"; }

# Seconds that a step may take: what it asks for, or what is left; never 0, which timeout takes for no limit.
limit() {
  local left=$((TOTAL - SECONDS))
  echo $((left < 1 ? 1 : left < $1 ? left : $1))
}

# step NAME SECONDS COMMAND...: runs the command under a time limit, its output to NAME.log.
step() {
  local name=$1 most begin=$SECONDS code
  most=$(limit "$2")
  shift 2
  timeout --kill-after=10 "$most" "$@" >"$LOGS/$name.log" 2>&1
  code=$?
  if [ $code -eq 0 ]; then
    note "ok      $name ($((SECONDS - begin)) s)"
  else
    failed=1
    note "FAILED  $name ($((SECONDS - begin)) s, exit $code$([ $code -eq 124 ] && echo ': out of time')): $LOGS/$name.log"
    tail -n 15 "$LOGS/$name.log"
  fi
  return $code
}

note "$(date -u +%FT%TZ) ${GPU:-no GPU}"
step device 20 nvidia-smi
if command -v nvcc >/dev/null || [ -n "${CUDA_HOME:-}" ]; then
  step build 150 "$PYTHON" setup.py build_ext --inplace
else
  note "        no nvcc here: the CUDA library is taken as it is"
fi
if ! step usable 30 "$PYTHON" -c 'from embedcache.heads import engine_native as native; print(native.find("cuda").name)'; then
  note "        no usable GPU: nothing more to do"
  exit 1
fi

# The heads' tests first: the others say little if these fail.
step tests-cuda 100 "${PYTEST[@]}" tests/heads/test_cuda_host.py tests/heads/test_cuda_tf32.py -k "gpu"
step tests-engine 120 "${PYTEST[@]}" tests/heads/test_engine.py tests/heads/test_property.py -k "cuda"

step benchmark 230 "$PYTHON" -m benchmarks.heads.speed_cuda --budget 4 --json "$RESULTS/cuda-heads-$SLUG.json"

# Encodes what demo/data holds (python demo/fetch.py where there is a network, then carry the folder); random weights.
if [ -e demo/data/minilm/tokenizer.json ] && [ -e demo/data/mixed.json ]; then
  step benchmark-extract 110 "$PYTHON" -m benchmarks.extraction.speed --device cuda --model bert-base-shape --texts mixed \
    --only bfloat16 --turns 2 --parts encode,command --json "$RESULTS/cuda-extract-$SLUG.json"
else
  note "        no demo/data: benchmarks/extraction/speed.py left out"
fi

# The rest of the suite goes beside the sanitizers, last, with what time is left; the benchmarks ran alone.
timeout --kill-after=10 "$(limit 180)" "${PYTEST[@]}" -k "not nvcc" >"$LOGS/tests-all.log" 2>&1 &
suite=$!
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck synccheck; do
    step "sanitizer-$tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 9 "$PYTHON" -m benchmarks.heads.cuda_small
  done
else
  note "        no compute-sanitizer here"
fi
if wait $suite; then note "ok      tests-all"; else
  failed=1
  note "FAILED  tests-all: $LOGS/tests-all.log"
  tail -n 15 "$LOGS/tests-all.log"
fi

cat "$LOGS/benchmark.log"
echo
cat "$LOGS/summary.txt"
exit $failed
