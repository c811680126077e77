"""``shardgate completion``."""

import rich_click as click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")
PROGRAM = "shardgate"
VARIABLE = "_SHARDGATE_COMPLETE"
"""By which the script asks."""


@click.command()
@click.argument("shell", type=click.Choice(SHELLS), metavar="SHELL")
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script by which a shell completes this command.

    bash: source <(shardgate completion bash). zsh: the same, after compinit. fish: shardgate completion fish | source.
    kubectl shardgate is completed by kubectl's own completion, which asks the program kubectl_complete-shardgate on the PATH.
    """
    found = get_completion_class(shell)
    if found is None:
        problem = f"{shell} is not known"
        raise click.UsageError(problem)
    script = found(context.find_root().command, {}, PROGRAM, VARIABLE).source()
    click.echo(script)
