"""Ask a running server with OpenAI's client: ``moltc serve --port 8000`` first."""

import argparse

from openai import OpenAI

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
WARFARIN = "CC(=O)CC(c1ccccc1)C1=C(O)c2ccccc2OC1=O"


def main() -> None:
    """Ask one question in chat and two in a batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--key", default="none", help="API key, if the server requires one")
    options = parser.parse_args()

    client = OpenAI(base_url=f"{options.url}/v1", api_key=options.key)
    model = client.models.list().data[0].id

    # Molecules are content parts of a message, as images are.
    chat = client.chat.completions.create(
        model=model,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "molecule", "molecule": {"smiles": ASPIRIN}},
                    {"type": "molecule", "molecule": {"smiles": WARFARIN}},
                    {"type": "text", "text": "Do these two drugs interact?"},
                ],
            }
        ],
    )
    print("chat:", chat.choices[0].message.content)

    # Many pairs at once, with typed answers.
    response = client.post(
        "/interactions",
        body={"task": "ddi", "pairs": [[ASPIRIN, WARFARIN], [ASPIRIN, "C1CC"]]},
        cast_to=dict,
    )
    for answer in response["data"]:
        print("batch:", answer["status"], answer["label"] or answer["error"])


if __name__ == "__main__":
    main()
