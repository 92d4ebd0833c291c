"""Adapters and projectors of several tasks in one server: each answers as in a server of its own.

The tests start four servers, the first three with one adapter each, which takes two minutes.
"""

import functools
import itertools
import json
import random
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from moltc_vllm.models import create_checkpoint
from moltc_vllm.models.torch_engine import TorchEngine
from moltc_vllm.plugin.server.server_process import ServerProcess
from moltc_vllm.tasks.engine import Pair
from tests.adapters import write_adapter
from tests.molecules import DRUGS
from tests.server import MODEL, Server

# tests/plugin/test_adapters.py tests the same without a server.
pytestmark = pytest.mark.slow

# Different ranks and layers; `other` is not the name of a task.
ADAPTERS = {
    "ddi": {"rank": 4, "targets": ["q_proj", "v_proj"], "seed": 1},
    "solvation": {"rank": 8, "targets": ["k_proj", "out_proj", "fc1", "fc2"], "seed": 2},
    "absorption": {"rank": 16, "targets": ["fc2"], "seed": 3},
    "other": {"rank": 2, "targets": ["out_proj"], "seed": 4},
}
TASKS = ("ddi", "solvation", "absorption")
PLAIN_TASK = "emission"  # has projectors, but no adapter

MOLECULES = list(DRUGS.values())
PAIRS = [[MOLECULES[row], MOLECULES[-1 - row]] for row in range(4)]


def tag(smiles):
    return f"[START_I_SMILES]{smiles}[END_I_SMILES]"


class ServerWithSharedClient(Server):
    """Server with one client for all requests; creating one takes longer than an answer."""

    @functools.cached_property
    def http(self):
        return super().http


def interactions(server, body):
    answer = server.http.post("/v1/interactions", json={"pairs": PAIRS, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def chat_body(**options):
    parts = [{"type": "molecule", "molecule": {"smiles": smiles}} for smiles in PAIRS[0]]
    message = {"role": "user", "content": [*parts, {"type": "text", "text": "Compare them."}]}
    message |= options.pop("message", {})
    return {"model": MODEL, "messages": [message], "temperature": 0, "max_tokens": 12, **options}


def chat(server, **options):
    answer = server.http.post("/v1/chat/completions", json=chat_body(**options))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return body["model"], body["choices"][0]["message"]["content"]


def completion_body(**options):
    prompt = f"{tag(PAIRS[1][0])} and {tag(PAIRS[1][1])} together are"
    return {"model": MODEL, "prompt": prompt, "temperature": 0, "max_tokens": 12, **options}


def completion(server, **options):
    answer = server.http.post("/v1/completions", json=completion_body(**options))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return body["model"], body["choices"][0]["text"]


def stream(server, path, body):
    """Return the model and the joined text of a stream."""
    models, text = set(), ""
    with server.http.stream("POST", path, json={**body, "stream": True}) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            data = line.removeprefix("data: ")
            if not data or data == "[DONE]":
                continue
            chunk = json.loads(data)
            models.add(chunk["model"])
            for choice in chunk["choices"]:
                text += choice.get("text") or choice.get("delta", {}).get("content") or ""
    (model,) = models
    return model, text


def unconstrained(server, task, **options):
    body = interactions(server, {"task": task, "constrained": False, "max_tokens": 12, **options})
    return body["model"], [answer["text"] for answer in body["data"]]


def constrained(server, task):
    body = interactions(server, {"task": task})
    return body["model"], [(answer["status"], answer["text"]) for answer in body["data"]]


def requests_of(task):
    """Yield all requests that select a task, with their kind; those of one kind answer alike."""
    name = f"{MODEL}:{task}" if task in ADAPTERS else MODEL
    yield "unconstrained", lambda server: unconstrained(server, task)
    yield "unconstrained", lambda server: unconstrained(server, task, model=MODEL)
    yield "constrained", lambda server: constrained(server, task)
    yield "chat", lambda server: chat(server, message={"task": task})
    yield "chat", lambda server: chat(server, chat_template_kwargs={"task": task})
    yield "chat", lambda server: chat(server, task=task)
    chat_with_task = chat_body(task=task)
    yield "chat", lambda server: stream(server, "/v1/chat/completions", chat_with_task)
    yield "completion", lambda server: completion(server, task=task)
    completion_with_task = completion_body(task=task)
    yield "completion", lambda server: stream(server, "/v1/completions", completion_with_task)
    if name != MODEL:
        yield "unconstrained", lambda server: unconstrained(server, task, model=name)
        yield "chat", lambda server: chat(server, model=name)
        by_name = chat_body(model=name)
        yield "chat", lambda server: stream(server, "/v1/chat/completions", by_name)
        yield "completion", lambda server: completion(server, model=name)


def first_of_each_kind(server, task):
    answers = {}
    for kind, send in requests_of(task):
        if kind not in answers:
            answers[kind] = send(server)
    return answers


def start(folder, tmp_path_factory):
    log = tmp_path_factory.mktemp("server") / "server.log"
    # The tests of tests/plugin set this variable to 0 for their own process.
    environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    arguments = ["--served-model-name", MODEL]
    return ServerProcess(folder, arguments, log=log, environment=environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "adapted"
    create_checkpoint("tiny", folder, projector_sharing="task_role")
    for name, settings in ADAPTERS.items():
        write_adapter(folder, name, **settings)
    return folder


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """Return the answers of servers with one adapter each, and of their base model."""
    expected = {}
    plain_answers = []
    for task in TASKS:
        single = tmp_path_factory.mktemp("checkpoints") / task
        shutil.copytree(folder, single)
        for other in ADAPTERS.keys() - {task}:
            shutil.rmtree(single / "adapters" / other)
        with start(single, tmp_path_factory) as process:
            server = ServerWithSharedClient(process.url)
            expected[task] = first_of_each_kind(server, task)
            plain_answers.append(first_of_each_kind(server, PLAIN_TASK))
    assert plain_answers[0] == plain_answers[1] == plain_answers[2]
    return {**expected, PLAIN_TASK: plain_answers[0]}


@pytest.fixture(scope="module")
def together(alone, folder, tmp_path_factory):
    with start(folder, tmp_path_factory) as process:
        yield ServerWithSharedClient(process.url)


def test_concurrent_requests_answer_as_in_servers_of_their_own(together, alone):
    requests = [(task, kind, send) for task in alone for kind, send in requests_of(task)] * 3
    random.Random(0).shuffle(requests)
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda request: request[2](together), requests))
    wrong = [
        (task, kind, answer, alone[task][kind])
        for (task, kind, _), answer in zip(requests, answers, strict=True)
        if answer != alone[task][kind]
    ]
    assert wrong == []
    assert len(requests) == 3 * (3 * 13 + 9)


def test_adapters_and_base_model_differ(alone):
    """Otherwise equal answers would prove nothing."""
    for kind in ("unconstrained", "chat", "completion"):
        answers = [alone[task][kind] for task in (*TASKS, PLAIN_TASK)]
        models = [model for model, _ in answers]
        assert models == [*(f"{MODEL}:{task}" for task in TASKS), MODEL]
        texts = [text for _, text in answers]
        assert all(one != other for one, other in itertools.combinations(texts, 2)), kind


def test_tasks_run_in_one_batch(together):
    """vLLM's metrics list the adapters that run at the same time."""
    seen = set()
    stop = threading.Event()
    all_adapters = {f"{MODEL}:{task}" for task in TASKS}

    def watch():
        while not stop.is_set():
            time.sleep(0.05)
            for line in together.http.get("/metrics").text.splitlines():
                if line.startswith("vllm:lora_requests_info{"):
                    running = line.split('running_lora_adapters="')[1].split('"')[0]
                    seen.add(frozenset(filter(None, running.split(","))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            for _ in range(5):
                tasks = [*TASKS, PLAIN_TASK]
                list(pool.map(lambda task: unconstrained(together, task, max_tokens=80), tasks))
                if all_adapters in seen:
                    break
    finally:
        stop.set()
        watcher.join()
    assert all_adapters in seen


def test_adapter_without_task_answers_any_task_by_its_name(together, folder, tmp_path):
    name = f"{MODEL}:other"
    model, texts = unconstrained(together, PLAIN_TASK, model=name)
    assert model == name
    # In plain torch an adapter is selected by its task only, so it is renamed.
    renamed = tmp_path / "renamed"
    shutil.copytree(folder, renamed)
    (renamed / "adapters" / "other").rename(renamed / "adapters" / PLAIN_TASK)
    engine = TorchEngine(renamed, constrained=False)
    answers = engine.submit(PLAIN_TASK, [Pair(row, tuple(pair)) for row, pair in enumerate(PAIRS)])
    for (_, answer), text in zip(answers, texts, strict=True):
        assert text
        assert answer.text.startswith(text.rstrip("\ufffd"))
    # With the same adapter and prompt, the projectors of another task change the answer.
    answers = {task: chat(together, model=name, task=task) for task in (PLAIN_TASK, *TASKS)}
    assert {model for model, _ in answers.values()} == {name}
    assert len({text for _, text in answers.values()}) == 4


def test_server_lists_adapters_with_their_tasks(together):
    models = {model.id: model for model in together.openai.models.list()}
    assert set(models) == {MODEL, *(f"{MODEL}:{name}" for name in ADAPTERS)}
    assert models[f"{MODEL}:ddi"].parent == MODEL
    tasks = {task["id"]: task for task in together.http.get("/v1/tasks").json()["data"]}
    adapters = {name: task["adapter"] for name, task in tasks.items() if task["adapter"]}
    assert adapters == {task: f"{MODEL}:{task}" for task in TASKS}
    assert tasks[PLAIN_TASK]["adapter"] is None


def test_openai_client_selects_task_by_model_or_field(together, alone):
    client = together.openai
    body = chat_body(model=f"{MODEL}:ddi")
    answer = client.chat.completions.create(**body)
    assert (answer.model, answer.choices[0].message.content) == alone["ddi"]["chat"]
    body = completion_body()
    answer = client.completions.create(**body, extra_body={"task": "solvation"})
    assert (answer.model, answer.choices[0].text) == alone["solvation"]["completion"]


def test_text_without_molecules_needs_no_task(together):
    body = {"prompt": "Aspirin is", "temperature": 0, "max_tokens": 12}
    texts = {
        model: completion(together, **body, model=model)[1]
        for model in (MODEL, *(f"{MODEL}:{name}" for name in ADAPTERS))
    }
    assert len(set(texts.values())) == len(texts)


def test_other_routes_use_the_adapters_task(together):
    content = f"{tag(PAIRS[2][0])} {tag(PAIRS[2][1])} Compare them."
    messages = [{"role": "user", "content": content}]
    common = {"temperature": 0}

    def post(path, body):
        answer = together.http.post(path, json={**body, **common})
        assert answer.status_code == 200, answer.text
        return answer.json()

    texts = set()
    for selection in ({"model": f"{MODEL}:absorption"}, {"model": MODEL, "task": "absorption"}):
        body = {**selection, "messages": messages, "max_tokens": 12}
        whole = post("/v1/chat/completions", body)
        texts.add(whole["choices"][0]["message"]["content"])
        batch = post("/v1/chat/completions/batch", {**body, "messages": [messages, messages]})
        texts |= {choice["message"]["content"] for choice in batch["choices"]}
        texts.add(post("/v1/messages", body)["content"][0]["text"])
        body = {**selection, "input": content, "max_output_tokens": 12}
        texts.add(post("/v1/responses", body)["output"][-1]["content"][0]["text"])
        tokens = post("/tokenize", {**selection, "messages": messages})
        assert tokens["count"] == whole["usage"]["prompt_tokens"]
    assert len(texts) == 1


def messages_with_tasks(first, second):
    part = {"type": "molecule", "molecule": {"smiles": "C"}}
    return [
        {"role": "user", "content": [part], "task": first},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": [part], "task": second},
    ]


CONFLICT = "is the adapter of task 'ddi', not of 'solvation'.*'moltc:solvation'"


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        (
            "/v1/interactions",
            {"task": "solvation", "model": "moltc:ddi", "pairs": PAIRS},
            400,
            CONFLICT,
        ),
        ("/v1/chat/completions", chat_body(task="solvation", model="moltc:ddi"), 400, CONFLICT),
        ("/v1/completions", completion_body(task="solvation", model="moltc:ddi"), 400, CONFLICT),
        (
            "/v1/chat/completions",
            chat_body(messages=messages_with_tasks("ddi", "solvation")),
            400,
            "one task, not for 'ddi' and 'solvation'",
        ),
        (
            "/v1/chat/completions",
            chat_body(task="ddi", chat_template_kwargs={"task": "lifetime"}),
            400,
            "one task, not for 'ddi' and 'lifetime'",
        ),
        ("/v1/completions", completion_body(task="cooking"), 400, "unknown task 'cooking'"),
        ("/v1/completions", completion_body(task=["ddi"]), 400, "task is a string, not list"),
        ("/v1/completions", completion_body(), 400, "name the task"),
        ("/v1/chat/completions", chat_body(), 400, "name the task"),
        ("/v1/completions", completion_body(model="moltc:emission"), 404, "does not exist"),
        (
            "/v1/interactions",
            {"task": "emission", "model": "moltc:emission", "pairs": PAIRS},
            404,
            "does not exist",
        ),
    ],
)
def test_conflicting_request_is_rejected(together, path, body, status, reason):
    for stream in ({}, {"stream": True}) if "completions" in path else ({},):
        answer = together.http.post(path, json={**body, **stream})
        assert answer.status_code == status, answer.text
        assert re.search(reason, answer.json()["error"]["message"]), answer.text


def test_messages_with_the_same_task_are_no_conflict(together):
    model, _ = chat(together, messages=messages_with_tasks("ddi", "ddi"))
    assert model == f"{MODEL}:ddi"
