"""spark-submit entry: live windows from Kafka; the same arguments as `fleetpulse spark-stream`."""

import sys

from fleetpulse.cli import main

if __name__ == "__main__":
    sys.exit(main(["spark-stream", *sys.argv[1:]]))
