"""Makes `python -m fleetpulse` the same as the command `fleetpulse`."""

import sys

from fleetpulse.cli import main

sys.exit(main())
