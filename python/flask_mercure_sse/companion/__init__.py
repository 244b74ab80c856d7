"""The built-in hub: the ``mercure-hub`` binary as a companion process of the application."""

from .bus import Bus, Verdict
from .process import CompanionOptions

__all__ = ["Bus", "CompanionOptions", "Verdict"]
