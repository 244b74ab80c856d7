"""Checks that source files stay readable: 400 lines at the most, tests aside."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIMIT = 400


def main():
    errors = []
    for folder, pattern in [("crates", "*.rs"), ("python", "*.py"), ("examples", "*.py")]:
        for file in sorted((ROOT / folder).rglob(pattern)):
            if "tests" in file.parts or file.name == "tests.rs":
                continue
            code = file.read_text().split("#[cfg(test)]\nmod tests {")[0]
            lines = code.count("\n")
            if lines > LIMIT:
                errors.append(f"{file.relative_to(ROOT)}: {lines} lines, more than {LIMIT}")
    print("\n".join(errors) if errors else "file sizes: ok")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
