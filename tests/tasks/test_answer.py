import math

import pytest
from pydantic import ValidationError

from moltc_vllm.tasks import TASKS, Answer


def test_ok_answers_hold_what_they_say() -> None:
    answer = Answer(task="solvation", status="ok", value=-4.27, interval=(-4.5, -4.0))
    assert (answer.value, answer.interval, answer.error) == (-4.27, (-4.5, -4.0), None)
    assert Answer.model_validate_json(answer.model_dump_json()) == answer


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"status": "ok"}, "says something"),
        ({"status": "ok", "value": 1.0, "error": "no"}, "has no error"),
        ({"status": "error"}, "has an error"),
        ({"status": "unparsed", "error": ""}, "has an error"),
        ({"status": "error", "error": "x", "value": 1.0}, "nothing but its text"),
        ({"status": "error", "error": "x", "label": "a", "label_id": 0}, "nothing but its text"),
        ({"status": "error", "error": "x", "items": ()}, "nothing but its text"),
        ({"status": "error", "error": "x", "confidence": 0.5}, "nothing but its text"),
        ({"status": "error", "error": "x", "unit": "nm"}, "nothing but its text"),
        ({"status": "ok", "label": "a"}, "come together"),
        ({"status": "ok", "label_id": 0}, "come together"),
        ({"status": "ok", "value": 1.0, "interval": (2.0, 1.0)}, "runs backwards"),
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
def test_dishonest_answers_are_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Answer.model_validate({"task": "t", **fields})


def test_answers_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Answer(task="t", status="ok", value=1.0).value = 2.0  # type: ignore[misc]


def test_result_in_a_few_words() -> None:
    number = TASKS["solvation"]
    assert number.answer(number.write(-3.25)).result == "-3.25 kcal/mol"
    assert TASKS["ddi"].answer(TASKS["ddi"].write(1)).result == "interaction"
    terms = TASKS["ddi_side_effects"]
    assert terms.answer(terms.write(["nausea", "headache"])).result == "nausea; headache"
    assert TASKS["caption"].answer("A salt.").result == "A salt."
    assert number.failed("error", "no luck").result == "error: no luck"
