"""Labels as text in, labelled rows out: nothing is trained.

Files, in the order in which to read them:

    job             The door: label a table or the rows of a cache, and score them where labels are known
    labels          What --labels says: a name and descriptions each
    method          A way to do it: what each of ``methods`` must do
    methods/        The ways, one file each: similarity, masked, entailment, causal
    prompted        What masked and causal share: template, examples, calibration by content-free texts
    fitting         Long texts cut so that the template around them stays whole
    examples        Labelled neighbours in the cache, for prompts
    language_model  A model with its head, as transformers loads it, by content
    scores          How often the labels are right, where they are known
    start           What the names of classes alone say of a cache's rows: where labelling begins from nothing
"""
