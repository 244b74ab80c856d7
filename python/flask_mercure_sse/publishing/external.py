"""Publishing to a hub that is reached by URL."""

from __future__ import annotations

import urllib3

from .errors import HubUnavailable

_pool = urllib3.PoolManager(maxsize=16)


def post(url: str, body: bytes, token: str, timeout: float) -> tuple[int, str]:
    """Sends a publish request; returns status and body of the answer.

    Not repeated on failure: the hub may have accepted the update before the answer was lost.

    :param timeout: for the whole exchange, in seconds.
    :raises HubUnavailable: if no answer arrives in time.
    """
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    try:
        answer = _pool.request(
            "POST",
            url,
            body=body,
            headers=headers,
            timeout=urllib3.Timeout(total=timeout),
            retries=False,
            redirect=False,
        )
    except urllib3.exceptions.HTTPError as error:
        # The message of the library may repeat the URL, never the token: that is in a header.
        raise HubUnavailable(f"the hub cannot be reached: {error}") from error
    return answer.status, answer.data.decode("utf-8", "replace")
