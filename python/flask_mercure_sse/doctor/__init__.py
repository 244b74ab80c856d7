"""``flask mercure doctor``: looks at an application from where its users are, and names faults.

Everything goes through the public address: what a proxy does to a stream can be seen from nowhere
else.
"""

from .case import Case, Options, origin_of
from .examination import examine
from .findings import Finding, Level

__all__ = ["Case", "Finding", "Level", "Options", "examine", "origin_of"]
