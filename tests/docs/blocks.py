"""Code blocks of the README and of the documentation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *(ROOT / "docs").rglob("*.md"),
    ]
)

BLOCK = re.compile(
    r"^(?P<indent> *)(?:<!-- test: (?P<mark>[^>]*?) -->\n *)?```(?P<language>\w*)\n"
    r"(?P<text>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
        page: File that has it.
        line: Line number of the fence.
        language: Language of the fence, empty if it names none.
        mark: Text of the comment ``<!-- test: ... -->`` above the fence, empty if there is none.
        text: Content without the indentation of the fence.
    """

    page: Path
    line: int
    language: str
    mark: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """All blocks with one of these languages, or all."""
    found = []
    for page in PAGES:
        content = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(content):
            if languages and match["language"] not in languages:
                continue
            indent = len(match["indent"])
            text = "".join(line[indent:] for line in match["text"].splitlines(keepends=True))
            line = content.count("\n", 0, match.start("language")) + 1
            found.append(Block(page, line, match["language"], match["mark"] or "", text))
    return found


def commands() -> list[tuple[str, str]]:
    """Name of the block and text of every command after ``$``, continued lines joined."""
    found = []
    for block in blocks("console"):
        text = block.text.replace("\\\n", " ")
        found += [(block.name, line[2:]) for line in text.splitlines() if line.startswith("$ ")]
    return found
