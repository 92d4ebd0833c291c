"""A rejected request has no effect on later ones."""

import pytest

from tests.integration.test_interactions import ask
from tests.server import MODEL


@pytest.mark.parametrize("route", ["interactions", "chat", "completions"])
def test_molecule_of_rejected_request_can_be_sent_again(server, route):
    """The rejected request is rendered but does not reach the engine."""
    smiles = "C" * 31 + {"interactions": "O", "chat": "N", "completions": "F"}[route]
    prompt = f"[START_I_SMILES]{smiles}[END_I_SMILES] is"
    body = {"model": MODEL, "prompt": prompt, "max_tokens": 4}
    rejected = server.http.post(
        "/v1/completions", json={**body, "structured_outputs": {"regex": "("}}
    )
    assert rejected.status_code == 400, rejected.text
    if route == "interactions":
        answers, _ = ask(server, "solvation", [[smiles, "O"]])
        assert answers[0].status == "ok"
    elif route == "chat":
        messages = [{"role": "user", "content": prompt}]
        body = {"model": MODEL, "messages": messages, "max_tokens": 4}
        assert server.http.post("/v1/chat/completions", json=body).status_code == 200
    else:
        assert server.http.post("/v1/completions", json=body).status_code == 200
