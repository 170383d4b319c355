"""Requests to language models, in the terms that all protocols share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from understudy.common.codecs.llm.reply import inner, objects


@dataclass(slots=True)
class Prompt:
    """A request. Parameters are None where it does not set them."""

    model: str = ""
    streamed: bool = False
    system: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """Of all messages but the system's; the last one asks."""
    messages: int = 0
    attachments: int = 0
    """Parts that are not text: images, audio, files."""
    tools: int = 0
    format: str = "text"
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: float | None = None
    choices: float | None = None

    def add(self, role: object, content: object) -> None:
        """A message."""
        into = self.system if role in ("system", "developer") else self.texts
        if into is self.texts:
            self.messages += 1
        if isinstance(content, str):
            into.append(content)
            return
        for part in objects(content):
            text = part.get("text")
            if isinstance(text, str):
                into.append(text)
            elif isinstance(part.get("content"), (str, list)):
                self.add_part(into, part["content"])
            else:
                self.attachments += 1

    def add_part(self, into: list[str], content: object) -> None:
        """The content of a part, such as a tool's result."""
        if isinstance(content, str):
            into.append(content)
            return
        into += (one["text"] for one in objects(content) if isinstance(one.get("text"), str))


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


def _first(payload: dict[str, Any], *names: str) -> float | None:
    found = (_number(payload.get(name)) for name in names)
    return next((one for one in found if one is not None), None)


def common(payload: dict[str, Any]) -> Prompt:
    """What the requests of most protocols share."""
    prompt = Prompt()
    model = payload.get("model")
    prompt.model = model[:64] if isinstance(model, str) else ""
    prompt.streamed = payload.get("stream") is True
    prompt.temperature = _first(payload, "temperature")
    prompt.top_p = _first(payload, "top_p")
    prompt.max_tokens = _first(payload, "max_completion_tokens", "max_tokens", "max_output_tokens")
    prompt.choices = _first(payload, "n")
    tools = payload.get("tools", payload.get("functions"))
    prompt.tools = len(tools) if isinstance(tools, list) else 0
    wanted = payload.get("response_format") or inner(payload, "text").get("format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind in ("json_object", "json_schema"):
        prompt.format = kind
    return prompt


def chat(payload: dict[str, Any]) -> Prompt | None:
    """A request for a chat completion; None if it is none."""
    if not isinstance(payload.get("messages"), list):
        return None
    prompt = common(payload)
    for message in objects(payload["messages"]):
        prompt.add(message.get("role"), message.get("content"))
    return prompt


def completion(payload: dict[str, Any]) -> Prompt | None:
    """A request for a completion; a prompt of token ids has no text."""
    if "prompt" not in payload:
        return None
    prompt = common(payload)
    given = payload["prompt"]
    texts = given if isinstance(given, list) else [given]
    prompt.texts = [one for one in texts if isinstance(one, str)]
    prompt.messages = len(prompt.texts) or 1
    return prompt


def responses(payload: dict[str, Any]) -> Prompt | None:
    """A request of the responses API."""
    if "input" not in payload and "previous_response_id" not in payload:
        return None
    prompt = common(payload)
    instructions, given = payload.get("instructions"), payload.get("input")
    if isinstance(instructions, str):
        prompt.add("system", instructions)
    if isinstance(given, str):
        prompt.add("user", given)
    for item in objects(given):
        content = item.get("content", item.get("output"))
        if content is not None:
            prompt.add(item.get("role"), content)
    return prompt


def messages(payload: dict[str, Any]) -> Prompt | None:
    """A request of Anthropic's messages: the system's prompt is beside them."""
    prompt = chat(payload)
    if prompt is not None and payload.get("system"):
        prompt.add("system", payload["system"])
    return prompt


def generate(payload: dict[str, Any]) -> Prompt | None:
    """A request of TGI's or SGLang's `/generate`."""
    given = payload.get("inputs", payload.get("text"))
    if given is None and "input_ids" not in payload:
        return None
    options = inner(payload, "parameters") or inner(payload, "sampling_params")
    prompt = common(options)
    prompt.streamed = payload.get("stream") is True
    prompt.max_tokens = _first(options, "max_new_tokens")
    prompt.texts = [given] if isinstance(given, str) else []
    prompt.messages = 1
    return prompt


def triton(payload: dict[str, Any]) -> Prompt | None:
    """A request of Triton's `generate`."""
    if "text_input" not in payload:
        return None
    prompt = common(payload)
    parameters = inner(payload, "parameters") | payload
    prompt.temperature = _first(parameters, "temperature")
    prompt.max_tokens = _first(parameters, "max_tokens")
    given = payload["text_input"]
    prompt.texts = [given] if isinstance(given, str) else []
    prompt.messages = 1
    return prompt


def ollama(payload: dict[str, Any]) -> Prompt | None:
    """A request of Ollama's `chat` or `generate`, which streams unless it says otherwise."""
    prompt = chat(payload) or completion(payload)
    if prompt is None:
        return None
    options = inner(payload, "options")
    prompt.streamed = payload.get("stream") is not False
    prompt.temperature = _first(options, "temperature")
    prompt.top_p = _first(options, "top_p")
    prompt.max_tokens = _first(options, "num_predict")
    if isinstance(payload.get("system"), str):
        prompt.add("system", payload["system"])
    wanted = payload.get("format")
    if wanted:
        prompt.format = "json_schema" if isinstance(wanted, dict) else "json_object"
    return prompt
