"""The settings: one YAML file and environment variables -> frozen Settings, one part per room."""

from fleetpulse.config.edit import set_value
from fleetpulse.config.load import DEFAULT_FILE, Loaded, load
from fleetpulse.config.settings import Settings

__all__ = ["DEFAULT_FILE", "Loaded", "Settings", "load", "set_value"]
