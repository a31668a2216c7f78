"""`config check` and `config show`."""

import typer

from fleetpulse.cli.console import ConfigOption, JsonOption, print_json, settings_of

app = typer.Typer(
    help="Check the settings, or show which value holds and why.", no_args_is_help=True
)


@app.command()
def check(config: ConfigOption = None) -> None:
    """Check the settings file and the FLEETPULSE__ variables; exit 2 names each mistake."""
    loaded = settings_of(config)
    typer.echo(f"{loaded.file or 'no settings file, defaults only'}: no mistakes")


@app.command()
def show(config: ConfigOption = None, as_json: JsonOption = False) -> None:  # noqa: FBT002
    """Show every setting with its effective value and where that comes from."""
    leaves = list(settings_of(config).leaves())
    if as_json:
        print_json({path: {"value": value, "from": origin} for path, value, origin in leaves})
        return
    width = max(len(path) for path, _, _ in leaves)
    for path, value, origin in leaves:
        text = "null" if value is None else str(value)
        typer.echo(f"{path:<{width}}  {text:<32}  {origin}")
