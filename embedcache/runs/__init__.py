"""A cache in, a run folder out: what is learned, on which rows, by which recipe, and how it went.

Files, in the order in which to read them:

    job            The door: what train-head does
    asked          What was asked of train-head, checked before anything is trained
    recipes        Settings that a person need not name: the default recipe, and the article's
    automatic      What the default recipe leaves to the data: heads, epochs, when to stop, what to validate on
    sweep          The heads of a sweep: every combination of the settings, or a random draw of them
    numbers        Columns of numbers: what a regression learns, and weights of rows
    data           What a run learns from: the cached matrix, the targets of one column, the groups
    hierarchy      Classes in a tree: a path to each of them, and how probable every node is
    hierarchy_labels  --hierarchy: the columns or the separator that make the tree of a column's classes
    sides          Where the sides of a run come from: dealt by a seed, told by a column, or those of another run
    settings_shown  Every setting that a leaderboard may have as a column
    split          Which rows train, which choose the best epoch and head, which test
    split_before   How a run without predictions.parquet was split
    warm_start     train-head --from RUN: heads that begin with the best weights of a run
    column         One label column of a run: its rows, what its heads learn
    trainer        The training of a run: all heads of all its label columns in one bank
    resume         Heads that need no second training: those of an interrupted run or of a finished one
    leaderboard    Ranking of a trained bank: one entry per combination of settings
    scores         What each score is called, for which kinds of task it is, how it is computed
    metrics        How a head does on some rows: scores, a report per class, the confusion matrix, calibration
    calibration    Whether probabilities can be taken at their word: calibration error, Brier score
    intervals      95% intervals of scores, and of differences between two models on the same rows
    level_scores   How a head does on each level of a hierarchy, and hierarchical F1
    baseline_features  What baselines learn from: rows, and numbers made of their texts or vectors
    baselines      What a head must beat on the same rows: the commonest class, TF-IDF, a linear model on the vectors
    comparisons    The chosen head beside each baseline, paired over the very same rows or groups
    wording        What a comparison with a baseline says, for screen, page, card and notes
    notes          What a person should know before trusting the numbers of a run, one line each, each once
    mistakes       Single rows that say more than a score: a head's worst mistakes
    thresholds     From which probability on a label is predicted, chosen on the validation rows
    calibration_set  The validation rows' outputs and a sample of the training rows, by which predictions are measured
    predictions    predictions.parquet: every row's side, and what the chosen head says of rows it did not learn from
    outcome        What becomes of a training: ranked heads, the best one judged, the report, the run's folder
    folder         A run directory: best and all heads (safetensors), leaderboard.csv, history.csv and run.json
    write_folder   Write a run directory, whole or not at all: beside its place, then moved there
    tables         The tables of a run, as its training wrote them: the leaderboard and the learning curves
    schema         What a run's files and a saved head may hold: every value that a reader uses
    schema_split   What run.json may say of a split, and of a head beside its baselines; schema.py has the rest
    versions       What older versions wrote, read as today's
"""
