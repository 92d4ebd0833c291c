"""``evaluation.png``: panels for each kind of answer."""

import sys

import pytest

from moltc_vllm.evaluate.plots import PlotError, write_plot
from moltc_vllm.evaluate.scoring import evaluate
from moltc_vllm.tasks import get_task
from tests.evaluate.fakes import make_answer, make_dataset


def plot(path, name, rows):
    """Plot rows of (target, answered target or ``None`` for an error, confidence)."""
    task = get_task(name)
    data = make_dataset(name, [target for target, *_ in rows])
    answers = {
        number: task.failed("error", "x") if given is None else make_answer(name, given, confidence)
        for number, (_, given, confidence) in enumerate(rows, 1)
    }
    write_plot(path, "Title", task, data, answers, evaluate(task, data, answers, resamples=20))


@pytest.fixture
def saved_figures(monkeypatch):
    """Figures that are saved during the test."""
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig

    def savefig(self, *arguments, **options):
        figures.append(self)
        save(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


@pytest.mark.parametrize(
    ("name", "rows", "panels"),
    [
        ("solvation", [(-3.0, -3.5, 0.5), (2.0, 2.5, 0.2), (1.0, None, None)], 3),
        ("solvation", [(1.0, 1.0, None)], 3),
        ("solvation", [(n / 1000, n / 990, 0.5) for n in range(4000)], 3),
        ("ddi", [(1, 1, 0.9), (0, 1, 0.6), (0, None, None)], 2),
        ("ddi", [(1, 1, None)], 2),
        ("ddi_type", [(1, 1, 0.9), (2, 1, 0.6), (2, 2, 0.3)], 2),
    ],
)
def test_write_plot_draws_all_panels(tmp_path, saved_figures, name, rows, panels):
    plot(tmp_path / "a.png", name, rows)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    (figure,) = saved_figures
    assert len(figure.axes) == panels
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)
    assert all(axes.has_data() for axes in figure.axes)


def test_parity_plot_and_residuals_have_the_answered_points(tmp_path, saved_figures):
    plot(tmp_path / "a.png", "solvation", [(-3.0, -3.5, 0.5), (2.0, 2.5, 0.2), (1.0, None, None)])
    parity, residuals, _ = saved_figures[0].axes
    assert parity.collections[0].get_offsets().tolist() == [[-3.0, -3.5], [2.0, 2.5]]
    assert residuals.collections[0].get_offsets().tolist() == [[-3.0, -0.5], [2.0, 0.5]]
    assert parity.get_xlabel() == "measured, kcal/mol"


def test_write_plot_states_why_there_is_no_plot(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    with pytest.raises(PlotError, match="lists or texts are not plotted"):
        plot(path, "caption", [("a", "b", None)])
    with pytest.raises(PlotError, match="no row was answered"):
        plot(path, "ddi", [(1, None, None)])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PlotError, match=r"no plot: .*matplotlib"):
        plot(path, "ddi", [(1, 1, 0.5)])
    assert not path.exists()
