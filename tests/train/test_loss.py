"""The loss, against the plain way of computing it: one pair at a time, no groups, no tricks."""

import math

import pytest
import torch
import torch.nn.functional as F

from moltc_vllm.models import create_checkpoint
from moltc_vllm.models.checkpoint import load_model, load_tokenizer
from moltc_vllm.models.interval_tokens import interval_vocabulary
from moltc_vllm.models.prompt import Prompt, prepare
from moltc_vllm.tasks import get_task
from moltc_vllm.train.batch import Collator, Item
from moltc_vllm.train.examples import Molecules
from moltc_vllm.train.loss import AnswerLoss
from moltc_vllm.train.recipe import Loss

PAIRS = {
    "solvation": (("CCO", "O"), -4.27),
    "ddi": (("CCO", "CC(=O)O"), 1),
    "absorption": (("c1ccccc1", "CCO"), 255.0),
    "lifetime": (("c1ccccc1", "O"), 2.345),
    "pair_properties": (("O", "CCO"), "Molecule 1: water. Molecule 2: a much longer text."),
}


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini") / "mini"
    create_checkpoint("mini", folder, projector_sharing="task_role")
    model = load_model(folder)
    torch.manual_seed(0)
    for weight in model.parameters():  # small new weights hide differences
        weight.data += 0.05 * torch.randn_like(weight)
    return model.eval(), load_tokenizer(folder)


def items(model, tokenizer, whole):
    molecules = Molecules(model.config)
    molecules.add((one for pair, _ in PAIRS.values() for one in pair), workers=0)
    found = []
    for name, (pair, target) in PAIRS.items():
        task = get_task(name)
        answer = [*tokenizer.encode(task.write(target), add_special_tokens=False)]
        answer = [*answer, tokenizer.eos_token_id] if whole else answer[:1]
        numbers = [molecules.number(one) for one in pair]
        value = float(target) if not isinstance(target, str) else math.nan
        found.append(Item(task, numbers, answer, value))
    return found, Collator(molecules, model.config, tokenizer)


def plain_logits(model, tokenizer, name, answer):
    """Logits of each token of an answer by `MoltcModel.forward`."""
    pair, _ = PAIRS[name]
    text, _ = model.config.style.compose(get_task(name), pair)
    inputs = prepare([Prompt(text, pair, name)], tokenizer, model.config)
    ids = torch.cat([inputs.input_ids, torch.tensor([list(answer)])], 1)
    out = model(ids, molecules=inputs.molecules, projector=inputs.projector)
    start = inputs.input_ids.shape[1] - 1
    return out.logits[0, start : start + len(answer)]


@pytest.mark.parametrize("whole", [True, False])
@torch.no_grad()
def test_the_loss_is_that_of_the_pairs_one_by_one(mini, whole):
    model, tokenizer = mini
    weights = Loss(soften=0.7, expected=0.3, rest=0.5)
    pairs, collator = items(model, tokenizer, whole)
    first = rest = expected = 0.0
    for item in pairs:
        logits = plain_logits(model, tokenizer, item.task.name, item.answer)
        entropy = F.cross_entropy(logits, torch.tensor(item.answer), reduction="none")
        scale = interval_vocabulary(item.task, tokenizer)
        if scale is None:
            first += float(entropy[0])
        else:
            at = [scale.kind.position(one) for one in _middles(scale)]
            here = scale.kind.position(item.value)
            target = torch.tensor([math.exp(-(((x - here) / 0.7) ** 2) / 2) for x in at])
            logs = logits[0].log_softmax(-1)[scale.tokens]
            first -= float((target / target.sum() * logs).sum())
            mean = float((logs.exp() / logs.exp().sum() * torch.tensor(at)).sum())
            off = abs(mean - here)
            expected += off**2 / 2 if off < 1 else off - 0.5
        rest += float(entropy[1:].sum())
    found = AnswerLoss(weights, tokenizer)(model, collator(pairs))
    count = len(pairs)
    assert float(found.first) == pytest.approx(first / count, rel=1e-4)
    assert float(found.rest) == pytest.approx(rest / count, rel=1e-4, abs=1e-6)
    assert float(found.expected) == pytest.approx(expected / count, rel=1e-3)
    total = first + 0.5 * rest + 0.3 * expected
    assert float(found.total) == pytest.approx(total / count, rel=1e-4)


def _middles(scale):
    """A value in the middle of each interval; the last one may reach beyond the bounds."""
    return [(lower + upper) / 2 for lower, upper in scale.kind.intervals()]


@torch.no_grad()
def test_without_softening_it_is_cross_entropy(mini):
    model, tokenizer = mini
    pairs, collator = items(model, tokenizer, whole=False)
    plain = sum(
        float(
            F.cross_entropy(
                plain_logits(model, tokenizer, item.task.name, item.answer),
                torch.tensor(item.answer),
            )
        )
        for item in pairs
    )
    found = AnswerLoss(Loss(soften=0.0, expected=0.0), tokenizer)(model, collator(pairs))
    assert float(found.total) == pytest.approx(plain / len(pairs), rel=1e-4)


def test_a_molecule_is_encoded_once_per_batch(mini):
    model, tokenizer = mini
    pairs, collator = items(model, tokenizer, whole=True)
    batch = collator(pairs)
    assert batch.molecules.num_molecules == len({one for pair, _ in PAIRS.values() for one in pair})
    assert len(batch.which) == len(batch.projector) == 2 * len(PAIRS)
    assert sorted(number for group in batch.groups for number in group.numbers) == list(range(5))
    assert {group.input_ids.shape[1] for group in batch.groups} != {
        max(group.input_ids.shape[1] for group in batch.groups)
    }
