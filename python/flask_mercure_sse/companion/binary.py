"""Where the ``mercure-hub`` binary is."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from ..errors import HubUnavailable

_NAME = "mercure-hub" + (".exe" if sys.platform == "win32" else "")


def find_binary() -> str:
    """Finds the binary that was installed with this package.

    ``MERCURE_HUB_BINARY`` in the environment goes before everything else.

    :raises HubUnavailable: if there is none, naming the fix.
    """
    chosen = os.environ.get("MERCURE_HUB_BINARY")
    if chosen:
        chosen = os.path.abspath(chosen)
        if os.access(chosen, os.X_OK):
            return chosen
        raise HubUnavailable(f"MERCURE_HUB_BINARY names {chosen}, which is not executable")
    # Where pip puts scripts: in the environment, for a user, and below a --target directory.
    places = [sysconfig.get_path("scripts")]
    user_scheme = sysconfig.get_preferred_scheme("user")
    places.append(sysconfig.get_path("scripts", scheme=user_scheme))
    places.append(str(Path(__file__).parents[2] / "bin"))
    for place in places:
        candidate = os.path.join(place, _NAME)
        if os.access(candidate, os.X_OK):
            return candidate
    found = shutil.which(_NAME)
    if found is None:
        raise HubUnavailable(
            "the mercure-hub binary is missing: reinstall flask-mercure-sse from a wheel for this "
            "platform, set MERCURE_HUB_BINARY, or use a hub elsewhere by MERCURE_HUB_URL"
        )
    return found
