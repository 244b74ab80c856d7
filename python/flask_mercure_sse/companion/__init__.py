"""The built-in hub: the ``mercure-hub`` binary as a companion process of the application."""

from .bus import Bus, Verdict
from .hub import BuiltInHub
from .process import CompanionOptions, command_of, prepare_directory

__all__ = ["BuiltInHub", "Bus", "CompanionOptions", "Verdict", "command_of", "prepare_directory"]
