"""Loss of a batch, compared with a direct computation of one pair at a time."""

import math

import pytest
import torch
import torch.nn.functional as F

from moltc_vllm.models import create_checkpoint
from moltc_vllm.models.checkpoint import load_model, load_tokenizer
from moltc_vllm.models.interval_tokens import interval_vocabulary
from moltc_vllm.models.prompt import Prompt, prepare_inputs
from moltc_vllm.models.prompt_composer import PromptComposer
from moltc_vllm.tasks import get_task
from moltc_vllm.train.batch import Collator
from moltc_vllm.train.examples import MoleculeTable
from moltc_vllm.train.loss import AnswerLoss
from moltc_vllm.train.recipe import LossSettings
from tests.train.helpers import PairItem

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
    for weight in model.parameters():  # the small weights of a new model hide differences
        weight.data += 0.05 * torch.randn_like(weight)
    return model.eval(), load_tokenizer(folder)


def make_items(model, tokenizer, full_text):
    molecules = MoleculeTable(model.config)
    molecules.add((smiles for pair, _ in PAIRS.values() for smiles in pair), workers=0)
    items = []
    for name, (pair, target) in PAIRS.items():
        task = get_task(name)
        answer = [*tokenizer.encode(task.write(target), add_special_tokens=False)]
        answer = [*answer, tokenizer.eos_token_id] if full_text else answer[:1]
        indices = [molecules.index(smiles) for smiles in pair]
        value = float(target) if not isinstance(target, str) else math.nan
        items.append(PairItem(task, indices, answer, value))
    return items, Collator(molecules, model.config, tokenizer)


def reference_logits(model, tokenizer, item):
    """Logits of each token of an answer, by `MoltcModel.forward` for this pair alone."""
    name = item.task.name
    pair, _ = PAIRS[name]
    text, order = PromptComposer(model.config).compose(item.task, pair)
    molecules = [pair[index] for index in order]
    inputs = prepare_inputs([Prompt(text, molecules, name)], tokenizer, model.config)
    ids = torch.cat([inputs.input_ids, torch.tensor([list(item.answer)])], 1)
    output = model(ids, molecules=inputs.molecules, projector=inputs.projector)
    start = inputs.input_ids.shape[1] - 1
    return output.logits[0, start : start + len(item.answer)]


def reference_losses(model, tokenizer, item, sigma):
    """First-token, text and expected-value loss of one pair."""
    logits = reference_logits(model, tokenizer, item)
    entropy = F.cross_entropy(logits, torch.tensor(item.answer), reduction="none")
    text = float(entropy[1:].sum())
    vocabulary = interval_vocabulary(item.task, tokenizer)
    if vocabulary is None:
        return float(entropy[0]), text, 0.0
    # The middle of each interval; the last interval may reach beyond the bounds.
    middles = [(lower + upper) / 2 for lower, upper in vocabulary.kind.intervals()]
    centers = [vocabulary.kind.position(middle) for middle in middles]
    position = vocabulary.kind.position(item.value)
    target = torch.tensor([math.exp(-(((x - position) / sigma) ** 2) / 2) for x in centers])
    logprobs = logits[0].log_softmax(-1)[vocabulary.token_ids]
    first_token = -float((target / target.sum() * logprobs).sum())
    mean = float((logprobs.exp() / logprobs.exp().sum() * torch.tensor(centers)).sum())
    error = abs(mean - position)
    return first_token, text, error**2 / 2 if error < 1 else error - 0.5


@pytest.mark.parametrize("full_text", [True, False])
@torch.no_grad()
def test_loss_is_mean_over_single_pairs(mini, full_text):
    model, tokenizer = mini
    settings = LossSettings(
        gaussian_label_sigma=0.7, expected_value_weight=0.3, text_loss_weight=0.5
    )
    items, collator = make_items(model, tokenizer, full_text)
    sums = [
        sum(column)
        for column in zip(
            *(reference_losses(model, tokenizer, item, sigma=0.7) for item in items), strict=True
        )
    ]
    first_token, text, expected_value = (value / len(items) for value in sums)
    losses = AnswerLoss(settings, tokenizer)(model, collator([item.block() for item in items]))
    assert float(losses.first_token) == pytest.approx(first_token, rel=1e-4)
    assert float(losses.text) == pytest.approx(text, rel=1e-4, abs=1e-6)
    assert float(losses.expected_value) == pytest.approx(expected_value, rel=1e-3)
    total = first_token + 0.5 * text + 0.3 * expected_value
    assert float(losses.total) == pytest.approx(total, rel=1e-4)


@torch.no_grad()
def test_loss_without_smoothing_is_cross_entropy(mini):
    model, tokenizer = mini
    items, collator = make_items(model, tokenizer, full_text=False)
    expected = sum(
        float(F.cross_entropy(reference_logits(model, tokenizer, item), torch.tensor(item.answer)))
        for item in items
    )
    settings = LossSettings(gaussian_label_sigma=0.0, expected_value_weight=0.0)
    losses = AnswerLoss(settings, tokenizer)(model, collator([item.block() for item in items]))
    assert float(losses.total) == pytest.approx(expected / len(items), rel=1e-4)


def test_collator_encodes_each_molecule_once_per_batch(mini):
    model, tokenizer = mini
    items, collator = make_items(model, tokenizer, full_text=True)
    batch = collator([item.block() for item in items])
    distinct = {smiles for pair, _ in PAIRS.values() for smiles in pair}
    assert batch.molecules.num_molecules == len(distinct)
    assert len(batch.molecule_index) == len(batch.projector) == 2 * len(PAIRS)


def test_collator_groups_pairs_by_length(mini):
    model, tokenizer = mini
    items, collator = make_items(model, tokenizer, full_text=True)
    batch = collator([item.block() for item in items])
    indices = sorted(index for group in batch.groups for index in group.pair_indices)
    assert indices == list(range(len(items)))
    lengths = {group.input_ids.shape[1] for group in batch.groups}
    assert lengths != {max(lengths)}


@torch.no_grad()
def test_loss_over_answers_normalizes_over_answers_of_the_task(mini):
    model, tokenizer = mini
    items, collator = make_items(model, tokenizer, full_text=False)
    items = [item for item in items if item.task.name in ("ddi", "solvation", "absorption")]
    expected = 0.0
    for item in items:
        kind = item.task.kind
        logits = reference_logits(model, tokenizer, item)[0]
        vocabulary = interval_vocabulary(item.task, tokenizer)
        if vocabulary is None:
            tokens = [
                tokenizer.encode(label.text, add_special_tokens=False)[0] for label in kind.labels
            ]
            logprobs = logits[tokens].log_softmax(-1)
            expected -= float(logprobs[tokens.index(item.answer[0])])
        else:
            logprobs = logits[vocabulary.token_ids].log_softmax(-1)
            expected -= float(logprobs[vocabulary.index_of[item.answer[0]]])
    settings = LossSettings(
        gaussian_label_sigma=0.0, expected_value_weight=0.0, first_token_over="answers"
    )
    losses = AnswerLoss(settings, tokenizer)(model, collator([item.block() for item in items]))
    assert float(losses.total) == pytest.approx(expected / len(items), rel=1e-4)


def test_loss_over_answers_trains_all_parts(mini):
    model, tokenizer = mini
    items, collator = make_items(model, tokenizer, full_text=False)
    items = [item for item in items if item.task.name in ("ddi", "solvation")]
    model.train()
    loss = AnswerLoss(LossSettings(first_token_over="answers"), tokenizer)
    loss(model, collator([item.block() for item in items])).total.backward()
    model.eval()
    missing = {
        name
        for name, weight in model.named_parameters()
        if weight.grad is None and not name.startswith("projectors.")
    }
    model.zero_grad()
    assert missing == set()
