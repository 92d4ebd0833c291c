"""Consistency and JSON form of `Answer`."""

import json
import math
import warnings

import pytest
from pydantic import BaseModel, ValidationError

from moltc_vllm.tasks import TASKS, Answer


def test_answer_round_trips_through_json() -> None:
    answer = Answer(task="solvation", status="ok", value=-4.27, likeliest_interval=(-4.5, -4.0))
    assert (answer.value, answer.likeliest_interval, answer.error) == (-4.27, (-4.5, -4.0), None)
    assert Answer.model_validate_json(answer.model_dump_json()) == answer


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"status": "ok"}, "needs a value, a label or a text"),
        ({"status": "ok", "value": 1.0, "error": "no"}, "must not have an error"),
        ({"status": "error"}, "needs an error"),
        ({"status": "unparsed", "error": ""}, "needs an error"),
        ({"status": "error", "error": "x", "value": 1.0}, "no fields but text and error"),
        (
            {"status": "error", "error": "x", "label": "a", "label_id": 0},
            "no fields but text and error",
        ),
        ({"status": "error", "error": "x", "items": ()}, "no fields but text and error"),
        ({"status": "error", "error": "x", "confidence": 0.5}, "no fields but text and error"),
        ({"status": "error", "error": "x", "unit": "nm"}, "no fields but text and error"),
        ({"status": "ok", "label": "a"}, "must be given together"),
        ({"status": "ok", "label_id": 0}, "must be given together"),
        ({"status": "ok", "value": 1.0, "interval": (2.0, 1.0)}, "lower end is above"),
        ({"status": "ok", "value": 1.0, "likeliest_interval": (2.0, 1.0)}, "lower end is above"),
        ({"status": "ok", "value": 1.0, "low": 0.5}, "low and high must be given together"),
        ({"status": "ok", "value": 1.0, "low": 2.0, "high": 0.0}, "lower end is above"),
        ({"status": "ok", "value": 1.0, "low": 1.5, "high": 2.0}, "outside 1.5 to 2.0"),
        ({"status": "ok", "text": "a", "low": 1.5, "high": 2.0}, "need a value"),
        ({"status": "ok", "value": 1.0, "std": -0.1}, "greater than or equal to 0"),
        ({"status": "ok", "value": 1.0, "familiarity": "close"}, "Input should be"),
        ({"status": "error", "error": "x", "familiarity": "known"}, "no fields but text and error"),
        ({"status": "ok", "text": "a", "generated_value": 1.0}, "generated_value needs a value"),
        ({"status": "ok", "value": math.nan}, "finite number"),
        ({"status": "ok", "value": math.inf}, "finite number"),
        ({"status": "ok", "value": 1.0, "interval": (0.0, math.inf)}, "finite number"),
        ({"status": "ok", "value": 1.0, "confidence": 1.01}, "less than or equal to 1"),
        ({"status": "ok", "value": 1.0, "confidence": -0.1}, "greater than or equal to 0"),
        ({"status": "ok", "value": 1.0, "confidence": math.nan}, "finite number"),
        ({"status": "fine", "value": 1.0}, "Input should be"),
        ({"status": "ok", "value": 1.0, "unti": "nm"}, "Extra inputs"),
    ],
)
def test_answer_rejects_inconsistent_fields(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Answer.model_validate({"task": "t", **fields})


def test_answer_is_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Answer(task="t", status="ok", value=1.0).value = 2.0  # type: ignore[misc]


def test_result_is_a_short_text() -> None:
    number = TASKS["solvation"]
    assert number.parse_answer(number.write(-3.25)).result == "-3.25 kcal/mol"
    assert TASKS["ddi"].parse_answer(TASKS["ddi"].write(1)).result == "interaction"
    terms = TASKS["ddi_side_effects"]
    assert terms.parse_answer(terms.write(["nausea", "edema"])).result == "nausea; edema"
    assert TASKS["caption"].parse_answer("A salt.").result == "A salt."
    assert number.failed("error", "timeout").result == "error: timeout"


def test_json_has_generated_value_and_its_old_name() -> None:
    number = TASKS["solvation"]
    answer = number.parse_answer(number.write(-3.25))
    with warnings.catch_warnings(action="error"):
        content = json.loads(answer.model_dump_json())
        assert content["generated_value"] == content["stated"] == -3.25
        assert Answer.model_validate(content) == answer
        failed = number.failed("error", "timeout").model_dump(exclude_none=True)
    assert failed.keys() == {"task", "status", "error", "notes"}
    assert "stated" not in repr(answer)


def test_json_schema_marks_stated_as_deprecated() -> None:
    properties = Answer.model_json_schema(mode="serialization")["properties"]
    assert properties["stated"]["deprecated"] is True
    assert "deprecated" not in properties["generated_value"]


def test_answer_of_version_0_1_is_read() -> None:
    old = {"task": "solvation", "status": "ok", "value": -3.2, "stated": -3.25, "unit": "kcal/mol"}
    answer = Answer.model_validate(old)
    assert (answer.value, answer.generated_value) == (-3.2, -3.25)


def test_old_interval_is_read_and_written() -> None:
    old = {"task": "solvation", "status": "ok", "value": -3.2, "interval": [-3.5, -3.0]}
    answer = Answer.model_validate(old)
    assert answer.likeliest_interval == (-3.5, -3.0)
    with warnings.catch_warnings(action="error"):
        content = json.loads(answer.model_dump_json())
    assert content["likeliest_interval"] == content["interval"] == [-3.5, -3.0]
    with pytest.warns(FutureWarning, match="likeliest_interval"):
        assert answer.interval == (-3.5, -3.0)


def test_likeliest_interval_is_clipped_to_the_bounds() -> None:
    task = TASKS["quantum_yield"]
    answer = task.parse_answer(task.write(1.0))
    assert answer.likeliest_interval == (1.0, 1.0)


def test_stated_is_serialized_inside_a_response() -> None:
    class Response(BaseModel):
        data: list[Answer]

    answer = Answer(task="solvation", status="ok", value=-3.2, generated_value=-3.25)
    (content,) = Response(data=[answer]).model_dump(mode="json")["data"]
    assert content["generated_value"] == content["stated"] == -3.25
