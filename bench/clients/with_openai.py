"""The `openai` client: chat, completions, responses, streams, tools, log-probs, refusals."""

from __future__ import annotations

from typing import Any

import openai

_ASK: list[Any] = [{"role": "user", "content": "What is 3 + 4?"}]
_ERRAND: list[Any] = [{"role": "user", "content": "email iris about the hill: it is late"}]


def _tool(name: str, meaning: str, *texts: str) -> dict[str, Any]:
    """A definition of which all arguments are texts."""
    properties = {text: {"type": "string"} for text in texts}
    parameters = {"type": "object", "properties": properties, "required": list(texts)}
    function = {"name": name, "description": meaning, "parameters": parameters}
    return {"type": "function", "function": function}


_TOOLS = [
    _tool("company_directory_find_email_address", "find an address", "name"),
    _tool("email_send_email", "send an email", "recipient", "subject", "body"),
]


def talk(url: str, model: str) -> None:
    """Print what each of its calls gives."""
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    print("openai", openai.__version__, "models:", [one.id for one in client.models.list()])
    _chat(client, model)
    _tools(client, model)
    _completions(client, model)
    _responses(client, model)
    _refusals(client, model)


def _chat(client: Any, model: str) -> None:
    how = {"model": model, "messages": _ASK, "max_tokens": 24, "seed": 1}
    whole = client.chat.completions.create(**how, logprobs=True, top_logprobs=2)
    choice = whole.choices[0]
    thought = getattr(choice.message, "reasoning_content", None) or ""
    print(f"chat: {choice.message.content!r} thought: {thought!r} {choice.finish_reason}")
    told = [(one.token, round(one.logprob, 3)) for one in choice.logprobs.content[:3]]
    print("log-probs:", told, [one.token for one in choice.logprobs.content[0].top_logprobs])

    content = streamed_thought = ""
    usage = None
    stream = client.chat.completions.create(
        **how, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        for one in chunk.choices:
            content += one.delta.content or ""
            streamed_thought += getattr(one.delta, "reasoning_content", None) or ""
        usage = chunk.usage
    same = (content, streamed_thought) == (choice.message.content, thought)
    print("streamed = not streamed:", same, usage.completion_tokens, whole.usage.completion_tokens)


def _tools(client: Any, model: str) -> None:
    """A call, its answer, and what follows; whole and streamed."""
    how = {"model": model, "tools": _TOOLS, "max_tokens": 60, "temperature": 0}
    how["extra_body"] = {"enable_thinking": False}
    message = client.chat.completions.create(**how, messages=_ERRAND).choices[0].message
    calls = message.tool_calls or []
    print("tools:", _told(message))

    streamed = []
    for chunk in client.chat.completions.create(**how, messages=_ERRAND, stream=True):
        for one in chunk.choices[0].delta.tool_calls or []:
            streamed.append((one.function.name, one.function.arguments))
    same = streamed == [(one.function.name, one.function.arguments) for one in calls]
    print("calls streamed = not streamed:", same)
    if not calls:
        return
    answer = {"role": "tool", "tool_call_id": calls[0].id, "content": '["iris@rock.com"]'}
    after = client.chat.completions.create(**how, messages=[*_ERRAND, message, answer])
    print("after its answer:", _told(after.choices[0].message))


def _told(message: Any) -> str:
    calls = [f"{one.function.name}({one.function.arguments})" for one in message.tool_calls or []]
    return " ".join([*calls, repr(message.content or "")])


def _completions(client: Any, model: str) -> None:
    text = client.completions.create(
        model=model, prompt="The answer is", max_tokens=8, logprobs=1, seed=2, echo=True
    ).choices[0]
    told = [value if value is None else round(value, 2) for value in text.logprobs.token_logprobs]
    print("completions:", repr(text.text), told[:4])


def _responses(client: Any, model: str) -> None:
    how = {"model": model, "input": "What is 3 + 4?", "max_output_tokens": 24}
    ids = {"return_token_ids": True, "seed": 1}
    whole = client.responses.create(**how, extra_body=ids)
    last = whole.output[-1]
    kinds = [one.type for one in whole.output]
    print(
        "responses:", whole.status, kinds, repr(whole.output_text), len(last.generation_token_ids)
    )
    with client.responses.stream(**how, extra_body={"seed": 1}) as stream:
        events = list(dict.fromkeys(event.type for event in stream))
    print("responses streamed:", events)


def _refusals(client: Any, model: str) -> None:
    for bad in ({"n": 10_000}, {"stop": ["x"] * 10_000}, {"model": "nobody"}, {"top_k": 5}):
        how = {"model": model, "messages": _ASK, **bad}
        extra = {"top_k": how.pop("top_k")} if "top_k" in how else None
        try:
            client.chat.completions.create(**how, extra_body=extra)
            print("NOT REFUSED:", list(bad))
        except openai.APIStatusError as error:
            print(type(error).__name__, error.status_code, error.body["message"][:90])
