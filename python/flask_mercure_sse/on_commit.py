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
    :param transaction: the innermost one when it was given; ``None`` if none had begun.
    """

    update: Update
    publisher: Publisher
    sending: dict[str, Any]
    transaction: SessionTransaction | None = None


def publish_after_commit(app: Flask, session: Any, pending: Pending) -> None:
    """Publishes an update after the commit of a session's transaction, or never.

    :param session: the session; Flask-SQLAlchemy's if it is ``None``.
    :raises ConfigurationError: if there is none.
    """
    found = _session(app, session)
    pending.transaction = found.get_nested_transaction() or found.get_transaction()
    if _KEY not in found.info:
        found.info[_KEY] = []
        event.listen(found, "after_commit", _after_commit)
        event.listen(found, "after_soft_rollback", _after_rollback)
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


def _after_commit(session: Session) -> None:
    """The outermost transaction is committed; a savepoint only hands on to the one around it."""
    savepoint = session.get_nested_transaction()
    if savepoint is not None:
        for pending in session.info[_KEY]:
            if pending.transaction is savepoint:
                pending.transaction = savepoint.parent
        return
    ready, session.info[_KEY] = session.info[_KEY], []
    for pending in ready:
        pending.publisher.send(pending.update, **pending.sending)


def _after_rollback(session: Session, ended: SessionTransaction) -> None:
    """What was meant within the transaction, or within a savepoint of it, did not happen."""

    def lives(transaction: SessionTransaction | None) -> bool:
        if transaction is None:
            return ended.parent is not None
        while transaction is not None and transaction is not ended:
            transaction = transaction.parent
        return transaction is None

    session.info[_KEY] = [one for one in session.info[_KEY] if lives(one.transaction)]
