#!/usr/bin/env bash
# Everything that wants a GPU, in 330 seconds from a bare checkout: what it proves, in the order of its value.
#
#     benchmarks/gpu.sh [STEP ...]      # all steps, or some: build probe parity sanitize timings ncu extract engine
#
# PYTHON=... picks an interpreter (default .venv/bin/python, else python3), OUT=... the folder for what comes out
# (default benchmarks/results/gpu-<name>): log.txt and summary.txt, both written as the steps go, and at most six JSON
# or text files. A step that fails or takes too long is noted and the next one runs. Exit 1 if any failed. Needs no
# network and no FAISS; without nvcc the CUDA library is taken as it is.
set -uo pipefail
cd "$(dirname "$0")/.."

STEPS=("$@")
[ ${#STEPS[@]} -gt 0 ] || STEPS=(build probe parity sanitize timings ncu extract engine)
for name in "${STEPS[@]}"; do
  case $name in build | probe | parity | sanitize | timings | ncu | extract | engine) ;; *)
    echo "gpu.sh: unknown step '$name'; choose from build probe parity sanitize timings ncu extract engine" >&2
    exit 2
    ;;
  esac
done

PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
GPU=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1)
SLUG=$(echo "${GPU:-no-gpu}" | tr '[:upper:] ' '[:lower:]-' | tr -cd 'a-z0-9-')
RESULTS=${OUT:-$PWD/benchmarks/results/gpu-$SLUG}
LOG=$RESULTS/log.txt
SUMMARY=$RESULTS/summary.txt
TOTAL=${TOTAL:-330} # seconds, for everything
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
export XLA_PYTHON_CLIENT_PREALLOCATE=false HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true
mkdir -p "$RESULTS"
: >"$LOG"
: >"$SUMMARY"
failed=0

note() { echo "$*" | tee -a "$SUMMARY"; }
wanted() { [[ " ${STEPS[*]} " == *" $1 "* ]]; }

# Seconds that a step may take: what it asks for, or what is left; never 0, which timeout takes for no limit.
limit() {
  local left=$((TOTAL - SECONDS))
  echo $((left < 1 ? 1 : left < $1 ? left : $1))
}

# step NAME SECONDS COMMAND...: runs the command under a time limit, its output to the log as it comes.
step() {
  local name=$1 most begin=$SECONDS code
  most=$(limit "$2")
  shift 2
  echo "== $name: $*" >>"$LOG"
  timeout --kill-after=5 "$most" "$@" >>"$LOG" 2>&1
  code=$?
  if [ $code -eq 0 ]; then
    note "ok      $name ($((SECONDS - begin)) s)"
  else
    failed=1
    note "FAILED  $name ($((SECONDS - begin)) s, exit $code$([ $code -eq 124 ] && echo ': out of time'))"
    tail -n 8 "$LOG"
  fi
  return $code
}

pytest() { # a missing package must not cost the other tests
  "$PYTHON" -m pytest -q -p no:cacheprovider --continue-on-collection-errors -m "slow or not slow" "$@"
}
export -f pytest
export PYTHON

# The library: setup.py where setuptools is new enough, else nvcc's own line.
build() {
  if ! command -v nvcc >/dev/null; then
    echo "no nvcc here: the CUDA library is taken as it is"
  elif ! "$PYTHON" setup.py build_ext --inplace; then
    nvcc -std=c++17 -O3 -lineinfo -cudart static -Xcompiler -fPIC,-fvisibility=hidden \
      -gencode arch=compute_90a,code=sm_90a --shared csrc/heads/cuda/heads.cu -o embedcache/heads/_heads_cuda.so
  fi
}
export -f build

note "$(date -u +%FT%TZ) ${GPU:-no GPU}"
{ nvidia-smi -q -d CLOCK,POWER; nvcc --version; "$PYTHON" -m pip list 2>/dev/null | grep -iE "^(torch|jax|transformers|numpy) "; } >>"$LOG" 2>&1
wanted build && step build 60 bash -c build
if ! step usable 20 "$PYTHON" -c 'from embedcache.heads import engine_native as native; print(native.find("cuda").name)'; then
  note "        no usable GPU: nothing more to do"
  exit 1
fi

# The yardstick of all that follows: clusters at once, copies, products.
wanted probe && step probe 25 "$PYTHON" -m benchmarks.heads.gpu_probe --json "$RESULTS/probe.json"

# Every path against float64 on the GPU.
wanted parity && step parity 40 bash -c 'pytest tests/heads/test_cuda_host.py tests/heads/test_cuda_tf32.py -k gpu'

# compute-sanitizer's three tools at once, beside the tests of all engines.
tools=()
if wanted sanitize; then
  if command -v compute-sanitizer >/dev/null; then
    begin=$SECONDS most=$(limit 60)
    for tool in memcheck racecheck synccheck; do
      timeout --kill-after=5 "$most" compute-sanitizer --tool $tool --error-exitcode 9 "$PYTHON" -m benchmarks.heads.cuda_small \
        >"$RESULTS/.$tool" 2>&1 &
      tools+=("$tool:$!")
    done
  else
    note "        no compute-sanitizer here"
  fi
fi
if wanted engine; then step engine 60 bash -c 'pytest tests/heads/test_engine.py -k "cuda and not two_hundred"'; fi
if [ ${#tools[@]} -gt 0 ]; then
  for pair in "${tools[@]}"; do
    tool=${pair%%:*}
    wait "${pair##*:}"
    code=$?
    { echo "== sanitize $tool"; cat "$RESULTS/.$tool"; } >>"$LOG"
    rm -f "$RESULTS/.$tool"
    if [ $code -eq 0 ]; then note "ok      sanitize $tool"; else
      failed=1
      note "FAILED  sanitize $tool (exit $code$([ $code -eq 124 ] && echo ': out of time, no result'))"
    fi
  done
  note "        sanitizers and engine tests: $((SECONDS - begin)) s"
fi

# The headline timings, first turn and median, with nothing beside them.
wanted timings && step timings 75 "$PYTHON" -m benchmarks.heads.speed_cuda --peers none --json "$RESULTS/heads.json"

# What bounds the kernels: one launch of each.
if wanted ncu; then
  if command -v ncu >/dev/null; then
    step ncu 45 ncu --clock-control none --section SpeedOfLight --section WarpStateStats --section MemoryWorkloadAnalysis \
      --launch-skip 8 --launch-count 12 "$PYTHON" -m benchmarks.heads.cuda_small
  else
    note "        no ncu here"
  fi
fi

# Encodes what demo/data holds (python demo/fetch.py where there is a network, then carry the folder); random weights.
if wanted extract; then
  if [ -e demo/data/minilm/tokenizer.json ] && [ -e demo/data/mixed.json ]; then
    step extract 75 "$PYTHON" -m benchmarks.extraction.speed --device cuda --model bert-base-shape --texts mixed \
      --only bfloat16 --turns 2 --parts encode --json "$RESULTS/extract.json"
  else
    note "        no demo/data: extraction left out"
  fi
fi

note "$SECONDS s in all"
echo
cat "$SUMMARY"
exit $failed
