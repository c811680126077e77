"""``shardgate doctor``."""

import rich_click as click

from shardgate.shells.cli.consoles import console
from shardgate.shells.cli.exit_codes import UNDECIDED, UNHEALTHY
from shardgate.shells.cli.forms import print_json
from shardgate.shells.cli.options import output_option
from shardgate.shells.cli.progress import working
from shardgate.shells.cluster import own_namespace
from shardgate.shells.doctor import check_up
from shardgate.shells.terminal import print_checkup


@click.command()
@click.option(
    "-n",
    "--namespace",
    metavar="NAMESPACE",
    help="Where admission is asked by dry runs. Default: the kubeconfig's.",
)
@click.option(
    "--operator-namespace", default="shardgate-system", show_default=True, metavar="NAMESPACE", help="Where the operator runs."
)
@output_option()
@click.pass_context
def doctor(context: click.Context, namespace: str | None, operator_namespace: str, output: str) -> None:
    """Check whether a live installation is healthy, and say how to repair what is not.

    With your own rights: what you may not read is a check that could not be told. Nothing is written; admission is asked by
    dry runs. Exit code: 1 if a check failed, else 2 if it could not be told whether admission works, else 0; 69 cluster
    unreachable.
    """
    where = namespace or own_namespace()
    with working("checking the installation"):
        found = check_up(where, operator_namespace)
    if not print_json([found.json()], output):
        print_checkup(console(), found)
    context.exit({True: 0, False: UNHEALTHY, None: UNDECIDED}[found.healthy])
