"""Signals of the extension, for applications that want to know how publishing goes.

Every signal's sender is the application. Receivers may run in a thread of the extension, outside
of any request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from blinker import Namespace

if TYPE_CHECKING:
    from blinker import NamedSignal

    from .extension import MercureSSE

_signals = Namespace()

#: An update was accepted by the hub. Argument: ``id``, the event's id.
update_published = _signals.signal("update-published")
#: An update was not accepted. Arguments: ``id``, and ``error``, an exception.
publish_failed = _signals.signal("publish-failed")


def publish_signal(
    mercure: MercureSSE,
    signal: NamedSignal,
    topic: Any = None,
    data: Any = None,
    *,
    signal_name_as_type: bool = False,
    signal_kwargs_as_data: bool = False,
    marshaler: Callable[[Any], Any] | None = None,
    callback: Callable[[dict[str, Any]], Any] | None = None,
    **publish_options: Any,
) -> Callable[..., None]:
    """Publishes an update each time a signal is sent; see :meth:`MercureSSE.publish_signal`."""

    def receiver(sender: Any, **arguments: Any) -> None:
        # Made anew for every signal: what one receives must not change the next one's update.
        update = {**publish_options, "topic": topic, "data": data}
        if signal_kwargs_as_data:
            update["data"] = {**(data or {}), **arguments}
        if marshaler is not None:
            update["data"] = marshaler(update["data"])
        if signal_name_as_type:
            update["type"] = signal.name
        own = getattr(sender, "__mercure_publish__", None)
        if isinstance(own, Mapping):
            update |= own
        if callback is not None and callback(update) is False:
            return
        update["topic"] = update["topic"] or signal.name
        if update["data"] is None:
            update["data"] = ""
        mercure.publish(**update)

    signal.connect(receiver, weak=False)
    return receiver
