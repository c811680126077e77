"""``shardgate snapshot``."""

import rich_click as click

from shardgate.shells.cli.exit_codes import BAD_DATA
from shardgate.shells.cli.forms import print_unreadable
from shardgate.shells.cli.progress import working
from shardgate.shells.cluster_snapshots import cluster_snapshot


@click.command()
@click.option(
    "--workloads",
    "with_workloads",
    is_flag=True,
    help="Also workloads of other kinds and what they refer to, ConfigMaps among it: their commands and variables as they stand.",
)
@click.pass_context
def snapshot(context: click.Context, *, with_workloads: bool) -> None:
    """Print the live cluster's facts for --cluster: nodes, pods, claims, quotas, pools, policies, InferenceDeployments.

    A List as JSON, an object a line; of each object what verdicts rest on, no images, commands or variables of pods. Values that
    by their names are secrets are taken out of declarations. Exit code: 65 for an object that cannot be read (named; the others
    are printed), 69 cluster unreachable.
    """
    with working("reading the cluster"):
        found = cluster_snapshot(with_workloads=with_workloads)
    for line in found.text():
        click.echo(line, nl=False)
    print_unreadable(found.unreadable)
    context.exit(BAD_DATA if found.unreadable else 0)
