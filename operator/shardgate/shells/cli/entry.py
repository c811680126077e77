"""The ``shardgate`` command: its commands, and the exit codes that errors become."""

import importlib
import sys

import rich_click as click

from shardgate import __version__
from shardgate.shells.cli.exit_codes import BAD_DATA, INTERNAL, INTERRUPTED, NO_INPUT, UNAVAILABLE, USAGE
from shardgate.shells.failures import ClusterFailed, NotFound, NotReadable

click.rich_click.TEXT_MARKUP = "rich"

COMMANDS = (
    "capacity",
    "snapshot",
    "verify",
    "why",
    "doctor",
    "accuracy",
    "extract",
    "nodes",
    "model",
    "uninstall",
    "whatif",
    "agent",
)
"""Each is the command of its name in the module of its name here."""


class Commands(click.RichGroup):
    """Loads a command's module when the command is asked for: a completion, or an error of usage, need not wait for all."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's own signature
        """By name, as they are shown."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # same
        """``None`` where there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        found = getattr(importlib.import_module(f"shardgate.shells.cli.{cmd_name}"), cmd_name)
        return found if isinstance(found, click.Command) else None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(__version__, prog_name="shardgate")
@click.pass_context
def cli(context: click.Context) -> None:
    """Tells whether the parallel strategy that an LLM deployment declares can run on the GPUs that are really free."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(USAGE)


def main() -> None:
    """Run, and end with the exit codes that are promised; never with a traceback."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = USAGE
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except NotReadable as error:
        click.echo(f"error: {error}", err=True)
        code = BAD_DATA
    except NotFound as error:
        click.echo(f"error: {error}", err=True)
        code = NO_INPUT
    except ClusterFailed as error:
        click.echo(f"error: cluster: {error}", err=True)
        code = UNAVAILABLE
    except Exception as error:  # noqa: BLE001  # the last resort: a person gets a sentence
        click.echo(f"error: internal: {type(error).__name__}: {error}", err=True)
        code = INTERNAL
    sys.exit(code or 0)
