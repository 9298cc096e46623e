#!/usr/bin/env python3
"""Writes what `transformers` makes of chat templates.

tests/tokenizer/data/chat/goldens.json: conversations by the templates in that folder, which have the constructs of the
published ones. The published ones themselves are taken from MOEBIUS_TEST_DATA (deepseek_v3, qwen3) and stay there.

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
