"""The page stands alone, has every pair drawn, and whatever is in a file is text on it."""

from html.parser import HTMLParser

import numpy as np

from moltc_vllm.screening import charts
from moltc_vllm.screening.heatmap import Cell, Heatmap
from moltc_vllm.screening.report import Failure, Hit, Page, write_report
from moltc_vllm.tasks import get_task


class Reader(HTMLParser):
    """Counts elements; nothing is loaded from anywhere, nothing is left open."""

    EMPTY = frozenset({"meta", "br"})

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.ids = {}, [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        if tag not in self.EMPTY:
            self.open.append(tag)
        for name, value in attrs:
            assert name != "src", f"loads {value}"
            if name.endswith("href"):
                assert value.startswith(("#", "data:image/png;base64,")), f"loads {value}"
            if name == "id":
                self.ids.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def written(tmp_path, page):
    path = tmp_path / "report.html"
    write_report(path, page)
    return path.read_text()


def test_every_pair_is_drawn_and_failures_are_said(tmp_path):
    task = get_task("solvation")
    good = task.answer(task.write(-3.2))
    bad = task.failed("bad_molecule", "molecule 'C(' <broken>")
    page = Page(
        title="A & B",
        settings={"task": "x"},
        counts={"ok": 1, "bad_molecule": 1},
        note="<noise>",
        hits=[
            Hit(("<b>ethanol", "water"), ("CCO", "O"), good, 1234),
            Hit(("broken", "water"), ("C(", "O"), bad),
        ],
        failures=[Failure("bad_molecule: <syntax>", 1, 2)],
    )
    text = written(tmp_path, page)
    found = Reader(text)
    assert found.tags["svg"] == 3
    assert "-3.2" in text
    assert "likeliest from -3.5 to -3" in text
    assert "row 1,234" in text
    assert "cannot be drawn" in text
    for escaped in ("&lt;broken&gt;", "&lt;b&gt;ethanol", "A &amp; B", "&lt;noise&gt;"):
        assert escaped in text
    assert "bad_molecule: &lt;syntax&gt;" in text
    assert "Distributions" not in text


def test_charts_and_a_heat_map(tmp_path):
    drawn = [
        charts.histogram("numbers", np.linspace(-3, 3, 500), "energy", "kcal/mol"),
        charts.histogram("numbers too", np.ones(5), "energy"),
        charts.bars("labels", {f"label {n}": n for n in range(1, 40)}),
    ]
    cells = {(0, 0): Cell(1.0, "1 kcal/mol", "1"), (1, 1): Cell(None, "error: gone", "error")}
    heatmap = Heatmap(["a", "b"], ["c", "<d>"], cells, "kcal/mol")
    text = written(tmp_path, Page("t", {}, {}, charts=drawn, heatmap=heatmap))
    found = Reader(text)
    assert found.tags["svg"] == 3
    assert len(found.ids) == len(set(found.ids))  # one chart's clip is not another's
    assert "20 others" not in text
    assert "19 others" in text
    assert 'title="error: gone"' in text
    assert "&lt;d&gt;" in text


def test_alike_rows_and_columns_are_neighbours():
    numbers = np.array([[0, 9, 0, 9], [9, 0, 9, 0], [0, 9, 0, np.nan], [9, 0, 9, 0]], float)
    cells = {
        (row, column): Cell(None if np.isnan(one) else one, "", f"{row}{column}")
        for (row, column), one in np.ndenumerate(numbers)
    }
    heatmap = Heatmap(list("abcd"), list("efgh"), cells).clustered()
    assert {frozenset(heatmap.first[:2]), frozenset(heatmap.first[2:])} == {
        frozenset("ac"),
        frozenset("bd"),
    }
    assert {frozenset(heatmap.second[:2]), frozenset(heatmap.second[2:])} == {
        frozenset("eg"),
        frozenset("fh"),
    }
    for name, row in heatmap.rows():  # each cell went with its row and column
        place = "abcd".index(name)
        assert [cell.short for cell in row] == [
            f"{place}{'efgh'.index(other)}" for other in heatmap.second
        ]
    colours = {heatmap.colour(0.0), heatmap.colour(9.0), heatmap.colour(4.5)}
    assert len(colours) == 3
    assert Heatmap([], [], {}).clustered().first == []
    assert Heatmap(["a"], ["b"], {(0, 0): Cell(2.0, "", "")}).colour(2.0).startswith("hsl(")
