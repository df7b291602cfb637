"""A run, or several, and texts in, labels out.

Files, in the order in which to read them:

    classifier     Label texts with the best heads of a run: the run's own encoder, checked by content
    rule           When a label is given: thresholds, and rows for which a run says that it does not know
    levels         Labels of a hierarchy: the path to each, no deeper than a head is sure of it
    explanation    Why a text got its label, as it is kept and shown
    predictions    What a run's heads say of texts: one prediction, or all of them as a sequence and a table
    explain        Why a text got its label: the words that carry it, and the training rows for and against it
    own_vectors    Which words of a text to delete, where not all are tried
    together       Several runs on the same texts: what they have in common is computed once
    shared_layers  Tuned runs of one base: the layers that none of them has trained are computed once
    job            The door: label a table, or the rows of a cache, into another table
    labelling      The work itself, for every way to label: all columns of the rows and new ones, written and resumed
    rows           The rows that are labelled: those of a table, which are encoded, or those of a cache, which are not
    vector_rows    Rows of which the vectors are given, so that nothing is encoded
    predicted      Predictions as they are kept and written, and what makes them
"""
