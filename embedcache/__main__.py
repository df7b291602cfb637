"""``python -m embedcache``."""

from embedcache.cli import main

main(prog_name="embedcache")
