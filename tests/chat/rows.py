"""The recorded conversations, as arguments of `llama_ref.chat`."""

import json
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / "data" / "chat"


def rows(name):
    """Return the rows of a file by their id, or by their place if they have none."""
    lines = (DATA / f"{name}.jsonl").read_text("utf-8").splitlines()
    parsed = [json.loads(line) for line in lines]
    return {row.get("id", f"{name}-{place}"): row for place, row in enumerate(parsed)}


def hf_arguments(row):
    """Return messages, tools and options of a row of the templates."""
    options = dict(row.get("template_kwargs", {}))
    tools = options.pop("custom_tools", row.get("tools"))  # these take the place of the others
    default = "09 Mar 2025" if row["template"] == "llama3.2" else None  # the day of recording
    options["date"] = options.pop("date_string", default)
    options["version"] = row["template"].removeprefix("llama")
    for name in ("add_generation_prompt", "continue_final_message"):
        options[name] = row.get(name, False)
    return row["messages"], tools, options


def meta_arguments(row):
    """Return messages and options of a row of Meta's code, in the form of the OpenAI API."""
    options = {"dialect": "meta", "tool_prompt_format": row["tool_prompt_format"]}
    return [openai_form(message) for message in row["messages"]], options


def openai_form(message):
    """Return a message of Meta's in the form of the OpenAI API."""
    message = dict(message)
    if isinstance(message["content"], dict) and message["content"].get("type") == "text":
        message["content"] = [message["content"]]
    if "tool_calls" in message:
        message["tool_calls"] = [
            {
                "id": call["call_id"],
                "type": "function",
                "function": {"name": call["tool_name"], "arguments": call["arguments"]},
            }
            for call in message["tool_calls"]
        ]
    return message


def renamed(row, old, new):
    """Return a row in which a word is another one, wherever it stands."""
    return json.loads(json.dumps(row, ensure_ascii=False).replace(old, new))
