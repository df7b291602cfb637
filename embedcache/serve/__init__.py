"""A cache and runs in the browser and over HTTP: a JSON API and one page, on which people can label.

Files, in the order in which to read them:

    job             The door: open everything, listen, stop
    server          Listen, report the address, and stop cleanly
    app             The routes
    schema          Requests and answers of the JSON API, as its OpenAPI document describes them
    embeddings      Vectors of texts, as programs ask OpenAI's API for them
    service         What is served: a searched cache, the encoder, the best heads of runs
    served_run      A run that is served: its best heads, what they read, which texts they were trained on
    label_column    Which column people label, and from what they start
    label_session   People labelling it: which row each sees next, what they said, how far they are
    label_arrays    The labels of the column as arrays that keep up with the journal
    label_rounds    Heads trained again, labels judged and rows ranked anew, by one thread
    label_routes    The routes by which people label
    comparison      The served runs on the same texts: those that are test rows in all of them, paired
    micro_batches   Micro-batching: what many requests ask for at the same time is done together, by one thread
    limits          What one request may ask for, and the middleware that holds it to size and time
    security        Who may ask, and what a browser may do with the answer
    prometheus      Prometheus metrics, the log of requests, and the last line of defence
    asked           What was asked: whether it is like the rows of the cache, and which labels it has
    kept            Kept columns as the page filters and colours by them
    sides           Which texts a run's heads were trained on: a prediction for those is not a test
    leaderboard     A run's leaderboard and learning curves, as they stand in its files
    map             The map while the server runs: read, or computed by another process meanwhile
    map_colors      The colours of its points, which follow the labels that people give
    projection      A map of a cache: its vectors in two dimensions, near where they are alike
"""

from embedcache.common.callable_module import make_callable

make_callable(__name__, "embedcache.serve.job", "serve_cache")
