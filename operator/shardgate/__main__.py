"""``python -m shardgate`` and the ``shardgate`` command."""

from shardgate.shells.cli import main

if __name__ == "__main__":
    main()
