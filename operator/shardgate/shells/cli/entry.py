"""The ``shardgate`` command: its commands, and the exit codes that errors become."""

import importlib
import sys
from collections.abc import Mapping
from pathlib import PurePath
from typing import TextIO, cast

import rich_click as click
from click.shell_completion import CompletionItem

from shardgate import __version__
from shardgate.shells.cli.exit_codes import BAD_DATA, INTERNAL, INTERRUPTED, NO_INPUT, UNAVAILABLE, USAGE
from shardgate.shells.cli.streams import LastingOutput
from shardgate.shells.failures import ClusterFailed, NotFound, NotReadable

click.rich_click.OPTIONS_TABLE_COLUMN_TYPES = ["opt_all_metavar", "help"]  # in 46 columns, too, no name is cut

COMMANDS: Mapping[str, str] = {
    "accuracy": "Show how well the memory of engines that run here was predicted.",
    "agent": "Read this node's GPU driver: print what it says (--once), or keep the node's GpuNodeReport.",
    "capacity": "Show what the cluster has of each product: GPUs, free ones, room for whole pods, what may come, who waits.",
    "completion": "Print the script by which a shell completes this command.",
    "doctor": "Check whether a live installation is healthy, and say how to repair what is not.",
    "explain": "Explain a finding by its code: what it means, which engines refuse it from which versions, and what helps.",
    "extract": "Print what manifests of any supported kind declare, and what in them could not be read.",
    "model": "Private models: what their names stand for.",
    "nodes": "Show how each node's GPUs are read, and where each fact comes from.",
    "plan": "Find the best strategies for a model on this cluster, and the hardware that it would need.",
    "snapshot": "Print the live cluster's facts for --cluster.",
    "uninstall": "Remove what must go before or after the operator.",
    "verify": "Judge declarations against a cluster.",
    "whatif": "Show which standing verdicts would change, if the cluster did.",
    "why": "Say why a live object does not run, or why one was refused.",
}
"""Each is the command of its name in the module of its name here; its first sentence, for completions that load no module."""


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

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands, and this one's own options."""
        names = [CompletionItem(name, help=text) for name, text in sorted(COMMANDS.items()) if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)


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
    output, errors = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", LastingOutput(stream)) for stream in (output, errors))
    try:
        code = _run()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        sys.stdout, sys.stderr = output, errors
    sys.exit(code)


def _run() -> int:
    is_plugin = PurePath(sys.argv[0]).name.startswith("kubectl-")
    try:
        code = cli.main(prog_name="kubectl shardgate" if is_plugin else None, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  # the last resort: a person gets a sentence
        code, text = _told(error)
        click.echo(f"error: {text}", err=True)
        return code
    return code if isinstance(code, int) else 0


def _told(error: Exception) -> tuple[int, str]:
    """(exit code, what is said)."""
    match error:
        case NotReadable():
            return BAD_DATA, str(error)
        case NotFound():
            return NO_INPUT, str(error)
        case ClusterFailed():
            return UNAVAILABLE, f"cluster: {error}"
        case _:
            return INTERNAL, f"internal: {type(error).__name__}: {error}"
