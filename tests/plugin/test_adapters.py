"""Adapters in vLLM: tokens equal those of plain torch, also in batches with several adapters."""

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
from moltc_vllm.tasks import GenerationLimits, get_task
from moltc_vllm.tasks.engine import Pair
from tests.adapters import write_adapter
from tests.molecules import DRUGS

MOLECULES = list(DRUGS.values())
PAIRS = [Pair(row, (MOLECULES[row], MOLECULES[-1 - row])) for row in range(6)]
LIMITS = GenerationLimits(16)
TASKS = ("ddi", "solvation", "absorption")
PLAIN_TASK = "emission"  # has no adapter
# Layers that vLLM packs (q, k, v; gate, up) are adapted completely and partly.
TARGETS = {
    "tiny": (["q_proj", "v_proj"], ["q_proj", "k_proj", "v_proj", "fc1"], ["out_proj", "fc2"]),
    "tiny-llama": (["q_proj", "v_proj"], ["gate_proj", "o_proj"], ["up_proj", "down_proj"]),
}


def create_adapted_checkpoint(folder, preset):
    """Create a checkpoint with adapters of ranks below, at and above vLLM's smallest rank of 8."""
    create_checkpoint(preset, folder, projector_sharing="task_role")
    for seed, (task, targets) in enumerate(zip(TASKS, TARGETS[preset], strict=True)):
        write_adapter(folder, task, targets, rank=(3, 8, 16)[seed], seed=seed)
    return folder


@pytest.fixture(scope="module")
def opt(tmp_path_factory):
    return create_adapted_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny", "tiny")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return create_adapted_checkpoint(tmp_path_factory.mktemp("checkpoints") / "llama", "tiny-llama")


@functools.cache
def torch_engine(folder, adapters):
    return TorchEngine(folder, constrained=False, adapters=adapters)


@functools.cache
def generate_with_torch(folder, task, adapters=True):
    """Return token ids and log-probabilities of all pairs."""
    task = get_task(task)
    prompts = [
        Prompt(task.prompt(pair.molecules), list(pair.molecules), task.name) for pair in PAIRS
    ]
    results = torch_engine(folder, adapters).generate(task, prompts, LIMITS)
    return [(list(result.token_ids), list(result.logprobs)) for result in results]


@pytest.mark.parametrize("name", ["opt", "llama"])
def test_vllm_engine_answers_each_task_with_its_adapter_as_torch_does(name, request):
    from moltc_vllm.plugin.engine.vllm_engine import VllmEngine

    folder = request.getfixturevalue(name)
    engine = VllmEngine(folder, constrained=False, limits=LIMITS, max_in_flight=4)
    for task in (*TASKS, PLAIN_TASK, *TASKS):  # twice, to use adapters that are loaded already
        results = dict(engine.generate(get_task(task), PAIRS))
        expected = generate_with_torch(folder, task)
        for pair, (ids, logprobs) in zip(PAIRS, expected, strict=True):
            assert list(results[pair].token_ids) == ids
            actual_logprobs = torch.tensor(list(results[pair].logprobs))
            assert (actual_logprobs - torch.tensor(logprobs)).abs().max() < 2e-3
        base_model = generate_with_torch(folder, task, adapters=False)
        assert (base_model == expected) == (task == PLAIN_TASK)


def generate_mixed_batch(llm, folder):
    """Generate all tasks in one batch, with base-model requests before and after each adapter."""
    tasks = [PLAIN_TASK, *(task for adapted in TASKS for task in (adapted, PLAIN_TASK))]
    requests, adapters = [], []
    for task in tasks:
        for pair in PAIRS:
            molecules = [{"smiles": smiles, "task": task} for smiles in pair.molecules]
            prompt = get_task(task).prompt(pair.molecules)
            requests.append({"prompt": prompt, "multi_modal_data": {"molecule": molecules}})
            path = str(folder / "adapters" / task)
            lora_id = TASKS.index(task) + 1 if task in TASKS else 0
            adapters.append(LoRARequest(task, lora_id, path) if lora_id else None)
    greedy = SamplingParams(
        temperature=0, max_tokens=LIMITS.max_new_tokens, output_kind=RequestOutputKind.FINAL_ONLY
    )
    outputs = iter(llm.generate(requests, greedy, lora_request=adapters, use_tqdm=False))
    token_ids = [[strip_stop(next(outputs).outputs[0]) for _ in PAIRS] for _ in tasks]
    return list(zip(tasks, token_ids, strict=True))


def strip_stop(output):
    ids = list(output.token_ids)
    return ids[:-1] if output.finish_reason == "stop" else ids


def test_base_model_requests_in_a_mixed_batch_use_no_adapter(opt, offline):
    from moltc_vllm.plugin.engine.lora_arguments import folder_adapters, lora_arguments

    expected = {
        task: [ids for ids, _ in generate_with_torch(opt, task)] for task in (*TASKS, PLAIN_TASK)
    }
    arguments = lora_arguments(folder_adapters(opt), on_cpu=on_cpu())
    for task, token_ids in generate_mixed_batch(offline(opt, **arguments), opt):
        assert token_ids == expected[task], task


@pytest.mark.skipif(not on_cpu(), reason="a defect of vLLM's CPU build")
def test_base_model_requests_use_an_adapter_without_the_empty_slot(opt, offline):
    """Reproduce vLLM's defect; if this test fails, `lora_arguments` needs no additional slot."""
    from moltc_vllm.plugin.engine.lora_arguments import folder_adapters, lora_arguments

    expected = [ids for ids, _ in generate_with_torch(opt, PLAIN_TASK)]
    arguments = lora_arguments(folder_adapters(opt), on_cpu=False)
    assert arguments["max_loras"] == len(TASKS)
    batch = generate_mixed_batch(offline(opt, **arguments), opt)
    assert any(token_ids != expected for task, token_ids in batch if task == PLAIN_TASK)


class _CapturedError(Exception):
    pass


@pytest.fixture
def engine_arguments(monkeypatch):
    """Return a function that captures the arguments with which an engine would start."""
    from moltc_vllm.plugin.engine import vllm_engine

    def capture(arguments: EngineArgs, **_: bool):
        raise _CapturedError(arguments)

    monkeypatch.setattr(vllm_engine.LLMEngine, "from_engine_args", capture)

    def start(folder, **options):
        with pytest.raises(_CapturedError) as captured:
            vllm_engine.VllmEngine(folder, **options)
        return captured.value.args[0]

    return start


def test_vllm_engine_enables_adapters_of_the_folder(engine_arguments, opt, tiny):
    arguments = engine_arguments(opt)
    assert arguments.enable_lora
    assert arguments.max_lora_rank == 16
    assert arguments.max_loras == arguments.max_cpu_loras == len(TASKS) + on_cpu()
    assert engine_arguments(opt, max_lora_rank=64).max_lora_rank == 64
    assert not engine_arguments(opt, enable_lora=False).enable_lora
    assert not engine_arguments(tiny).enable_lora


def test_vllm_engine_reports_bad_adapter_before_start(engine_arguments, tmp_path):
    folder = create_adapted_checkpoint(tmp_path / "broken", "tiny")
    (folder / "adapters" / "ddi" / "adapter_model.safetensors").write_bytes(b"")
    from moltc_vllm.plugin.engine.vllm_engine import VllmEngine

    with pytest.raises(AdapterError, match=r"adapter 'ddi': adapter_model\.safetensors cannot"):
        VllmEngine(folder)
    assert not engine_arguments(folder, enable_lora=False).enable_lora
