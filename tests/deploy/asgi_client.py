"""ASGI client and small applications for the tests of middlewares."""

import asyncio
import json

SCOPE = {"type": "http", "method": "POST", "path": "/v1/x", "headers": []}


class FakeClient:
    """Client that sends a body in chunks, then stays connected, and keeps the response.

    Args:
        chunks: Chunks of the body; default: an empty JSON object.

    Attributes:
        messages: ASGI messages that are still to be sent.
        received: ASGI messages of the response.
    """

    def __init__(self, *chunks):
        chunks = chunks or [b"{}"]
        self.messages = [
            {"type": "http.request", "body": chunk, "more_body": index + 1 < len(chunks)}
            for index, chunk in enumerate(chunks)
        ]
        self.received = []

    async def receive(self):
        while not self.messages:
            await asyncio.sleep(60)
        return self.messages.pop(0)

    async def send(self, message):
        self.received.append(message)

    def request(self, app, headers=()):
        """Send the request to an application and return the client itself."""
        scope = {**SCOPE, "headers": list(headers)}
        asyncio.run(app(scope, self.receive, self.send))
        return self

    @property
    def status(self):
        return self.received[0]["status"]

    @property
    def headers(self):
        return {name.decode(): value.decode() for name, value in self.received[0]["headers"]}

    @property
    def error(self):
        return json.loads(self.received[1]["body"])["error"]


async def send_response(send, status=200, body=b"{}"):
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def read_body(receive):
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        body += message["body"]
        if not message["more_body"]:
            return body
