"""Arrays in, trained heads out: no cache and no folder is known here.

Files, in the order in which to read them:

    settings         What a setting may be, and what else is known of it: option, label, how it is drawn
    spec             One head's settings, the table of what is known of each, and grids of heads
    kinds/           The kinds of task: what y and outputs are, and all that follows from it; --task, which names them
    losses           What a head minimizes: the registry, the twin of csrc/heads/losses
    targets          What y means: labels, lists of labels or numbers, to the arrays that a Task holds
    task             What every engine reads and gives back
    arrays           What comes in as numbers: any array or tensor as a NumPy matrix
    sample_weights   Weights of rows: what people give as what a task holds
    train            The door: train a bank of heads through an engine
    engine           What every engine is: one call that trains a bank
    engine_native    The native engine: ctypes binding of csrc/heads/heads.h
    engine_torch     The engine in plain torch: the same training with the same random streams, readable and slower
    random_streams   The engines' random streams in NumPy; csrc/heads/numerics.h specifies them
    memory           Where the weights of a bank's heads are while it trains: in memory, or in a file
    head             A trained head: weights and how they came about; predicts, goes to torch
    schema           What a saved head may hold: every value with its type and bounds
    sklearn          Heads as scikit-learn estimators: for pipelines, cross-validation and searches
    search_cv        A grid search that trains all its candidates on all folds together, as heads of one bank
"""
