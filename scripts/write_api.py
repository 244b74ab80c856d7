#!/usr/bin/env python3
"""Writes docs/reference/python.md: the public interface, from its docstrings."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "python"))

import flask_mercure_sse as package  # noqa: E402
from flask_mercure_sse import asgi, errors, testing  # noqa: E402

PAGE = ROOT / "docs/reference/python.md"
#: Default values whose text would differ between machines.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def text_of(thing: object) -> list[str]:
    """A docstring as Markdown: fields become a list, double backticks single ones."""
    lines = []
    for line in (inspect.getdoc(thing) or "").splitlines():
        line = re.sub(r":(?:meth|class|func):`[~.]*([^`]+)`", r"`\1`", line).replace("``", "`")
        field = re.match(r":(param|raises|returns)\s*([^:]*):\s*(.*)", line)
        if field is None:
            lines.append(line)
            continue
        kind, name, rest = field.groups()
        name = {"param": f"`{name}`", "raises": f"raises `{name}`", "returns": "returns"}[kind]
        lines.append(f"- {name}: {rest}")
    return lines


def signature_of(thing: object) -> str:
    # Annotations are texts; defaults stay as they are.
    found = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(thing)))  # type: ignore[arg-type]
    return _ADDRESS.sub("", found.replace("(self, ", "(").replace("(self)", "()"))


def entry(name: str, thing: object, level: int) -> Iterator[str]:
    yield f"{'#' * level} `{name}`"
    yield ""
    if callable(thing):
        yield f"`{name.rpartition('.')[2]}{signature_of(thing)}`"
        yield ""
    yield from text_of(thing)
    yield ""


def class_entry(name: str, cls: type, level: int = 2) -> Iterator[str]:
    yield from entry(name, cls, level)
    for member_name, member in inspect.getmembers(cls):
        is_method = inspect.isfunction(member) and not member_name.startswith("_")
        if is_method and member.__module__.startswith("flask_mercure_sse"):
            yield from entry(f"{name}.{member_name}", member, level + 1)


def page() -> str:
    lines = [
        "# Python reference",
        "",
        "Written from the docstrings by `make docs`. The [guide](../flask.md) shows their use.",
        "",
    ]
    for name in sorted(package.__all__):
        thing = getattr(package, name)
        if inspect.isclass(thing) and not issubclass(thing, Exception):
            lines += class_entry(name, thing)
        elif inspect.isfunction(thing):
            lines += entry(name, thing, 2)
    lines += class_entry("asgi.MercureASGI", asgi.MercureASGI)
    for name in sorted(testing.__all__):
        thing = getattr(testing, name)
        kind = class_entry if inspect.isclass(thing) else entry
        lines += kind(f"testing.{name}", thing, 2)
    lines += ["## Exceptions", ""]
    for name, thing in vars(errors).items():
        if inspect.isclass(thing) and thing.__module__ == errors.__name__:
            bases = ", ".join(f"`{base.__name__}`" for base in thing.__bases__)
            lines += [f"- `{name}` ({bases}): {(inspect.getdoc(thing) or '').splitlines()[0]}"]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def main() -> None:
    written = page()
    if "--check" not in sys.argv:
        PAGE.write_text(written)
    elif not PAGE.exists() or PAGE.read_text() != written:
        raise SystemExit("docs/reference/python.md is not what the docstrings say; run: make docs")


if __name__ == "__main__":
    main()
