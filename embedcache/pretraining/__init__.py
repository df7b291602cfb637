"""Unlabelled texts in, a model folder out that knows their language better: masked-language-model training.

Files, in the order in which to read them:

    job          The door: go on with a model's training on texts, or begin one
    corpus       The texts of tables: each once, some held out by their content
    start        What is trained: a model with its tokenizer, or a new one from a configuration
    tokenizer    A tokenizer trained on the texts, for a model from scratch
    batches      Tokens in batches of like length, and the gaps in them: whole words
    training     transformers' Trainer, its checkpoints, and the perplexity of held-out texts
    checkpoints  What a killed command leaves, and whether it can go on from there
    place        Where the finished folder goes: a new place with room for the work
    finish       The finished folder, with what the base says of its sentence vectors
"""
