"""`python main.py ROLE` is the same as `fleetpulse ROLE`."""

import sys

try:
    from fleetpulse.cli import main
except ModuleNotFoundError as err:
    sys.exit(f"{err}: run `make setup`, then .venv/bin/python main.py ROLE")
sys.exit(main())
