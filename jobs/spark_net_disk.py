"""spark-submit entry: Network and disk windows; the same arguments as `fleetpulse spark-job2`."""

import sys

from fleetpulse.cli import main

if __name__ == "__main__":
    sys.exit(main(["spark-job2", *sys.argv[1:]]))
