"""What OpenAI's, Anthropic's and Ollama's own clients make of a server: ``python llm_clients.py URL``.

It runs in the environment of these packages, which has nothing of this project, and prints a JSON
object: by case, the objects that the client returned or the error that it raised.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

ASK = [{"role": "user", "content": "Say it."}]
PLACE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "description": "of a city", "parameters": PLACE}
READ = 3
"""Events that are read of a stream before it is closed."""
MODELS = ("text", "tools", "refused", "invalid", "broken", "cut")


def plain(one: Any) -> Any:
    """A client's object as JSON."""
    return one.model_dump(mode="json") if hasattr(one, "model_dump") else one


def answered(call: Callable[..., Any], **asked: Any) -> Any:
    """The object, or the error with what a program would look at."""
    try:
        return plain(call(**asked))
    except Exception as error:
        return failed(error)


def failed(error: Exception) -> dict[str, Any]:
    """The type of an error, its status, and its message."""
    known = {"error": type(error).__name__, "message": str(error)}
    for name in ("status_code", "body", "type", "request_id"):
        if hasattr(error, name):
            known[name] = plain(getattr(error, name))
    return known


def streamed(call: Callable[..., Iterable[Any]], **asked: Any) -> list[Any]:
    """All events of a stream, and the error that ended it, if any."""
    events: list[Any] = []
    try:
        for event in call(**asked, stream=True):
            events.append(plain(event))
    except Exception as error:
        events.append(failed(error))
    return events


def left(stream: Any) -> list[Any]:
    """The first events of a stream that is closed then."""
    events = [plain(event) for _, event in zip(range(READ), stream, strict=False)]
    stream.close()
    return events


def openai(url: str) -> dict[str, Any]:
    """Chat, responses and embeddings."""
    client = import_module("openai").OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0)
    chat, responses = client.chat.completions.create, client.responses.create
    tools = [{"type": "function", "function": FUNCTION}]
    usage = {"stream_options": {"include_usage": True}}
    found: dict[str, Any] = {}
    for model in MODELS:
        asked = {"model": model, "messages": ASK, "tools": tools}
        found[f"chat {model}"] = answered(chat, **asked)
        found[f"chat {model} streamed"] = streamed(chat, **asked, **usage)
        if model != "cut":
            of = {"model": model, "input": "Say it."}
            found[f"responses {model}"] = answered(responses, **of)
            found[f"responses {model} streamed"] = streamed(responses, **of)
    found["embeddings"] = answered(
        client.embeddings.create, model="text", input="a", encoding_format="float"
    )
    raw = client.chat.completions.with_raw_response.create(model="text", messages=ASK)
    found["content type"] = raw.headers["content-type"]
    found["left"] = left(chat(model="endless", messages=ASK, stream=True))
    return found


def anthropic(url: str) -> dict[str, Any]:
    """Messages, by plain events and by the helper that puts them together."""
    client = import_module("anthropic").Anthropic(base_url=url, api_key="k", max_retries=0)
    create = client.messages.create
    tools = [{"name": "weather", "description": "of a city", "input_schema": PLACE}]
    found: dict[str, Any] = {}

    def gathered(**asked: Any) -> Any:
        with client.messages.stream(**asked) as stream:
            return stream.get_final_message()

    for model in MODELS:
        asked = {"model": model, "messages": ASK, "max_tokens": 50, "tools": tools}
        found[f"messages {model}"] = answered(create, **asked)
        found[f"messages {model} streamed"] = streamed(create, **asked)
        found[f"messages {model} gathered"] = answered(gathered, **asked)
    found["left"] = left(create(model="endless", messages=ASK, max_tokens=50, stream=True))
    return found


def ollama(url: str) -> dict[str, Any]:
    """Chat and embeddings."""
    client = import_module("ollama").Client(host=url)
    tools = [{"type": "function", "function": FUNCTION}]
    found: dict[str, Any] = {}
    for model in MODELS:
        asked = {"model": model, "messages": ASK, "tools": tools}
        found[f"chat {model}"] = answered(client.chat, **asked)
        found[f"chat {model} streamed"] = streamed(client.chat, **asked)
    found["embed"] = answered(client.embed, model="text", input="a")
    found["left"] = left(client.chat(model="endless", messages=ASK, stream=True))
    return found


if __name__ == "__main__":
    vendors = {"openai": openai, "anthropic": anthropic, "ollama": ollama}
    json.dump(vendors[sys.argv[1]](sys.argv[2]), sys.stdout)
