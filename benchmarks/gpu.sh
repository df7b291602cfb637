#!/usr/bin/env bash
# Everything that wants a GPU, in 330 seconds from a bare checkout: what it proves, in the order of its value.
#
#     benchmarks/gpu.sh [STEP ...]      # all, or some: build probe parity engine sanitize timings profile ncu extract
#
# PYTHON=... picks an interpreter (default .venv/bin/python, else python3), OUT=... the folder for what comes out
# (default benchmarks/results/gpu-<name>): log.txt, summary.txt, probe.json, heads.json, profile.json, extract.json, all
# written as the steps go. A step that fails or takes too long is noted and the next one runs. Exit 1 if any failed. Needs no network,
# no FAISS and no data: texts are the repository's own, weights random. Without nvcc the CUDA library is taken as it is.
#
# Packages that the machine lacks come from wheels in WHEELS (default .whl), which `pip download --no-deps` fills where
# there is a network; the first step says which are missing. TOTAL=... seconds in all, if not 330.
#
# REHEARSE=1: with the emulation in the GPU's place (csrc/heads/cuda/block.cuh, compiled to
# embedcache/heads/_heads_cuda.so) and torch on the CPU, everything small: shows that the steps run, and nothing else.
set -uo pipefail
cd "$(dirname "$0")/.."

STEPS=("$@")
[ ${#STEPS[@]} -gt 0 ] || STEPS=(build probe parity engine sanitize timings profile ncu extract)
for name in "${STEPS[@]}"; do
  case $name in build | probe | parity | engine | sanitize | timings | profile | ncu | extract) ;; *)
    echo "gpu.sh: unknown step '$name'; choose from build probe parity engine sanitize timings profile ncu extract" >&2
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
WHEELS=${WHEELS:-.whl}
SITE=$(mktemp -d)
trap 'rm -rf "$SITE"' EXIT
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}:$SITE PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
export XLA_PYTHON_CLIENT_PREALLOCATE=false HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true
if [ -n "${REHEARSE:-}" ]; then small_probe=(--device cpu) small_heads=(--scale 0.001) small_extract=(--device cpu --rows 60 --turns 1)
else small_probe=() small_heads=() small_extract=(); fi
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
  figures "$name"
  if [ $code -eq 0 ]; then
    note "ok      $name ($((SECONDS - begin)) s)"
  else
    failed=1
    note "FAILED  $name ($((SECONDS - begin)) s, exit $code$([ $code -eq 124 ] && echo ': out of time'))"
    tail -n 8 "$LOG"
  fi
  return $code
}

# figures NAME: what the last step printed that is worth a line of the summary.
figures() {
  case $1 in probe | timings | profile | extract | parity | engine) ;; *) return ;; esac
  sed -n "\\|^== $1: |,\$p" "$LOG" | grep -E '^clusters of|^"?tf32|^ +"(tf32|bfloat16)"|^[a-z0-9-]+: products|cosine of|tokens/s|^1.*heads, |head-rows/s|^  bound|on the device| passed' >>"$SUMMARY"
}

pytest() { # a missing package must not cost the other tests
  local workers
  workers=$("$PYTHON" -c 'import xdist; print("-n4")' 2>/dev/null)
  "$PYTHON" -m pytest -q $workers -p no:cacheprovider --continue-on-collection-errors -m "slow or not slow" "$@"
}
export -f pytest
export PYTHON

# The C++ libraries by setup.py (where its setuptools is too old, the tokenizer alone by the compiler's own line), beside
# them the CUDA library for this GPU alone, by nvcc's own line: all architectures take twice the time.
build() {
  (
    EMBEDCACHE_CUDA=0 "$PYTHON" setup.py build_ext --inplace ||
      ${CXX:-c++} -std=c++17 -O3 -fPIC -fvisibility=hidden -shared -pthread csrc/tokenizer/api.cpp \
        -o embedcache/encoder/_tokenizer_cpu.so
  ) &
  if [ -n "${REHEARSE:-}" ] || ! command -v nvcc >/dev/null; then
    echo "no nvcc here: the CUDA library is taken as it is"
  else
    local arch
    arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
    [ "$arch" != 90 ] || arch=90a
    nvcc -std=c++17 -O3 -lineinfo -cudart static -Xcompiler -fPIC,-fvisibility=hidden \
      -gencode "arch=compute_$arch,code=sm_$arch" --shared csrc/heads/cuda/heads.cu -o embedcache/heads/_heads_cuda.so || return
  fi
  wait $!
}
export -f build

note "$(date -u +%FT%TZ) ${GPU:-no GPU}"
{ nvidia-smi -q -d CLOCK,POWER; nvcc --version; "$PYTHON" -m pip list 2>/dev/null | grep -iE "^(torch|jax|transformers|numpy) "; } >>"$LOG" 2>&1
if compgen -G "$WHEELS/*.whl" >/dev/null; then
  step wheels 30 "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$SITE" "$WHEELS"/*.whl
fi
if ! step packages 30 "$PYTHON" -c 'import embedcache.heads.train, embedcache.encoder.encoder, torch, transformers, pytest'; then
  note "        a package is missing (the last lines above): put its wheel into $WHEELS"
  exit 1
fi
wanted build && step build 60 bash -c build
if ! step usable 20 "$PYTHON" -c 'from embedcache.heads import engine_native as native; print(native.find("cuda").name)'; then
  note "        no usable GPU: nothing more to do"
  exit 1
fi

# The yardstick of all that follows: clusters at once, copies, products.
wanted probe && step probe 25 "$PYTHON" -m benchmarks.heads.gpu_probe "${small_probe[@]}" --json "$RESULTS/probe.json"

# compute-sanitizer's three tools at once, beside the tests: racecheck takes the longest.
tools=()
if wanted sanitize; then
  if command -v compute-sanitizer >/dev/null; then
    begin=$SECONDS most=$(limit 110)
    for tool in memcheck racecheck synccheck; do
      timeout --kill-after=5 "$most" compute-sanitizer --tool $tool --error-exitcode 9 "$PYTHON" -m benchmarks.heads.cuda_small \
        >"$RESULTS/.$tool" 2>&1 &
      tools+=("$tool:$!")
    done
  else
    note "        no compute-sanitizer here"
  fi
fi

# Every path against float64 on the GPU; the encoder's parts and families against float64 and transformers.
if wanted parity; then
  step parity 40 bash -c 'pytest tests/heads/test_cuda_host.py tests/heads/test_cuda_tf32.py tests/heads/test_cuda_bf16.py tests/heads/test_cuda_large.py tests/heads/test_cuda_probes.py tests/heads/test_cuda_split.py -k gpu'
  step parity-extract 60 bash -c 'pytest tests/encoder/test_gpu_lane.py tests/encoder/test_on_a_gpu.py tests/encoder/test_fused_triton.py -k "not compiled"'
  step parity-finetune 60 bash -c 'pytest tests/finetune/test_tuning_on_a_gpu.py'
fi
if wanted engine; then step engine 60 bash -c 'pytest tests/heads/test_engine.py -k cuda'; fi
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
  note "        sanitizers and the tests beside them: $((SECONDS - begin)) s"
fi

# The headline timings, first turn and median, with nothing beside them.
wanted timings && step timings 100 "$PYTHON" -m benchmarks.heads.speed_cuda --peers none --repeats 2 "${small_heads[@]}" --json "$RESULTS/heads.json"

# Where a bank's time goes: kernels, copies, what the host waits in.
wanted profile && step profile 40 "$PYTHON" -m benchmarks.heads.gpu_profile "${small_heads[@]}" --json "$RESULTS/profile.json"

# What bounds the kernels: one launch of each.
if wanted ncu; then
  if command -v ncu >/dev/null; then
    step ncu 45 ncu --clock-control none --section SpeedOfLight --section WarpStateStats --section MemoryWorkloadAnalysis \
      --launch-skip 8 --launch-count 12 "$PYTHON" -m benchmarks.heads.cuda_small
  else
    note "        no ncu here"
  fi
fi

# GPU-only and text to vector apart, each part of the code left out in turn, where a batch's time goes.
wanted extract && step extract 90 "$PYTHON" -m benchmarks.extraction.speed_gpu --peers all --budget 70 --turns 2 "${small_extract[@]}" --json "$RESULTS/extract.json"

note "$SECONDS s in all"
echo
cat "$SUMMARY"
exit $failed
