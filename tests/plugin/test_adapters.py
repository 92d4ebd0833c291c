"""Adapters in vLLM: the same tokens as plain torch, and each request its own."""

import functools

import pytest
import torch
from vllm import EngineArgs, SamplingParams
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind

from moltc_vllm.models import Prompt, create_checkpoint
from moltc_vllm.models.adapters import AdapterError
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.plugin.launcher import on_cpu
from moltc_vllm.tasks import Limits, get_task
from moltc_vllm.tasks.engine import Pair
from tests.adapters import write_adapter
from tests.molecules import DRUGS

MOLECULES = list(DRUGS.values())
PAIRS = [Pair(i, (MOLECULES[i], MOLECULES[-1 - i])) for i in range(6)]
LIMITS = Limits(16)
TASKS = ("ddi", "solvation", "absorption")
PLAIN = "emission"  # has no adapter
# Packed layers (q, k, v; gate, up) whole and in part, and ranks below and at vLLM's smallest.
TARGETS = {
    "tiny": (["q_proj", "v_proj"], ["q_proj", "k_proj", "v_proj", "fc1"], ["out_proj", "fc2"]),
    "tiny-llama": (["q_proj", "v_proj"], ["gate_proj", "o_proj"], ["up_proj", "down_proj"]),
}


def adapted(folder, preset):
    create_checkpoint(preset, folder, projector_sharing="task_role")
    for seed, (task, targets) in enumerate(zip(TASKS, TARGETS[preset], strict=True)):
        write_adapter(folder, task, targets, rank=(3, 8, 16)[seed], seed=seed)
    return folder


@pytest.fixture(scope="module")
def opt(tmp_path_factory):
    return adapted(tmp_path_factory.mktemp("checkpoints") / "tiny", "tiny")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return adapted(tmp_path_factory.mktemp("checkpoints") / "llama", "tiny-llama")


@functools.cache
def torch_engine(folder, adapters):
    return TorchEngine(folder, constrained=False, adapters=adapters)


@functools.cache
def in_torch(folder, task, adapters=True):
    """Token ids and log-probabilities of all pairs."""
    wanted = get_task(task)
    prompts = [Prompt(wanted.prompt(pair.molecules), list(pair.molecules), task) for pair in PAIRS]
    found = torch_engine(folder, adapters).generate(wanted, prompts, LIMITS)
    return [(list(one.token_ids), list(one.logprobs)) for one in found]


@pytest.mark.parametrize("name", ["opt", "llama"])
def test_every_task_is_answered_with_its_adapter_as_in_plain_torch(name, request):
    from moltc_vllm.plugin.engine.vllm_engine import VllmEngine

    folder = request.getfixturevalue(name)
    engine = VllmEngine(folder, constrained=False, limits=LIMITS, max_in_flight=4)
    for task in (*TASKS, PLAIN, *TASKS):  # again: they are loaded, and others were in between
        found = dict(engine.generate(get_task(task), PAIRS))
        expected = in_torch(folder, task)
        for pair, (ids, logprobs) in zip(PAIRS, expected, strict=True):
            assert list(found[pair].token_ids) == ids
            got = torch.tensor(list(found[pair].logprobs))
            assert (got - torch.tensor(logprobs)).abs().max() < 2e-3
        base = in_torch(folder, task, adapters=False)
        assert (base == expected) == (task == PLAIN)


def mixed(llm, folder):
    """One batch with all tasks, the base model's requests first, last and in between."""
    tasks = [PLAIN, *(task for one in TASKS for task in (one, PLAIN))]
    requests, adapters = [], []
    for task in tasks:
        for pair in PAIRS:
            molecules = [{"smiles": smiles, "task": task} for smiles in pair.molecules]
            prompt = get_task(task).prompt(pair.molecules)
            requests.append({"prompt": prompt, "multi_modal_data": {"molecule": molecules}})
            path = str(folder / "adapters" / task)
            number = TASKS.index(task) + 1 if task in TASKS else 0
            adapters.append(LoRARequest(task, number, path) if number else None)
    greedy = SamplingParams(
        temperature=0, max_tokens=LIMITS.max_new_tokens, output_kind=RequestOutputKind.FINAL_ONLY
    )
    outputs = iter(llm.generate(requests, greedy, lora_request=adapters, use_tqdm=False))
    got = [[strip(next(outputs).outputs[0]) for _ in PAIRS] for _ in tasks]
    return list(zip(tasks, got, strict=True))


def strip(output):
    ids = list(output.token_ids)
    return ids[:-1] if output.finish_reason == "stop" else ids


def test_requests_of_the_base_model_between_others_stay_its_own(opt, offline):
    from moltc_vllm.plugin.lora_arguments import folder_modules, lora_arguments

    expected = {task: [ids for ids, _ in in_torch(opt, task)] for task in (*TASKS, PLAIN)}
    arguments = lora_arguments(folder_modules(opt), on_cpu=on_cpu())
    for task, got in mixed(offline(opt, **arguments), opt):
        assert got == expected[task], task


@pytest.mark.skipif(not on_cpu(), reason="a defect of vLLM's CPU build")
def test_one_slot_less_and_they_do_not(opt, offline):
    """When this fails, vLLM is mended, and `lora_arguments` needs no slot more."""
    from moltc_vllm.plugin.lora_arguments import folder_modules, lora_arguments

    plain = [ids for ids, _ in in_torch(opt, PLAIN)]
    arguments = lora_arguments(folder_modules(opt), on_cpu=False)
    assert arguments["max_loras"] == len(TASKS)
    answers = [got for task, got in mixed(offline(opt, **arguments), opt) if task == PLAIN]
    assert any(got != plain for got in answers)


class _CapturedError(Exception):
    pass


@pytest.fixture
def engine_arguments(monkeypatch):
    """The arguments an engine would be started with."""
    from moltc_vllm.plugin.engine import vllm_engine as engine

    def capture(arguments: EngineArgs, **_: bool):
        raise _CapturedError(arguments)

    monkeypatch.setattr(engine.LLMEngine, "from_engine_args", capture)

    def start(folder, **options):
        with pytest.raises(_CapturedError) as captured:
            engine.VllmEngine(folder, **options)
        return captured.value.args[0]

    return start


def test_an_engine_gets_the_folders_adapters(engine_arguments, opt, tiny):
    arguments = engine_arguments(opt)
    assert arguments.enable_lora
    assert arguments.max_lora_rank == 16
    assert arguments.max_loras == arguments.max_cpu_loras == len(TASKS) + on_cpu()
    assert engine_arguments(opt, max_lora_rank=64).max_lora_rank == 64
    assert not engine_arguments(opt, enable_lora=False).enable_lora
    assert not engine_arguments(tiny).enable_lora


def test_a_bad_adapter_is_named_before_the_engine_starts(engine_arguments, tmp_path):
    folder = adapted(tmp_path / "broken", "tiny")
    (folder / "adapters" / "ddi" / "adapter_model.safetensors").write_bytes(b"")
    from moltc_vllm.plugin.engine.vllm_engine import VllmEngine

    with pytest.raises(AdapterError, match=r"adapter 'ddi': adapter_model\.safetensors cannot"):
        VllmEngine(folder)
    assert not engine_arguments(folder, enable_lora=False).enable_lora
