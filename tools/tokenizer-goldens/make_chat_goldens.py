#!/usr/bin/env python3
"""Writes what `transformers` makes of chat templates.

tests/tokenizer/data/chat/goldens.json: conversations by the templates in that folder, which have the constructs of the
published ones. The published ones themselves are taken from MOEBIUS_TEST_DATA (deepseek_v3, qwen3) and stay there.

tests/tokenizer/data/chat/families.json: conversations with tools, calls, thinking, contents in parts and variables by
the templates in families/, which have the constructs of the published templates of Kimi-K2, GLM-4.5, gpt-oss,
Qwen3-Coder, Mistral, Granite, Phi-3.5 and DeepSeek-V3.1, and by those of the folder itself.

tests/jinja/data/goldens.json: the small templates of expressions.txt beside it, one a line; null where it fails.
"""

import datetime
import json
import os
import pathlib
import time

import transformers
from transformers.utils import chat_template_utils
from transformers.utils.chat_template_utils import render_jinja_template

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHAT = ROOT / "tests/tokenizer/data/chat"
JINJA = ROOT / "tests/jinja/data"
OUTSIDE = pathlib.Path(os.environ.get("MOEBIUS_TEST_DATA", ROOT / "../shared/data")) / "tokenizers"
PUBLISHED = ["deepseek_v3", "qwen3"]


def conversation(*turns):
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [{"role": roles[t[0]]} | ({} if t[1] is None else {"content": t[1]}) for t in turns]


CONVERSATIONS = [
    conversation(("u", "Hello")),
    conversation(("u", "  Hi \n"), ("a", " There\n\n"), ("u", "caf\u00e9 \u4e2d\u6587 \U0001f600 <|end|> {{ x }} 'q' \"r\" &<>")),
    conversation(("s", "Be brief."), ("u", "1+1?")),
    conversation(("s", "Be brief."), ("u", "1+1?"), ("a", "2"), ("u", "2+2?"), ("a", "4")),
    conversation(("s", "One."), ("u", "a"), ("s", "Two."), ("u", "b")),
    conversation(("u", "q"), ("a", "<think>\nlong\n</think>\n\nanswer"), ("u", "r"), ("a", "<think>\n\nmore\n\n</think>\nend")),
    conversation(("u", "q"), ("t", "result"), ("t", "other"), ("a", "done")),
    conversation(("u", "<tool_response>x</tool_response>"), ("a", "y")),
    conversation(("a", "first")),
    conversation(("u", "a"), ("u", "b")),
    conversation(("u", "")),
    conversation(("u", "q"), ("a", None)),
]


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather somewhere. ",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "A town, caf\u00e9 <or> 'so'"},
                    "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
                    "days": {"type": ["integer", "null"], "default": 1.5},
                    "tags": {"type": "array", "items": {"type": "string"}, "nullable": True},
                    "at": {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}, "required": ["x"]},
                    "one": {"oneOf": [{"type": "string", "description": "d"}, {"type": "integer"}], "default": "z"},
                },
                "required": ["place", "at"],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}}},
]


def call(id_, name, arguments):
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


CALLED = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "I have to look.\n",
        "tool_calls": [call("abcdefgh1", "weather", {"place": "Z\u00fcrich", "at": {"x": 1.0, "y": -2e-7}, "days": None, "ok": True, "tags": ["a", 1]})],
    },
    {"role": "tool", "tool_call_id": "abcdefgh1", "name": "weather", "content": '{"sun": true}'},
    {"role": "assistant", "content": "", "tool_calls": [call("abcdefgh2", "now", {}), call("abcdefgh3", "now", {"a": "b"})]},
    {"role": "tool", "tool_call_id": "abcdefgh2", "content": "12:00"},
    {"role": "tool", "tool_call_id": "abcdefgh3", "content": "12:01"},
]
PARTS = [
    {"role": "user", "content": [{"type": "text", "text": "What is this? "}, {"type": "image"}, {"type": "text", "text": "And \"that\"?"}]},
    {"role": "assistant", "content": "A", "reasoning": "Hm."},
    {"role": "user", "content": [{"type": "text", "text": "Sure?"}]},
]
SCENES = [
    {"messages": CONVERSATIONS[4 - 1]},
    {"messages": CONVERSATIONS[5], "variables": {"enable_thinking": False, "thinking": True}},
    {"messages": CALLED, "tools": TOOLS},
    {"messages": CALLED[1:4], "tools": TOOLS, "variables": {"reasoning_effort": "high", "builtin_tools": ["web search", "python"]}},
    {"messages": CALLED + [{"role": "assistant", "content": "Noon."}], "tools": TOOLS[1:]},
    {"messages": CALLED[:2], "tools": TOOLS},
    {"messages": CALLED[:2] + [{"role": "assistant", "content": "<think>so</think>Sun.", "prefix": True}], "variables": {"model_identity": "I."}},
    {"messages": PARTS},
    {"messages": PARTS, "tools": TOOLS[1:], "variables": {"controls": {"length": "short", "n": [1, 2.5]}}},
    {"messages": [{"role": "user", "content": "q"}, {"role": "tool", "content": [{"output": {"a": 1}}, "b"]}], "tools": []},
]


def scene_text(template, scene, prompt, tokens):
    messages = chat_template_utils._normalize_chat_messages(scene["messages"])
    try:
        texts, _ = render_jinja_template(
            conversations=[messages],
            tools=scene.get("tools"),
            chat_template=template,
            add_generation_prompt=prompt,
            **{**tokens, **scene.get("variables", {})},
        )
        return texts[0]
    except Exception:  # as in rendered
        return None


def families(tokens):
    paths = [*sorted(CHAT.glob("families/*.jinja")), *sorted(CHAT.glob("*.jinja"))]
    texts = {}
    for path in paths:
        made = [[scene_text(path.read_text(), s, prompt, tokens) for prompt in (False, True)] for s in SCENES]
        texts[str(path.relative_to(CHAT))] = made
        print(path.stem, sum(t is not None for pair in made for t in pair), "texts of scenes")
    return {"scenes": SCENES, "texts": texts}


def token(config, key):
    value = config.get(key)
    return value["content"] if isinstance(value, dict) else value


def rendered(template, messages, prompt, tokens):
    try:
        texts, _ = render_jinja_template(
            conversations=[messages], chat_template=template, add_generation_prompt=prompt, **tokens
        )
        return texts[0]
    except Exception:  # the template is wrong, or refuses the conversation: so must we
        return None


def cases(template, tokens):
    for messages in CONVERSATIONS:
        for prompt in (False, True):
            text = rendered(template, messages, prompt, tokens)
            yield {"messages": messages, "add_generation_prompt": prompt, "text": text}


class FixedClock(datetime.datetime):
    """strftime_now shows this time, which the tests give too."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(1789000000)


def main():
    os.environ["TZ"] = "UTC"
    time.tzset()
    chat_template_utils.datetime = FixedClock
    made_with = f"transformers {transformers.__version__}"
    goldens = {"made_with": made_with, "templates": {}, "published": {}}
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    for path in sorted(CHAT.glob("*.jinja")):
        goldens["templates"][path.stem] = list(cases(path.read_text(), tokens))
    lines = (JINJA / "expressions.txt").read_text().splitlines()
    expressions = [[line, rendered(line, CONVERSATIONS[0], False, tokens)] for line in lines]
    (JINJA / "goldens.json").write_text(json.dumps({"made_with": made_with, "expressions": expressions}, indent=1) + "\n")
    made = {"made_with": made_with} | families(tokens)
    (CHAT / "families.json").write_text(json.dumps(made, indent=1) + "\n")
    for name in PUBLISHED:
        config = json.loads((OUTSIDE / name / "tokenizer_config.json").read_text())
        tokens = {key: token(config, key) for key in ("bos_token", "eos_token") if token(config, key) is not None}
        goldens["published"][name] = list(cases(config["chat_template"], tokens))
    (CHAT / "goldens.json").write_text(json.dumps(goldens, indent=1) + "\n")
    for kind in ("templates", "published"):
        for name, made in goldens[kind].items():
            print(kind, name, sum(c["text"] is not None for c in made), "texts", sum(c["text"] is None for c in made), "refused")


if __name__ == "__main__":
    main()
