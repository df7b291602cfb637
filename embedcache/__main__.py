"""``python -m embedcache``, and the command ``embedcache``."""

import sys


def run() -> None:
    """The command line; Ctrl-C while it is still being imported ends it like one that comes later."""
    try:
        from embedcache.cli import main

        main(prog_name="embedcache")
    except KeyboardInterrupt:
        print("Interrupted: nothing is half written; the same command starts again.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run()
