"""The tables of docs/scale.md, worked out from the few numbers at the top: change one, run, and the page follows.

python -m benchmarks.extraction.scale            write them into the page
python -m benchmarks.extraction.scale --check    exit 1 where the page says something else
"""

from __future__ import annotations

import sys

from benchmarks.machine import ROOT

PAGE = ROOT / "docs" / "scale.md"
BEGIN, END = "<!-- scale -->\n", "<!-- end -->\n"

# ---- stated: what the reviews are ----
ROWS = 1e9
TOKENS = 128  # a text after truncation, special tokens included
TEXT_BYTES = 500
SAME_TEXT = 0.01  # rows whose text stands in an earlier row

# ---- measured, on 2 cores of an AMD EPYC of family 26 (Zen 5), AVX512-BF16 ----
# MiniLM, native, tokens a second of a core's own time at 223 tokens a text, tokenizing included, on a busy machine.
CORE_TOKENS = {"float32": 9_700, "bfloat16": 16_700}
TOKENIZED = 13_000_000  # tokens a second of a core's own time, native WordPiece, 146 tokens a text; Zen 4
# Useful TFLOP/s from text to vector in bfloat16: BERT-base on an H200 (62% of the products' rate at its shapes), MiniLM
# on an H100 (33%, in smaller batches than today's).
GPU_TFLOPS = {"BERT-base (12 x 768)": 0.62 * 540, "MiniLM (6 x 384)": 0.33 * 309}
SORT_BYTES = 13  # memory a row that finding duplicates takes for a while, besides what stays

# ---- assumed: not measured by us ----
GPU_CORES = 16  # of the CPU, for each GPU; tokenizing must keep up
PLAN_ROWS = 200_000  # rows a second that are read, hashed and deduplicated: the project's aim
DISK = 2e9  # bytes a second of a parallel file system, to one client
HASHES = 1e9  # bytes a second that one core checksums
GPU_DOLLARS, CORE_DOLLARS = 2.5, 0.04  # an hour of an H200, of one core with its memory, on demand
STORE_DOLLARS = 0.08  # a GB and month

# ---- known ----
MODELS = {"MiniLM (6 x 384)": (6, 384, 1536, 12), "BERT-base (12 x 768)": (12, 768, 3072, 12)}  # N, D, F, H
# Of the driver's memory; hashes, offsets and texts are in unnamed files.
ROW_BYTES = {"first row with the same text": 8, "where a vector is": 9, "label": 4,
             "text sizes for the progress bar": 8, "flags": 3}  # fmt: skip


def flop(layers: int, dim: int, inner: int, heads: int, tokens: float = TOKENS) -> float:
    """Of one text whose CLS vector alone is stored, as in extraction.md."""
    whole = tokens * (8 * dim**2 + 4 * dim * inner) + 4 * tokens**2 * dim
    return (layers - 1) * whole + 8 * dim**2 + 4 * dim * inner + 4 * heads * tokens * dim


def gpu_rate(model: str) -> float:
    """Rows a second of a GPU: what it computes, or what the cores beside it tokenize."""
    return min(GPU_TFLOPS[model] * 1e12 / flop(*MODELS[model]), GPU_CORES * TOKENIZED / TOKENS)


def table(header: str, rows: list[tuple[str, ...]]) -> str:
    columns = header.count("|") + 1
    lines = [f"| {header} |", "|" + " --- |" + " ---: |" * (columns - 1), *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def duration(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:,.0f} min"


def size(count: float) -> str:
    return f"{count / 1e12:,.2f} TB" if count >= 1e12 else f"{count / 1e9:,.0f} GB"


def encoding() -> str:
    mini = flop(*MODELS["MiniLM (6 x 384)"])
    texts, rows = ROWS * (1 - SAME_TEXT), []
    for name, shape in MODELS.items():
        cost = flop(*shape)
        core = CORE_TOKENS["bfloat16"] / TOKENS * mini / cost
        gpu = gpu_rate(name)
        for what, rate, counts, price in (
            ("core, bfloat16", core, (64, 1024), CORE_DOLLARS), ("H200", gpu, (1, 8, 64), GPU_DOLLARS)
        ):  # fmt: skip
            hours = texts / rate / 3600
            rows += [
                (name, f"{cost / 1e9:.1f}", f"{count:,} x {what}", f"{rate * count:,.0f}",
                 duration(hours / count * 3600), f"{hours * price:,.0f}")
                for count in counts
            ]  # fmt: skip
    return table("model | GFLOP a text | on | rows/s | time | dollars", rows)


def storing() -> str:
    rows = []
    for name, (_, dim, _, _) in MODELS.items():
        vectors = ROWS * dim * 2
        text = ROWS * (TEXT_BYTES + 8)
        rest = ROWS * (16 + 1 + 4) + 16 * ROWS / 1024 * 6
        whole = vectors + text + rest
        rows.append((name, *map(size, (vectors, text, rest, whole)), f"{whole / 1e9 * STORE_DOLLARS:,.0f}"))
    return table("model | vectors, float16 | texts | hashes, labels, checksums | the file | dollars a month", rows)


def other() -> str:
    memory = sum(ROW_BYTES.values()) + SORT_BYTES
    _, dim, *_ = MODELS["BERT-base (12 x 768)"]
    vectors = ROWS * dim * 2
    text = ROWS * TEXT_BYTES
    gpu, mini = gpu_rate("BERT-base (12 x 768)"), gpu_rate("MiniLM (6 x 384)")
    rows = [
        ("planning: read, hash, deduplicate (one process)", duration(ROWS / PLAN_ROWS), f"{PLAN_ROWS:,} rows/s"),
        ("memory of the driver while it plans", size(ROWS * memory), f"{memory} bytes a row"),
        ("texts set down beside the cache, then copied into it", duration(3 * text / DISK), f"3 x {size(text)}"),
        ("a run that continues: checksums of all that is there, 8 cores", duration(vectors / min(DISK, 8 * HASHES)),
         size(vectors)),
        ("merge: read, check, write", duration(3 * (vectors + text) / DISK), f"3 x {size(vectors + text)}"),
        ("vectors through the driver, for each H200 that does not see the file", f"{gpu * dim * 2 / 1e6:,.0f} MB/s",
         f"{gpu:,.0f} rows/s x {dim * 2:,} bytes"),
        ("texts to it", f"{gpu * TEXT_BYTES / 1e6:,.0f} MB/s", f"{TEXT_BYTES} bytes a row"),
        ("cores that tokenize for one H200, BERT-base", f"{gpu * TOKENS / TOKENIZED:.1f}", f"{TOKENIZED:,} tokens/s"),
        ("the same for MiniLM, to use all of it", f"{mini * TOKENS / TOKENIZED:.1f}", f"{mini:,.0f} rows/s"),
        ("lost by a kill: windows in work of each GPU", f"{3 * 16384 / gpu:,.1f} s", "3 x 16,384 rows"),
    ]  # fmt: skip
    return table("what | how much | from", rows)


def main() -> int:
    page = PAGE.read_text(encoding="utf-8")
    parts = page.split(BEGIN)
    tables = [encoding(), storing(), other()]
    assert len(parts) == len(tables) + 1, "the page has another number of tables"
    ends = [part.split(END, 1)[1] for part in parts[1:]]
    made = parts[0] + "".join(f"{BEGIN}{one}{END}{rest}" for one, rest in zip(tables, ends, strict=True))
    if "--check" in sys.argv[1:]:
        return int(made != page)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
