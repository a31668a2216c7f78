"""spark-submit entry: CPU and memory windows; the same arguments as `fleetpulse spark-job1`."""

import sys

from fleetpulse.cli import main

if __name__ == "__main__":
    sys.exit(main(["spark-job1", *sys.argv[1:]]))
