"""What a user writes, for `mypy --strict`: every public function, and what comes back."""

from __future__ import annotations

from pathlib import Path

import embedcache as ec


def from_table_to_labels(folder: Path) -> list[str]:
    extracted: ec.ExtractReport = ec.extract(
        folder / "reviews.csv", folder / "reviews.h5", model="m", text="review", labels=["stars"], keep=["film"]
    )
    print(f"{extracted.rows:,} rows, {extracted.truncated} truncated")
    checked: ec.VerifyReport = ec.verify(folder / "reviews.h5")
    run: ec.RunReport = ec.train_run(
        folder / "reviews.h5", folder / "run", lr=[1e-4, 1e-3], seed=range(3), group="film"
    )
    page: ec.ReportFile = ec.report(folder / "run")
    print(checked.ok, run.documents, run.best["name"], page.report)
    classifier = ec.Classifier.load(folder / "run", "cpu", calibrated=True)
    predictions: ec.Predictions = classifier.predict(["a text", "another"])
    first: ec.Prediction = predictions[0]
    some: ec.Predictions = predictions[:1]
    assert len(some) == 1 and isinstance(first.label, str)
    print(first.probabilities["good"].as_integer_ratio(), classifier.predict_proba("a text").sum(axis=1))
    written: ec.FileReport = ec.predict_file(classifier, "new.csv", "labelled.parquet", column="guess")
    print(written.rows, predictions.labels, predictions.to_pandas(), predictions.to_arrow(probabilities=True))
    return [text for one in predictions if isinstance(one.label, str) for text in (one.label.upper(), one.text.lower())]


def banks_of_heads(path: Path) -> ec.TrainedHead:
    with ec.open_cache(path) as cache:
        X, (y, classes) = cache.embeddings("cls"), cache.labels("stars")
        grid: list[ec.HeadSpec] = ec.head_grid(hidden=[0, 512], lr=[1e-4], seed=range(4))
        result: ec.BankResult = ec.train_heads(X[10:], y[10:], grid, validation=(X[:10], y[:10]), threads=None)
        print(len(cache), cache.texts[0].upper(), cache.to_pandas(slice(0, 5), vectors="cls"), classes[0].upper())
        print(
            cache.labels("stars").known.sum(), result.history["val_loss"].shape, result.to_arrow(), result.best.spec.lr
        )
        return result.best


def searching(path: Path) -> list[str]:
    made: ec.IndexReport = ec.index(path, kind="exact", recall=1.0)
    report: ec.SearchReport = ec.search(path, "a text", k=5, where="stars<3")
    print(made.kind, report.to_pandas())
    with ec.Searcher.open(path) as searcher:
        answers: list[ec.Answer] = searcher.search("a text", 3)
        answers += searcher.search([ec.Query(("like this", 7), unlike=("not this",)), "a text"], dedupe=True)
    neighbours: ec.Neighbours = ec.SearchIndex.build(path).search("a text", k=3)
    print(neighbours.scores.max(), ec.search_file(path, "questions.csv", "answers.csv").found)
    found: list[ec.Found] = [one for answer in answers for one in answer.results]
    return [one.text + (one.id or "") + one.columns["film"] for one in found]


def the_rest(path: Path) -> None:
    try:
        audit: ec.AuditReport = ec.audit(path, group="film")
        print(len(audit.labels), audit.to_pandas(), ec.merge(["a.h5", "b.h5"], path).rows)
        exported: ec.ExportReport = ec.export("run", to="onnx", output="model")
        print(exported.output, ec.load_run("run").classes, [head.dim for head in ec.load_heads("run").values()])
        ec.serve(path, "run", port=0)
    except ec.EmbedcacheError as error:
        print(error)
