"""Checks what each crate may depend on: the architecture, enforced.

Imports point one way: hub -> transports -> engine -> protocol. Each crate is defined by what it
must not use, directly or through others (``anywhere``), or in its own manifest (``direct``).
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
OURS = ["mercure-protocol", "mercure-engine", "mercure-transports", "mercure-hub"]
HTTP = ["axum", "http", "hyper", "hyper-util", "tower-http", "ureq"]
DRIVERS = ["async-nats", "fred", "redis", "rusqlite", "sqlx", "tokio-postgres"]
RUNTIME = ["async-std", "mio", "smol", "tokio"]
TOKENS = ["jsonwebtoken"]
FORBIDDEN_ANYWHERE = {
    "mercure-protocol": RUNTIME + HTTP + DRIVERS + TOKENS,
    "mercure-engine": HTTP + DRIVERS + TOKENS,
    "mercure-transports": ["axum", "hyper", *TOKENS],
    "mercure-hub": [],
}
FORBIDDEN_DIRECT = {"mercure-hub": DRIVERS}
#: Modules that alone may name a library, below the hub's source folder.
ONLY_IN = {"axum": "http", "hyper": "http", "hyper_util": "http", "httparse": ("http", "bus")}


def metadata():
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    return json.loads(output)


def dependencies(graph):
    """For each package id, the ids it uses when it is built (not for its tests)."""
    used = {}
    for node in graph["resolve"]["nodes"]:
        kinds = [(dep["pkg"], [kind["kind"] for kind in dep["dep_kinds"]]) for dep in node["deps"]]
        used[node["id"]] = [package for package, kind in kinds if None in kind]
    return used


def closure(start, used):
    seen, left = set(), [start]
    while left:
        for package in used[left.pop()]:
            if package not in seen:
                seen.add(package)
                left.append(package)
    return seen


def main():
    graph = metadata()
    names = {package["id"]: package["name"] for package in graph["packages"]}
    ids = {name: package for package, name in names.items()}
    used = dependencies(graph)
    errors = []
    for rank, crate in enumerate(OURS):
        everywhere = {names[package] for package in closure(ids[crate], used)}
        direct = {names[package] for package in used[ids[crate]]}
        forbidden = everywhere & {*FORBIDDEN_ANYWHERE[crate], *OURS[rank + 1 :]}
        forbidden |= direct & set(FORBIDDEN_DIRECT.get(crate, []))
        errors += [f"{crate} must not use {name}" for name in sorted(forbidden)]
    source = ROOT / "crates/mercure-hub/src"
    for file in sorted(source.rglob("*.rs")):
        folder = file.relative_to(source).parts[0]
        text = file.read_text()
        for library, allowed in ONLY_IN.items():
            allowed = (allowed,) if isinstance(allowed, str) else allowed
            if f"{library}::" in text and folder not in allowed:
                errors.append(f"{file.relative_to(ROOT)} must not name {library}")
    print("\n".join(errors) if errors else "import rules: ok")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
