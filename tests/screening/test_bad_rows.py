"""A file with every kind of bad row gives one output row per input row, each with its reason."""

import csv
import io
import json
import random

import pyarrow.parquet as pa_parquet
from typer.testing import CliRunner

from moltc_vllm.cli import app, screen_engines
from moltc_vllm.cli.screen import EXIT_FAILED_ROWS
from tests.screening.fake_engines import HashEngine

LONG = 10 << 20


def bad_rows():
    """Yield the bytes of a line, its status, and a part of its reason."""
    yield b"C1CC,O,ring", "bad_molecule", "molecule 'C1CC': syntax"
    yield b"CO1C,O,ring", "bad_molecule", "molecule 'CO1C': syntax"
    yield b"C(C)(C)(C)(C)C,O,valence", "bad_molecule", "valence"
    yield b",O,nothing", "bad_molecule", "empty"
    yield b"", "error", "the line is empty"
    yield b"CCO,O", "error", "the row has 2 columns, the header 3"
    yield b"CCO,O,a,b", "error", "the row has 4 columns, the header 3"
    yield b"C" * LONG + b",O,long", "error", "bytes, more than 131,072"
    yield "CCO,O,Ethanöl".encode("latin-1"), "error", "0xf6, not UTF-8"
    yield "CCO,O,エタノール".encode("shift_jis"), "error", "not UTF-8"
    yield b'CCO,O,"not closed', "error", "the row cannot be read"
    yield b"not a molecule,O,words", "bad_molecule", "syntax"


def build_file(seed=1):
    """Mix 800 good and 200 bad rows, with a byte-order mark and both kinds of line ends."""
    good = [("C" * (1 + n % 9) + "O", "O", f"name {n % 5}") for n in range(800)]
    lines = []
    for cells in good:
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(cells)
        lines.append((text.getvalue().encode(), "ok", None))
    kinds = list(bad_rows())
    short = [row for row in kinds if len(row[0]) < LONG]
    lines += kinds + [short[n % len(short)] for n in range(200 - len(kinds))]
    rng = random.Random(seed)
    rng.shuffle(lines)
    # Empty lines at the end of a file are no rows, and two open quotes would close each other.
    lines.sort(key=lambda line: line[0] == b"")
    empty = [line for line in lines if line[0] == b""]
    rest = lines[: -len(empty)]
    for line in empty:
        rest.insert(rng.randrange(len(rest)), line)
    ends = [rng.choice([b"\n", b"\r\n"]) for _ in rest]
    body = b"".join(line[0] + end for line, end in zip(rest, ends, strict=True))
    return b"\xef\xbb\xbfsmiles_a,smiles_b,name\r\n" + body, rest


def test_screen_writes_one_row_per_input_row(tmp_path, monkeypatch):
    monkeypatch.setattr(screen_engines, "open_engine", lambda *_, **__: HashEngine())
    content, lines = build_file()
    (tmp_path / "pairs.csv").write_bytes(content)
    arguments = ["screen", "--task", "solvation", "--pairs", str(tmp_path / "pairs.csv")]
    arguments += ["--out", str(tmp_path / "out"), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["rows"] == len(lines) == 1000
    rows = pa_parquet.read_table(tmp_path / "out" / "part-000000.parquet").to_pylist()
    assert [row["row"] for row in rows] == list(range(1, 1001))
    for row, (line, status, reason) in zip(rows, lines, strict=True):
        assert row["status"] == status, (line[:80], row)
        if reason is None:
            assert row["value"] is not None
            assert f"{row['smiles_a']},{row['smiles_b']},{row['name']}".encode() == line
        else:
            assert reason in row["error"], (line[:80], row["error"])
            assert row["value"] is None
    page = (tmp_path / "out" / "report.html").read_text()
    assert "the row has 2 columns, the header 3" in page
    strict = CliRunner().invoke(app, [*arguments, "--strict"])
    assert strict.exit_code == EXIT_FAILED_ROWS
