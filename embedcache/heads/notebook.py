"""How heads, banks and runs show themselves in a notebook: small tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embedcache.common.display import html_table
from embedcache.runs.metrics import main_score, number

if TYPE_CHECKING:
    from embedcache.heads.head import TrainedHead
    from embedcache.heads.train import BankResult
    from embedcache.runs.folder import Run

SETTINGS = ("hidden", "lr", "dropout", "weight_decay", "seed")


def describe_head(head: TrainedHead) -> str:
    """One line: shape, kind, settings, scores."""
    hidden = f"{head.spec.hidden}-" if head.spec.hidden else ""
    shape = f"{head.dim}-{hidden}{len(head.weights['b2'])}" if head.weights else "no weights"
    settings = ", ".join(f"{name} {getattr(head.spec, name):g}" for name in SETTINGS[1:])
    scores = ", ".join(f"{name} {value:.4f}" for name, value in _scores(head).items() if value is not None)
    epoch = f", epoch {head.best_epoch} of {head.epochs_run}" if head.epochs_run else ""
    return f"TrainedHead({head.kind}, {shape}, {settings}{epoch}{', ' * bool(scores)}{scores}, {head.status})"


def head_html(head: TrainedHead) -> str:
    """A table of two columns."""
    rows: list[Sequence[Any]] = [("kind", head.kind), ("reads", f"[rows, {head.dim}]")]
    if head.classes is not None:
        rows.append(("labels", ", ".join(map(str, head.classes[:20])) + (" …" if len(head.classes) > 20 else "")))
    rows.append(("settings", ", ".join(f"{name} {getattr(head.spec, name):g}" for name in SETTINGS)))
    rows.append(("epoch", f"{head.best_epoch} of {head.epochs_run}, {head.status}"))
    rows += list(_scores(head).items())
    return html_table("Trained head", (), rows)


def describe_bank(bank: BankResult) -> str:
    ok = sum(head.status == "ok" for head in bank.heads)
    best = min((head.val_loss for head in bank.heads if head.val_loss == head.val_loss), default=None)
    scored = "" if best is None else f", best val_loss {best:.4f}"
    return f"BankResult({len(bank.heads):,} heads, {ok:,} ok, {bank.engine}, {bank.seconds:.2f} s{scored})"


def bank_html(bank: BankResult) -> str:
    """The first ten heads by validation loss (the last training loss where nothing was validated)."""
    columns = ("head", *SETTINGS, "epoch", *(_scores(bank.heads[0]) if bank.heads else ()), "status")
    order = sorted(range(len(bank.heads)), key=lambda i: _rank(bank.heads[i]))
    rows = (
        (
            i,
            *(getattr(head.spec, name) for name in SETTINGS),
            head.best_epoch,
            *_scores(head).values(),
            head.status,
        )
        for i, head in ((i, bank.heads[i]) for i in order)
    )
    title = f"{len(bank.heads):,} heads in {bank.seconds:.2f} s ({bank.engine}), best first"
    return html_table(title, columns, rows)


def describe_run(run: Run) -> str:
    columns = ", ".join(f"{name!r}: {one.best.kind}" for name, one in run.columns.items())
    return f"Run({str(run.path)!r}, {{{columns}}}, {_best(run)})"


def run_html(run: Run) -> str:
    """The best head of every label column, with its scores and the baselines'."""
    rows: list[Sequence[Any]] = []
    for name, one in run.columns.items():
        best, main = one.info.get("best", {}), main_score(one.best.kind)
        scores = [best.get(f"{side}_{main}") for side in ("val", "test")]
        second: dict[str, Any] = next((s for key, s in one.info.get("baselines", {}).items() if "tfidf" in key), {})
        rows.append((name, one.best.kind, best.get("name"), main, *scores, second.get(f"test_{main}")))
    title = f"Run {run.path}: {run.info.get('engine', '')}, trained {run.info.get('created', '-')}"
    return html_table(title, ("label column", "task", "head", "score", "val", "test", "TF-IDF, test"), rows)


def _best(run: Run) -> str:
    best, main = run.info.get("best", {}), main_score(run.best.kind)
    scores = [f"{side}_{main} {best[f'{side}_{main}']:.4f}" for side in ("val", "test") if best.get(f"{side}_{main}")]
    return ", ".join(["best " + str(best.get("name", "-")), *scores])


def _scores(head: TrainedHead) -> dict[str, float | None]:
    if head.kind != "regression":
        return {"val_loss": number(head.val_loss), "val_accuracy": number(head.val_accuracy)}
    r2 = head.history.get("val_r2", [])
    return {
        "val_loss": number(head.val_loss),
        "val_r2": number(r2[head.best_epoch - 1]) if r2 and head.best_epoch else None,
    }


def _rank(head: TrainedHead) -> tuple[bool, float]:
    losses = [head.val_loss, *head.history.get("train_loss", [])[-1:]]
    finite = [loss for loss in losses if number(loss) is not None]
    return (head.status != "ok" or not finite, finite[0] if finite else 0.0)
