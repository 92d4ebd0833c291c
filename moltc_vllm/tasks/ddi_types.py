"""The 86 interaction types of DeepDDI, as tables from which their sentences are generated.

In the sentence of a directed type ``#Drug1`` acts on ``#Drug2``: it is the perpetrator of the
interaction and ``#Drug2`` the victim, whatever the order of the two in the sentence. Seven types
are undirected: they say only that a risk is increased when both are combined.

The types are numbered 1 to 86, as in the "interaction type" column of the public files. Some later
data sets count from 0, and "DDI type N" is yet another numbering.

Source: Ryu, Kim and Lee, PNAS 2018.
"""

from __future__ import annotations

from collections.abc import Iterator

from moltc_vllm.tasks.answer_kinds import Label

_CNS = "central nervous system depressant (CNS depressant)"

# "#Drug1 may (increase|decrease) the X activities of #Drug2."
_INCREASED_ACTIVITIES = {
    1: "photosensitizing",
    2: "anticholinergic",
    6: "anticoagulant",
    7: "ototoxic",
    9: "hypoglycemic",
    10: "antihypertensive",
    15: "cardiotoxic",
    16: _CNS,
    19: "vasoconstricting",
    20: "QTc-prolonging",
    21: "neuromuscular blocking",
    22: "adverse neuromuscular",
    23: "stimulatory",
    24: "hypocalcemic",
    25: "atrioventricular blocking (AV block)",
    27: "neuroexcitatory",
    28: "dermatologic adverse",
    30: "orthostatic hypotensive",
    32: "sedative",
    34: "immunosuppressive",
    35: "neurotoxic",
    36: "antipsychotic",
    38: "vasodilatory",
    39: "constipating",
    40: "respiratory depressant",
    41: f"hypotensive and {_CNS}",
    44: "central neurotoxic",
    46: "bronchoconstrictory",
    48: "myopathic rhabdomyolysis",
    51: "hypercalcemic",
    53: "antiplatelet",
    54: "bradycardic",
    55: "hyponatremic",
    57: "nephrotoxic",
    59: "ulcerogenic",
    60: "hypotensive",
    63: "myelosuppressive",
    64: "serotonergic",
    68: "hyperkalemic",
    69: "analgesic",
    71: "hypertensive",
    74: "fluid retaining",
    78: "hyperglycemic",
    79: f"{_CNS} and hypertensive",
    80: "hepatotoxic",
    81: "thrombogenic",
    82: "arrhythmogenic",
    83: "hypokalemic",
    84: "vasopressor",
    85: "tachycardic",
}
_DECREASED_ACTIVITIES = {
    5: "vasoconstricting",
    12: "anticoagulant",
    14: "bronchodilatory",
    17: "neuromuscular blocking",
    26: "antiplatelet",
    29: "diuretic",
    37: "antihypertensive",
    52: "analgesic",
    58: "cardiotoxic",
    61: "stimulatory",
    76: "sedative",
}

# "The X of #Drug2 can be (increased|decreased) when ... #Drug1."
_COMBINED = "combined with"
_USED = "used in combination with"
_IT_IS = "it is combined with"
_QUANTITIES = {
    3: ("decrease", "bioavailability", _COMBINED),
    4: ("increase", "metabolism", _COMBINED),
    8: ("increase", "therapeutic efficacy", _USED),
    13: ("decrease", "absorption", _COMBINED),
    43: ("decrease", "protein binding", _COMBINED),
    47: ("decrease", "metabolism", _COMBINED),
    62: ("increase", "bioavailability", _COMBINED),
    70: ("decrease", "therapeutic efficacy", _USED),
    73: ("increase", "serum concentration", _IT_IS),
    75: ("decrease", "serum concentration", _IT_IS),
}

# "The risk or severity of X can be increased when (first) is combined with (second)."
_RISKS = {
    31: ("hypertension", "#Drug2", "#Drug1"),
    33: ("QTc prolongation", "#Drug1", "#Drug2"),
    42: ("hyperkalemia", "#Drug1", "#Drug2"),
    49: ("adverse effects", "#Drug1", "#Drug2"),
    50: ("heart failure", "#Drug2", "#Drug1"),
    56: ("hypotension", "#Drug1", "#Drug2"),
    66: ("bleeding", "#Drug1", "#Drug2"),
}

_METABOLITES = "The serum concentration of the active metabolites of #Drug2 can be"
_WITH_DRUG1 = "when #Drug2 is used in combination with #Drug1"
_RATE = "the excretion rate of #Drug2 which could result in a"
_OTHERS = {
    11: (
        "decrease serum concentration of active metabolites",
        f"{_METABOLITES} reduced {_WITH_DRUG1} resulting in a loss in efficacy.",
    ),
    18: (
        "increase absorption, worse adverse effects",
        "#Drug1 can cause an increase in the absorption of #Drug2 resulting in an increased serum "
        "concentration and potentially a worsening of adverse effects.",
    ),
    45: (
        "decrease effectiveness as diagnostic agent",
        "#Drug1 may decrease effectiveness of #Drug2 as a diagnostic agent.",
    ),
    65: (
        "increase excretion rate",
        f"#Drug1 may increase {_RATE} lower serum level and potentially a reduction in efficacy.",
    ),
    67: (
        "decrease absorption, less efficacy",
        "#Drug1 can cause a decrease in the absorption of #Drug2 resulting in a reduced serum "
        "concentration and potentially a decrease in efficacy.",
    ),
    72: ("decrease excretion rate", f"#Drug1 may decrease {_RATE} higher serum level."),
    77: (
        "increase serum concentration of active metabolites",
        f"{_METABOLITES} increased {_WITH_DRUG1}.",
    ),
    86: (
        "increase risk of hypersensitivity",
        "The risk of a hypersensitivity reaction to #Drug2 is increased when it is combined with "
        "#Drug1.",
    ),
}


def _labels() -> Iterator[Label]:
    for change, activities in (
        ("increase", _INCREASED_ACTIVITIES),
        ("decrease", _DECREASED_ACTIVITIES),
    ):
        for label_id, activity in activities.items():
            effect = f"{change} the {activity} activities"
            name = effect.replace(" the ", " ", 1)
            yield Label(label_id, name, f"#Drug1 may {effect} of #Drug2.")
    for label_id, (change, quantity, condition) in _QUANTITIES.items():
        text = f"The {quantity} of #Drug2 can be {change}d when {condition} #Drug1."
        yield Label(label_id, f"{change} {quantity}", text)
    for label_id, (risk, first, second) in _RISKS.items():
        condition = f"{first} is combined with {second}"
        text = f"The risk or severity of {risk} can be increased when {condition}."
        yield Label(label_id, f"increase risk of {risk}", text)
    for label_id, (name, text) in _OTHERS.items():
        yield Label(label_id, name, text)


DDI_TYPES = tuple(sorted(_labels(), key=lambda label: label.id))
"""Labels of all types, ordered by number."""

DIRECTED_DDI_TYPES = frozenset(label.id for label in DDI_TYPES) - frozenset(_RISKS)
"""Numbers of the types in which the first drug acts on the second."""
