"""``shardgate accuracy``."""

import rich_click as click

from shardgate.shells.accuracy import live_accuracy
from shardgate.shells.cli.consoles import console
from shardgate.shells.cli.forms import print_json
from shardgate.shells.cli.options import output_option
from shardgate.shells.terminal import print_accuracy


@click.command()
@output_option()
def accuracy(output: str) -> None:
    """Show how well the memory of engines that run here was predicted.

    By engine version and GPU product, as the operator reads it from the Prometheus of its prometheusUrl: predicted tokens
    of KV cache against those that engines hold. One whose p90 error exceeds 15 % refuses nothing for memory. Exit code:
    0, 66 where no operator has written anything, 69 cluster unreachable.
    """
    document = live_accuracy()
    if not print_json([document], output):
        print_accuracy(console(), document)
