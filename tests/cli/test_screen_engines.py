"""Options of `moltc screen` that select the engine."""

import pytest
import typer

from moltc_vllm.cli.screen_engines import parse_actors


@pytest.mark.parametrize(("text", "actors"), [("2", (2, 2)), ("1:8", (1, 8)), ("3:3", (3, 3))])
def test_parse_actors_takes_number_and_range(text, actors):
    assert parse_actors(text) == actors


@pytest.mark.parametrize("text", ["0", "-1", "4:2", "two", ":2", ""])
def test_parse_actors_refuses_other_text(text, capsys):
    with pytest.raises(typer.Exit):
        parse_actors(text)
    assert f"not {text!r}" in capsys.readouterr().err
