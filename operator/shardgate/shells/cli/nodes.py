"""``shardgate nodes``."""

import rich_click as click

from shardgate.shells.cli.clusters import cluster_of
from shardgate.shells.cli.consoles import console
from shardgate.shells.cli.exit_codes import BAD_DATA
from shardgate.shells.cli.forms import print_json, print_unreadable
from shardgate.shells.cli.options import cluster_option, output_option
from shardgate.shells.cli.progress import working
from shardgate.shells.terminal import print_nodes


@click.command()
@cluster_option("Nodes and ResourceSlices as YAML or JSON (kubectl get -o yaml will do). Default: the live cluster.")
@output_option()
@click.pass_context
def nodes(context: click.Context, clusters: tuple[str, ...], output: str) -> None:
    """Show how each node's GPUs are read, and where each fact comes from.

    Exit code: 65 for a node that cannot be read (named; the others are shown), 66 no such file, 69 cluster unreachable.
    """
    with working("reading the cluster"):
        snapshot = cluster_of(clusters)
        found = snapshot.nodes()
    print_unreadable(snapshot.unreadable)
    if not print_json([{"nodes": found}], output):
        print_nodes(console(), found)
    context.exit(BAD_DATA if snapshot.unreadable else 0)
