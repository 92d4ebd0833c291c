"""A report is self-contained, draws every pair, and escapes all text from files."""

from html.parser import HTMLParser

import numpy as np

from moltc_vllm.screening import charts
from moltc_vllm.screening.heatmap import Cell, Heatmap
from moltc_vllm.screening.report import Failure, Hit, Page, write_report
from moltc_vllm.tasks import get_task


class PageParser(HTMLParser):
    """Counts elements, and checks that the page loads nothing and closes every element."""

    VOID_TAGS = frozenset({"meta", "br"})

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.ids = {}, [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        if tag not in self.VOID_TAGS:
            self.open.append(tag)
        for name, value in attrs:
            assert name != "src", f"loads {value}"
            if name.endswith("href"):
                assert value.startswith(("#", "data:image/png;base64,")), f"loads {value}"
            if name == "id":
                self.ids.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID_TAGS:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def render(tmp_path, page):
    path = tmp_path / "report.html"
    write_report(path, page)
    return path.read_text()


def test_report_draws_pairs_and_lists_failures(tmp_path):
    task = get_task("solvation")
    spread = {"std": 0.4, "low": -3.6, "high": -2.7, "familiarity": "similar"}
    spread |= {"notes": ("solute: charged", "solvent: <isotope>")}
    good = task.parse_answer(task.write(-3.2)).model_copy(update=spread)
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
    text = render(tmp_path, page)
    assert PageParser(text).tags["svg"] == 3
    assert "-3.2" in text
    assert "between -3.6 and -2.7" in text
    assert "most likely in -3.5 to -3" in text
    assert "similar molecules" in text
    assert "<small>solute: charged</small>" in text
    assert "<small>solvent: &lt;isotope&gt;</small>" in text
    assert "row 1,234" in text
    assert "cannot be drawn" in text
    for escaped in ("&lt;broken&gt;", "&lt;b&gt;ethanol", "A &amp; B", "&lt;noise&gt;"):
        assert escaped in text
    assert "bad_molecule: &lt;syntax&gt;" in text
    assert "Distributions" not in text


def test_report_has_charts_and_heatmap(tmp_path):
    drawn = [
        charts.histogram("numbers", np.linspace(-3, 3, 500), "energy", "kcal/mol"),
        charts.histogram("numbers too", np.ones(5), "energy"),
        charts.bars("labels", {f"label {n}": n for n in range(1, 40)}),
    ]
    cells = {(0, 0): Cell(1.0, "1 kcal/mol", "1"), (1, 1): Cell(None, "error: gone", "error")}
    heatmap = Heatmap(["a", "b"], ["c", "<d>"], cells, "kcal/mol")
    text = render(tmp_path, Page("t", {}, {}, charts=drawn, heatmap=heatmap))
    parser = PageParser(text)
    assert parser.tags["svg"] == 3
    assert len(parser.ids) == len(set(parser.ids))  # ids of different charts differ
    assert "20 others" not in text
    assert "19 others" in text
    assert 'title="error: gone"' in text
    assert "&lt;d&gt;" in text


def test_heatmap_clusters_similar_rows_and_columns():
    numbers = np.array([[0, 9, 0, 9], [9, 0, 9, 0], [0, 9, 0, np.nan], [9, 0, 9, 0]], float)
    cells = {
        (row, column): Cell(None if np.isnan(number) else number, "", f"{row}{column}")
        for (row, column), number in np.ndenumerate(numbers)
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
    for name, cells_of_row in heatmap.rows():  # each cell moved with its row and column
        row = "abcd".index(name)
        assert [cell.text for cell in cells_of_row] == [
            f"{row}{'efgh'.index(column)}" for column in heatmap.second
        ]
    assert len({heatmap.color(0.0), heatmap.color(9.0), heatmap.color(4.5)}) == 3


def test_heatmap_of_one_or_no_cell():
    assert Heatmap([], [], {}).clustered().first == []
    assert Heatmap(["a"], ["b"], {(0, 0): Cell(2.0, "", "")}).color(2.0).startswith("hsl(")
