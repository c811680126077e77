"""``python -m shardgate`` and the ``shardgate`` command."""

import sys

AGENT = "agent"


def main() -> None:
    """The node agent past everything else: it runs on every GPU node, and does without what the other commands import."""
    if sys.argv[1:2] == [AGENT]:
        from shardgate.shells.agent.command import run  # noqa: PLC0415  # so that neither loads the other

        sys.exit(run(sys.argv[2:]))
    from shardgate.shells.cli import main as command_line  # noqa: PLC0415  # same

    command_line()


if __name__ == "__main__":
    main()
