"""A cache and a run in the browser and over HTTP: a JSON API and one page."""

from embedcache.common.callable_module import make_callable

make_callable(__name__, "embedcache.serve.job", "serve_cache")
