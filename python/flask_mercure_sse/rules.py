"""Rules that decide who may read, or publish to, private topics: functions of the application."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import unquote

from .errors import ConfigurationError
from .topics import stands_for_several

Action = Literal["subscribe", "publish"]
Rule = Callable[..., Any]

#: Longest topic that a hub takes, in characters.
_LONGEST = 4096
#: ``{name}`` for one segment, ``{+name}`` for the rest, slashes included.
_EXPRESSION = re.compile(r"\{(\+?)([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class _Rule:
    text: str
    template: _Template
    actions: tuple[Action, ...]
    function: Rule

    def allows(self, topic: str, action: Action) -> bool:
        if action not in self.actions:
            return False
        variables = self.template.match(topic)
        return variables is not None and bool(self.function(**variables))


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
        self._rules.append(_Rule(template, _Template.parse(template), chosen, function))

    def allowed(self, topics: Iterable[str], action: Action, logger: logging.Logger) -> list[str]:
        """Those of some topics that a rule allows. One rule that says yes is enough.

        Topics that stand for several, templates and ``*``, are never allowed: a rule decides on one
        topic at a time.
        """
        return [
            topic
            for topic in topics
            if len(topic) <= _LONGEST
            and not stands_for_several(topic)
            and self._allows(topic, action, logger)
        ]

    def deciding(self, topic: str, action: Action | None = None) -> list[str]:
        """The rules that are asked about a topic, as text, with their actions.

        :param action: only those that decide on it.
        """
        asked = (rule for rule in self._rules if action is None or action in rule.actions)
        found = (rule for rule in asked if rule.template.match(topic) is not None)
        return [f"{rule.text} ({', '.join(rule.actions)})" for rule in found]

    def _allows(self, topic: str, action: Action, logger: logging.Logger) -> bool:
        for rule in self._rules:
            try:
                if rule.allows(topic, action):
                    return True
            except Exception:
                # Whatever is wrong with a rule, it does not grant anything.
                logger.exception("The rule for %s failed; it counts as a no", rule.text)
        return False

    def __bool__(self) -> bool:
        return bool(self._rules)


@dataclass(frozen=True)
class _Template:
    """A URI template that is matched without going back: a variable ends where the next literal
    begins for the first time, the last one where the end of the template does. However a topic is
    made, that takes time in proportion to its length."""

    start: str
    #: Name, whether it may hold slashes, and the literal after it.
    variables: tuple[tuple[str, bool, str], ...]

    @classmethod
    def parse(cls, template: str) -> _Template:
        found = list(_EXPRESSION.finditer(template))
        ends = [match.start() for match in found[1:]] + [len(template)]
        variables = tuple(
            (match[2], bool(match[1]), template[match.end() : end])
            for match, end in zip(found, ends, strict=False)
        )
        names = [name for name, _, _ in variables]
        reason = None
        if re.search(r"[{}]", _EXPRESSION.sub("", template)):
            reason = "only {name} and {+name} can be decided on"
        elif len(set(names)) < len(names):
            reason = "a name stands in it twice"
        elif any(not literal for _, _, literal in variables[:-1]):
            reason = "something must stand between two expressions"
        if reason is not None:
            raise ConfigurationError(f"the rule for {template!r}: {reason}")
        return cls(template[: found[0].start()] if found else template, variables)

    def match(self, topic: str) -> dict[str, str] | None:
        """The variables' values; ``None`` if the topic is no expansion."""
        if not self.variables:
            return {} if topic == self.start else None
        if not topic.startswith(self.start):
            return None
        values, at = {}, len(self.start)
        for number, (name, with_slashes, literal) in enumerate(self.variables):
            if number == len(self.variables) - 1:
                end = len(topic) - len(literal) if topic.endswith(literal) else -1
            else:
                end = topic.find(literal, at + 1)
            value = topic[at:end] if end > at else ""
            if not value or (not with_slashes and any(mark in value for mark in "/?#")):
                return None
            values[name], at = unquote(value), end + len(literal)
        return values
