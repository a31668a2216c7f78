"""The commands.

A role is imported inside its own command, so that each starts fast and alone.
"""

import typer

from fleetpulse.cli import analyze, broker, consume, demo, produce, settings, spark, stream, topics
from fleetpulse.cli.console import run

app = typer.Typer(
    name="fleetpulse",
    help="Real-time server monitoring on Apache Kafka and Apache Spark.",
    epilog="Every command explains itself: fleetpulse COMMAND --help",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# In the order of --help: first what a newcomer types, then the roles along the way of the data.
app.command()(demo.demo)
app.command()(broker.setup)
app.add_typer(broker.app, name="broker")
app.add_typer(topics.app, name="topics")
app.command()(produce.producer)
app.command()(consume.consumer1)
app.command()(consume.consumer2)
app.add_typer(analyze.app, name="analyze")
app.command()(spark.spark_job1)
app.command()(spark.spark_job2)
app.command()(spark.spark_jobs)
app.command()(stream.spark_stream)
app.command()(produce.simulate)
app.add_typer(settings.app, name="config")


def main(arguments: list[str] | None = None) -> int:
    """Run the command in `arguments` (default: those of the process) and return its exit code."""
    return run(app, arguments)
