"""200 malformed requests: each gets a 4xx that names its cause, and the server keeps working."""

import json

import pytest

from tests.server import MODEL

INTERACTIONS, CHAT, COMPLETIONS = "/v1/interactions", "/v1/chat/completions", "/v1/completions"

PLACEHOLDER_ID = 987_654_321  # replaced by the server's placeholder token

# Invalid SMILES, and a pattern of the error message.
BAD_SMILES = [
    ("C1CC", "ring"),
    ("CN(C)(C)C", "valence"),
    ("c1cccc1", "kekulize"),
    ("C(", "syntax"),
    ("C)", "syntax"),
    ("C=", "syntax"),
    ("(C)", "syntax"),
    ("C..C", "syntax"),
    ("[C", "syntax"),
    ("C]", "syntax"),
    ("[Xx]", "syntax"),
    ("[C+9999]", "no atom has"),
    ("[99999C]", "no atom has"),
    ("not_a_smiles", "syntax"),
    ("*CC", "unsupported"),
    ("[NH3]->[Pt](Cl)(Cl)<-[NH3]", "unsupported"),
    ("[Pt@SP1](F)(Cl)(Br)I", "unsupported"),
    ("[Re]$[Re]", "unsupported"),
    ("F(F)F", "valence"),
    ("C(C)(C)(C)(C)C", "valence"),
    ("CCO ethanol", "character"),
    ("C\tC", "character"),
    ("C\nC", "character"),
    ("С", "character"),  # Cyrillic
    ("Ｃ", "character"),  # full width
    ("C\u200bC", "character"),
    ("💊", "character"),
    ("C\x00C", "character"),
    ("C" * 600, "too_many_atoms"),
    # vLLM may check the length of the text before the molecule is parsed.
    ("C" * 10_000, "too_long|context length"),
    ("C" * 1_000_000, "too_long|context length"),
    ("C1" * 900, "too_many_atoms|ring|syntax"),
    ("", "empty"),
    ("   ", "empty"),
    ("C>>O", "syntax"),
    ("C |$a$|", "character"),
]


def chat_with(content, **options):
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **options}


def completion(prompt, **options):
    return {"model": MODEL, "prompt": prompt, "max_tokens": 4, **options}


def tag(smiles):
    return f"[START_I_SMILES]{smiles}[END_I_SMILES]"


def pairs(*pairs, **options):
    return {"task": "ddi", "pairs": list(pairs), **options}


def cases():
    """Yield path, body and pattern of the error message."""
    for smiles, pattern in BAD_SMILES:
        part = {"type": "molecule", "molecule": {"smiles": smiles}}
        yield CHAT, chat_with([part]), pattern
        yield CHAT, chat_with([{"type": "text", "text": "What is"}, part]), pattern
        yield CHAT, chat_with(f"What is {tag(smiles)}?"), pattern
        yield COMPLETIONS, completion(f"{tag('CCO')} and {tag(smiles)}"), pattern
    for molecule, pattern in [
        (None, "molecule is a SMILES string"),
        (3, "not int"),
        (["CCO"], "not list"),
        ({}, "one of 'smiles' and 'molblock'"),
        ({"smiles": None}, "one of 'smiles' and 'molblock'"),
        ({"smiles": 7}, "one of 'smiles' and 'molblock'"),
        ({"smiles": "C", "molblock": "x"}, "one of 'smiles' and 'molblock'"),
        ({"molblock": "x"}, "molecule"),
        ({"molblock": ""}, "empty"),
        ({"smiles": "C", "colour": "red"}, "no field 'colour'"),
        ({"smiles": "C", "role": "first"}, "role is an integer"),
        ({"smiles": "C", "role": -2}, "role -2 is negative"),
        ({"smiles": "C", "task": "cooking"}, "unknown task 'cooking'"),
        ({"smiles": "C", "task": 5}, "task is a string"),
        ({"smiles": "C<mol>"}, "<mol> is reserved"),
        ({"smiles": "C[END_I_SMILES]"}, "no partner"),
    ]:
        yield CHAT, chat_with([{"type": "molecule", "molecule": molecule}]), pattern
    for text, pattern in [
        ("<mol>", "<mol> is reserved"),
        ("a <mol> b", "<mol> is reserved"),
        ("＜mol＞", "1 <mol> placeholders for 0 molecules"),
        ("﹤mol﹥", "1 <mol> placeholders for 0 molecules"),
        (f"{tag('C')}<mol>", "<mol> is reserved"),
        (f"{tag('C')}＜mol＞", "2 <mol> placeholders for 1 molecules"),
        ("[START_I_SMILES]CCO", "no partner"),
        ("CCO[END_I_SMILES]", "no partner"),
        (f"[START_I_SMILES]{tag('C')}", "no partner"),
        (" ".join([tag("C")] * 17), "17 molecules in one prompt, at most 16"),
        ("x" * 20_000, "context length|max_tokens|tokens"),
    ]:
        yield CHAT, chat_with(text), pattern
        yield CHAT, chat_with([{"type": "text", "text": text}]), pattern
        yield COMPLETIONS, completion(text), pattern
    yield COMPLETIONS, completion([5, PLACEHOLDER_ID, 6]), "1 <mol> placeholders for 0 molecules"
    yield COMPLETIONS, completion([10**9]), "token|vocabulary|range"
    yield COMPLETIONS, completion([]), "prompt"
    yield COMPLETIONS, completion(None), "prompt"
    yield COMPLETIONS, completion({"a": 1}), "prompt"
    yield COMPLETIONS, completion("x", max_tokens=-1), "max_tokens"
    yield COMPLETIONS, completion("x", temperature="hot"), "temperature"
    yield COMPLETIONS, completion("x", structured_outputs={"regex": "("}), "regex|grammar"
    yield CHAT, chat_with([{"type": "image_url", "image_url": {"url": "x"}}]), "image"
    yield CHAT, {"model": MODEL}, "messages"
    yield CHAT, {"model": MODEL, "messages": "hello"}, "messages"
    yield CHAT, {"model": "another", "messages": []}, "another|messages"
    yield "/generative_scoring", {"model": MODEL, "query": "a", "items": ["b"]}, "interactions"

    yield INTERACTIONS, pairs(["C", "O"], task="interaction"), "unknown task 'interaction'"
    yield INTERACTIONS, pairs(["C", "O"], task="solvatoin"), "Did you mean 'solvation'"
    yield INTERACTIONS, pairs(["C", "O"], task=""), "unknown task ''"
    yield INTERACTIONS, pairs(["C", "O"], task=None), "task"
    yield INTERACTIONS, pairs(["C", "O"], task=["ddi"]), "task"
    yield INTERACTIONS, {"pairs": [["C", "O"]]}, "task"
    yield INTERACTIONS, {"task": "ddi"}, "pairs"
    yield INTERACTIONS, pairs(), "at least 1 item"
    yield INTERACTIONS, pairs([]), r"takes 2 molecule\(s\) .*not 0"
    yield INTERACTIONS, pairs(["C"]), r"takes 2 molecule\(s\) .*not 1"
    yield INTERACTIONS, pairs(["C", "O"], ["C", "O", "N"]), r"not 3 \(parameter=pairs\[1\]|not 3"
    yield INTERACTIONS, pairs("CO"), "list"
    yield INTERACTIONS, pairs({"a": "C", "b": "O"}), "list"
    yield INTERACTIONS, pairs([1, 2]), "string|object"
    yield INTERACTIONS, pairs([None, "O"]), "string|object"
    yield INTERACTIONS, pairs([["C"], "O"]), "string|object"
    yield INTERACTIONS, pairs([{"inchi": "x"}, "O"]), "inchi|Extra"
    yield INTERACTIONS, pairs([{"smiles": 3}, "O"]), "string"
    yield INTERACTIONS, pairs(["C", "O"], constrained="perhaps"), "constrained|boolean"
    yield INTERACTIONS, pairs(["C", "O"], max_tokens=0), "max_tokens|greater"
    yield INTERACTIONS, pairs(["C", "O"], max_tokens="many"), "max_tokens|integer"
    yield INTERACTIONS, pairs(["C", "O"], colour="red"), "colour|Extra"
    yield INTERACTIONS, pairs(["C", "O"], model="another"), "`another` does not exist"
    yield INTERACTIONS, pairs(["C", "O"], question="Why?"), "its own question"
    yield INTERACTIONS, pairs(["C"], task="ask"), "question"
    yield INTERACTIONS, pairs(["C"], task="ask", question="<mol>?"), "<mol>"
    yield INTERACTIONS, pairs(["C"], task="ask", question=" "), "question"
    yield INTERACTIONS, pairs(*[["C", "O"]] * 10_001), "at most 10000 items"
    for body in (
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b"\xff\xfe",
        b'{"task": "ddi", "pairs": [[',
        b"1",
    ):
        yield INTERACTIONS, body, "JSON|body|dictionary|object|decode|required|valid"
        yield CHAT, body, "JSON|body|dictionary|object|decode|required|valid"


CASES = list(cases())


def test_cases_are_at_least_200():
    assert len(CASES) >= 200


@pytest.mark.parametrize("chunk", range(5))
def test_malformed_request_gets_4xx_that_names_its_cause(server, chunk):
    import re

    wrong = []
    with server.http as http:
        body = {"model": MODEL, "prompt": "[START_I_SMILES]C[END_I_SMILES]"}
        placeholder = http.post("/tokenize", json=body).json()["tokens"][-1]
        for path, body, pattern in CASES[chunk::5]:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            content = content.replace(str(PLACEHOLDER_ID).encode(), str(placeholder).encode())
            response = http.post(
                path, content=content, headers={"content-type": "application/json"}
            )
            try:
                message = response.json()["error"]["message"]
            except (ValueError, KeyError, TypeError):
                wrong.append((path, content[:120], response.status_code, response.text[:200]))
                continue
            if not 400 <= response.status_code < 500 or not re.search(pattern, message, re.I):
                wrong.append((path, content[:120], response.status_code, pattern, message[:200]))
            if len(response.text) > 20_000:
                wrong.append((path, content[:120], "characters", len(response.text)))
    assert wrong == [], "\n".join(map(str, wrong))


def test_valid_request_is_answered_afterwards(server):
    body = {"task": "solvation", "pairs": [["CCO", "O"]]}
    response = server.http.post(INTERACTIONS, json=body)
    assert response.status_code == 200
    assert response.json()["data"][0]["status"] == "ok"
    assert server.http.get("/health").status_code == 200
