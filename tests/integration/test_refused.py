"""A refused request leaves nothing behind."""

import pytest

from tests.integration.test_interactions import ask
from tests.server import MODEL


@pytest.mark.parametrize("way", ["interactions", "chat", "completions"])
def test_a_molecule_of_a_refused_request_can_be_asked_again(server, way):
    """The refused one was rendered, and then never reached the engine."""
    smiles = "C" * 31 + {"interactions": "O", "chat": "N", "completions": "F"}[way]
    prompt = f"[START_I_SMILES]{smiles}[END_I_SMILES] is"
    body = {"model": MODEL, "prompt": prompt, "max_tokens": 4}
    refused = server.http.post(
        "/v1/completions", json={**body, "structured_outputs": {"regex": "("}}
    )
    assert refused.status_code == 400, refused.text
    if way == "interactions":
        answers, _ = ask(server, "solvation", [[smiles, "O"]])
        assert answers[0].status == "ok"
    elif way == "chat":
        messages = [{"role": "user", "content": prompt}]
        body = {"model": MODEL, "messages": messages, "max_tokens": 4}
        assert server.http.post("/v1/chat/completions", json=body).status_code == 200
    else:
        assert server.http.post("/v1/completions", json=body).status_code == 200
