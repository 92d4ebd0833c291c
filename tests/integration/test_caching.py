"""Caches of the server, measured by the counters on ``/metrics``."""

from tests.integration.test_interactions import ask

# 20 molecules that no other test uses.
MOLECULES = [
    *("FCCF", "FCCCF", "FCCCCF", "FCCCCCF", "FCCCCCCF"),
    *("FC(F)F", "BrCCBr", "ICCI", "CSC", "CS(C)=O", "C1CCCCC1", "C1CCCCCC1"),
    *("c1ccc2ccccc2c1", "c1ccncc1", "c1ccoc1", "c1ccsc1", "N#CCC#N", "CN=C=O", "OO", "NN"),
]


def test_server_encodes_each_molecule_once(server):
    pairs = [[first, second] for first in MOLECULES[:10] for second in MOLECULES]
    assert len(pairs) == 200
    before = server.metric("moltc_molecules_encoded_total")
    parsed = server.metric("moltc_molecules_parsed_total")
    answers, _ = ask(server, "solvation", pairs)
    assert {answer.status for answer in answers} == {"ok"}
    assert server.metric("moltc_molecules_encoded_total") - before == 20
    assert server.metric("moltc_molecules_parsed_total") - parsed == 400


def test_server_does_not_encode_other_smiles_of_a_molecule_again(server):
    ask(server, "ddi", [["C(C)(C)(C)O", "[2H]O[2H]"]])
    before = server.metric("moltc_molecules_encoded_total")
    ask(server, "ddi", [["OC(C)(C)C", "[2H]O[2H]"], ["CC(C)(C)O", "[2H]O[2H]"]])
    assert server.metric("moltc_molecules_encoded_total") == before


def test_repeated_pair_hits_the_prefix_cache(server):
    pair = ["CC(C)CC(N)C(=O)OCCCCCCCCCCO", "NC(Cc1ccccc1)C(=O)O"]
    (first,), _ = ask(server, "solubility", [pair])
    hits = server.metric("vllm:prefix_cache_hits_total")
    (repeated,), body = ask(server, "solubility", [pair])
    new_hits = server.metric("vllm:prefix_cache_hits_total") - hits
    prompt = body["usage"]["prompt_tokens"]
    assert new_hits == (prompt - 1) // 32 * 32  # all full blocks of 32 tokens before the last token
    assert repeated == first
    # The first molecule alone is a common prefix, too.
    hits = server.metric("vllm:prefix_cache_hits_total")
    ask(server, "solubility", [[pair[0], "CCO"]])
    assert server.metric("vllm:prefix_cache_hits_total") - hits == 32


def test_server_counts_pairs_and_bad_molecules(server):
    pairs = server.metric("moltc_pairs_answered_total")
    bad = server.metric("moltc_bad_molecules_total")
    ask(server, "ddi", [["C", "O"], ["C(", "O"]])
    assert server.metric("moltc_pairs_answered_total") - pairs == 2
    assert server.metric("moltc_bad_molecules_total") - bad == 1
