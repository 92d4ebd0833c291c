"""The report is one page with every pair drawn."""

from html.parser import HTMLParser

from moltc_vllm.screen.report import Row, write_report
from moltc_vllm.tasks import get_task


class Counter(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = {}

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attrs:
            assert name not in ("src", "href"), f"loads {value}"


def test_every_pair_is_drawn_and_failures_are_said(tmp_path):
    task = get_task("solvation")
    good = task.answer(task.write(-3.2))
    bad = task.failed("bad_molecule", "molecule 'C(' <broken>")
    rows = [
        Row(("<b>ethanol", "water"), ("CCO", "O"), good),
        Row(("broken", "water"), ("C(", "O"), bad),
    ]
    path = tmp_path / "report.html"
    write_report(path, "A & B", rows, {"task": "x"}, note="noise")
    page = path.read_text()
    counter = Counter()
    counter.feed(page)
    assert counter.tags["svg"] == 3
    assert "-3.2" in page
    assert "between -3.5 and -3" in page
    assert "cannot be drawn" in page
    assert "&lt;broken&gt;" in page
    assert "&lt;b&gt;ethanol" in page
    assert "A &amp; B" in page
