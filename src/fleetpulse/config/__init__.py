"""The settings: one YAML file and environment variables -> frozen Settings, one part per room."""

from fleetpulse.config.load import Loaded, load
from fleetpulse.config.settings import Settings

__all__ = ["Loaded", "Settings", "load"]
