"""Rules that decide who may read, or publish to, private topics: functions of the application."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import unquote

from .errors import ConfigurationError

Action = Literal["subscribe", "publish"]
Rule = Callable[..., Any]

#: ``{name}`` for one segment, ``{+name}`` for the rest, slashes included.
_EXPRESSION = re.compile(r"\{(\+?)([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class _Rule:
    template: str
    pattern: re.Pattern[str]
    actions: tuple[Action, ...]
    function: Rule

    def allows(self, topic: str, action: Action) -> bool:
        if action not in self.actions:
            return False
        found = self.pattern.fullmatch(topic)
        if found is None:
            return False
        variables = {name: unquote(value) for name, value in found.groupdict().items()}
        return bool(self.function(**variables))


class Rules:
    """The rules of an extension, in the order in which they were declared."""

    def __init__(self) -> None:
        self._rules: list[_Rule] = []

    def add(self, template: str, actions: Iterable[Action], function: Rule) -> None:
        """Declares a rule.

        :param template: URI template of the topics that it decides on, with ``{name}`` and
            ``{+name}``.
        :raises ConfigurationError: for another kind of template, or an unknown action.
        """
        chosen = tuple(actions)
        if unknown := set(chosen) - set(get_args(Action)):
            raise ConfigurationError(f"unknown action: {', '.join(sorted(unknown))}")
        self._rules.append(_Rule(template, _pattern_of(template), chosen, function))

    def allowed(self, topics: Iterable[str], action: Action, logger: logging.Logger) -> list[str]:
        """Those of some topics that a rule allows. One rule that says yes is enough.

        Topics that stand for several, templates and ``*``, are never allowed: a rule decides on one
        topic at a time.
        """
        return [
            topic
            for topic in topics
            if topic != "*" and "{" not in topic and self._allows(topic, action, logger)
        ]

    def _allows(self, topic: str, action: Action, logger: logging.Logger) -> bool:
        for rule in self._rules:
            try:
                if rule.allows(topic, action):
                    return True
            except Exception:
                # Whatever is wrong with a rule, it does not grant anything.
                logger.exception("The rule for %s failed; it counts as a no", rule.template)
        return False

    def __bool__(self) -> bool:
        return bool(self._rules)


def _pattern_of(template: str) -> re.Pattern[str]:
    expression, end = "", 0
    for found in _EXPRESSION.finditer(template):
        literal = template[end : found.start()]
        rest, name = found.groups()
        inside = ".+" if rest else "[^/?#{}]+"
        expression += f"{re.escape(literal)}(?P<{name}>{inside})"
        end = found.end()
    expression += re.escape(template[end:])
    if re.search(r"[{}]", _EXPRESSION.sub("", template)):
        raise ConfigurationError(
            f"the rule for {template!r}: only {{name}} and {{+name}} can be decided on"
        )
    try:
        return re.compile(expression, re.DOTALL)
    except re.error as error:
        raise ConfigurationError(f"the rule for {template!r}: {error}") from error
