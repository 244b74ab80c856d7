"""Publishing bound to a database transaction of SQLAlchemy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Flask
from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from .errors import ConfigurationError
from .publishing import Publisher
from .updates import Update

_KEY = "flask_mercure_sse"


@dataclass
class Pending:
    """An update that waits for its transaction.

    :param sending: arguments of :meth:`Publisher.send`.
    :param transaction: the innermost one when it was given.
    :param committed: whether its outermost transaction is committed, and only has to end.
    """

    update: Update
    publisher: Publisher
    sending: dict[str, Any]
    transaction: SessionTransaction | None = None
    committed: bool = False


def publish_after_commit(app: Flask, session: Any, pending: Pending) -> None:
    """Publishes an update after the commit of a session's transaction, or never.

    :param session: the session; Flask-SQLAlchemy's if it is ``None``.
    :raises ConfigurationError: if there is none.
    """
    found = _session(app, session)
    # What is done in the session next belongs to a transaction that begins here, if none has.
    pending.transaction = found.get_nested_transaction() or found.get_transaction() or found.begin()
    if pending.sending["on_failure"] in (None, "raise"):
        # The commit has happened by then; an exception would only say that it had not.
        pending.sending["on_failure"] = pending.publisher.quietly
    if _KEY not in found.info:
        found.info[_KEY] = []
        event.listen(found, "after_commit", _committed)
        event.listen(found, "after_transaction_end", _ended)
    found.info[_KEY].append(pending)


def _session(app: Flask, session: Any) -> Session:
    if session is None:
        extension = app.extensions.get("sqlalchemy")
        if extension is None:
            raise ConfigurationError(
                "publish_on_commit needs a session: pass session=…, or use Flask-SQLAlchemy"
            )
        session = extension.session
    if isinstance(session, scoped_session):
        session = session()
    session = getattr(session, "sync_session", session)
    if not isinstance(session, Session):
        raise ConfigurationError(f"{session!r} is no SQLAlchemy session")
    return session


def _committed(session: Session) -> None:
    """The outermost transaction is committed; a savepoint only hands on to the one around it."""
    savepoint = session.get_nested_transaction()
    for pending in session.info[_KEY]:
        if savepoint is None:
            pending.committed = True
        elif pending.transaction is savepoint:
            pending.transaction = savepoint.parent


def _ended(session: Session, transaction: SessionTransaction) -> None:
    """A transaction that ends without a commit, however it ends, takes its updates along."""
    waiting: list[Pending] = session.info[_KEY]
    ready = [one for one in waiting if one.committed and transaction.parent is None]
    session.info[_KEY] = [
        one for one in waiting if one not in ready and one.transaction is not transaction
    ]
    for pending in ready:
        pending.publisher.send(pending.update, **pending.sending)
