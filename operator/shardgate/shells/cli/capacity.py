"""``shardgate capacity``."""

import rich_click as click

from shardgate.adapters.capacity_report import capacity_report
from shardgate.shells.cli.clusters import cluster_of
from shardgate.shells.cli.consoles import console
from shardgate.shells.cli.exit_codes import BAD_DATA
from shardgate.shells.cli.forms import print_json, print_unreadable
from shardgate.shells.cli.options import cluster_option, gpus_option, output_option
from shardgate.shells.cli.progress import working
from shardgate.shells.terminal import print_capacity


@click.command()
@cluster_option("Nodes, pods, policies and NodePools as YAML or JSON (kubectl get -o yaml will do). Default: the live cluster.")
@gpus_option()
@output_option()
@click.pass_context
def capacity(context: click.Context, clusters: tuple[str, ...], gpus: str | None, output: str) -> None:
    """Show what the cluster has of each product: GPUs, free ones, room for whole pods, what may come, who waits.

    Free and claimed as the operator's metrics count them. Pods of 8, 4, 2 or 1 GPUs: how many find room now, node by node,
    by GPUs alone. Arriving: at most so many GPUs, by autoscalers' objects, policies and nodes in transition. Pending: GPUs that
    waiting pods ask for, at every product that they could go to. Exit code: 65 for an object that cannot be read (named; the
    others count), 66 no such file, 69 cluster unreachable.
    """
    with working("reading the cluster"):
        snapshot = cluster_of(clusters, gpus)
    found = capacity_report(snapshot.inventory(), snapshot.book.rules.pools)
    print_unreadable(snapshot.unreadable)
    if not print_json([found], output):
        print_capacity(console(), found)
    context.exit(BAD_DATA if snapshot.unreadable else 0)
