"""A cache and a run in the browser and over HTTP: a JSON API and one page."""
