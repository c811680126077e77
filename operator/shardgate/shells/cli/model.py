"""``shardgate model``."""

import rich_click as click
import yaml

from shardgate.shells.model_folder import profile_of_folder


@click.group()
def model() -> None:
    """Private models: what their names stand for."""


@model.command(name="add")
@click.argument("folder", type=click.Path(file_okay=False), metavar="DIR")
@click.option(
    "--match", multiple=True, metavar="NAME", help="As declarations spell the model; may be repeated. Default: DIR itself."
)
@click.option("--name", metavar="NAME", help="Of the ModelProfile. Default: DIR's last part.")
def model_add(folder: str, match: tuple[str, ...], name: str | None) -> None:
    """Print a ModelProfile of a folder's config.json and safetensors index; no weights are read.

    Exit code: 65 where config.json or the index cannot be read, 66 where there is none.
    """
    click.echo(yaml.safe_dump(profile_of_folder(folder, match, name), sort_keys=False), nl=False)
