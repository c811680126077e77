"""``shardgate uninstall``."""

import rich_click as click

from shardgate.shells.uninstallation import removed_leftovers, removed_webhooks


@click.command()
@click.argument("what", type=click.Choice(["webhooks", "leftovers"]), metavar="WHAT")
@click.option("-n", "--namespace", metavar="NAMESPACE", required=True, help="Where the operator ran.")
def uninstall(what: str, namespace: str) -> None:
    """Remove what must go before or after the operator: the chart's hooks run this; `helm uninstall` is the whole of it.

    webhooks: their configurations, first, so that nobody waits for an operator that is going. leftovers: what it made while
    it ran (its Lease and Secret, the CapacityLedger, WorkloadVerdicts), last. Declarations, exceptions and policies stay.
    Exit code: 0 also where they are gone already, 69 cluster unreachable or not allowed.
    """
    for each in removed_webhooks() if what == "webhooks" else removed_leftovers(namespace):
        click.echo(each)
