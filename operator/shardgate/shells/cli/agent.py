"""``shardgate agent``, as far as click is concerned: ``__main__`` starts it past the rest of the command line."""

import rich_click as click

from shardgate.shells.agent.command import run


@click.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def agent(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Read this node's GPU driver: print what it says (--once), or keep the node's GpuNodeReport."""
    context.exit(run(arguments))
