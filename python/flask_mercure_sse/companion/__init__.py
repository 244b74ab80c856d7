"""The built-in hub: the ``mercure-hub`` binary as a companion process of the application."""

from .bus import Bus, Verdict
from .hub import BuiltInHub
from .judgement import Grant, explain_command, judge
from .process import CompanionOptions, command_of, prepare_directory

__all__ = [
    "BuiltInHub",
    "Bus",
    "CompanionOptions",
    "Grant",
    "Verdict",
    "command_of",
    "explain_command",
    "judge",
    "prepare_directory",
]
