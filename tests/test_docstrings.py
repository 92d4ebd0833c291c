"""Docstring entries begin with a noun phrase, so that a reader learns what an argument is."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("moltc_vllm", "kernels", "benchmarks", "tests", "examples")

SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Note|Source|Example|Examples):")
ENTRY = re.compile(r"^ {4}\*{0,2}(?P<name>\w+)(?: \([^)]*\))?: (?P<text>.+)")

# Words that a noun phrase does not begin with: prepositions, pronouns, relative words and verbs.
NOT_A_NOUN_PHRASE = re.compile(
    r"(?:Of|To|That|Whose|Is|Are|As|In|By|At|For|From|Who|Whom|Which|Their|Its|It|Says|Gets|Gives|So"
    r"|Told|Asked|Also|See|Only|Not|Be|Has|Have|Does|Do|Let|Put|Take|Make|Use|Write|Read|Return"
    r"|Keep|Hold|Compute|Answer|Ask|Search|Leave)\b"
)


def docstrings(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def entries(docstring: str):
    """Name and text of every entry under ``Args`` and ``Attributes``."""
    section = None
    for line in docstring.splitlines():
        if match := SECTION.match(line):
            section = match[1]
        elif line and not line.startswith(" "):
            section = None
        elif section in ("Args", "Attributes") and (match := ENTRY.match(line)):
            yield match["name"], match["text"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_entry_begins_with_noun_phrase(folder):
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}: {text}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, docstring in docstrings(path)
        for name, text in entries(docstring)
        if NOT_A_NOUN_PHRASE.match(text) or not (text[0].isupper() or text[0] in "`\"'0123456789")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "is_fine"),
    [
        ("Folder of the checkpoint.", True),
        ("``[atoms, dim]`` states.", True),
        ("Of the parts.", False),
        ("Is told of progress.", False),
        ("That it is to be asked about.", False),
        ("Write the text.", False),
    ],
)
def test_check_tells_phrases_from_fragments(text, is_fine):
    ((name, found),) = entries(f"Summary.\n\nArgs:\n    value: {text}\n")
    assert (name, found) == ("value", text)
    assert (NOT_A_NOUN_PHRASE.match(text) is None) == is_fine
