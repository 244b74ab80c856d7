"""The order in which things are looked at: first what others depend on."""

from __future__ import annotations

from .browser import check_cookie, check_cors, check_http_version
from .case import Case
from .delivery import check_delivery
from .idle import check_idle
from .reach import check_reach
from .tokens import check_matching, check_publishing


def examine(case: Case) -> None:
    """Looks at everything; what is found is in ``case.findings``."""
    try:
        check_cookie(case)
        check_matching(case)
        if not check_reach(case):
            return
        check_cors(case)
        check_http_version(case)
        if check_publishing(case) and check_delivery(case):
            check_idle(case)
    finally:
        case.close()
