"""What the doctor has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: ``fault``: something does not work. ``warning``: it works, and some users will suffer.
Level = Literal["ok", "note", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """One finding.

    :param cause: a short name: ``buffering``, ``wrong-key``.
    :param text: what was seen.
    :param fix: what to do about it; empty if there is nothing to do.
    """

    level: Level
    cause: str
    text: str
    fix: str = ""
