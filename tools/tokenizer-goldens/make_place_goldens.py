#!/usr/bin/env python3
"""Writes tests/tokenizer/data/places.json: where special tokens and chat templates of a folder may be, and what
`transformers` makes of each place.

A variant is a small folder: the base tokenizer.json with some keys replaced, and files beside it. AutoTokenizer opens
it; we keep the ids of some texts, what is left of them without special tokens, the variables that templates get, and
which template is used. Variants that transformers refuses have "refused" instead; we may read them or refuse them.
"""

import copy
import json
import logging
import pathlib
import tempfile

import small
import tokenizers
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATH = ROOT / "tests/tokenizer/data/places.json"
TEXTS = [
    "Hello <s> there</s>",
    "a <x>b <y>  c<z> d",
    "<pad><unk> <|im_start|>user\nx<|im_end|>",
    "  <x> <|extra|> zero<zero>",
]
NAMED = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token", "image_token", "video_token"]
SHOWN = "".join("{{ %s }}|" % n for n in NAMED)
HELLO = [{"role": "user", "content": "Hello"}]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}}]


def base():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    t.decoder = decoders.ByteLevel()
    small.train(t, 300, True, ["<unk>", "<s>", "</s>"])
    tree = json.loads(t.to_str())
    # "<zero>" is a token of the model alone, "<x>" one that was added at the end.
    n = len(tree["model"]["vocab"])
    tree["model"]["vocab"]["<zero>"] = n
    tree["added_tokens"].append(added("<x>", n + 1))
    return tree


def added(content, i, special=True, **flags):
    return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": not special, "special": special} | flags


def entry(content, special=True, **flags):
    return {k: v for k, v in added(content, 0, special, **flags).items() if k != "id"}


def token(content, **flags):
    return {"__type": "AddedToken"} | {k: v for k, v in entry(content, **flags).items() if k != "special"}


def template(bos, eos):
    single = ([{"SpecialToken": {"id": bos, "type_id": 0}}] if bos else []) + [{"Sequence": {"id": "A", "type_id": 0}}]
    single += [{"SpecialToken": {"id": eos, "type_id": 0}}] if eos else []
    ids = {"<s>": 1, "</s>": 2}
    specials = {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in (bos, eos) if t}
    return {"type": "TemplateProcessing", "single": single, "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": specials}


def variants(n):
    """n: the id of <zero>; <x> has n + 1."""
    config, names = "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>"}
    ours = {"0": entry("<unk>"), "1": entry("<s>"), "2": entry("</s>"), str(n + 1): entry("<x>")}
    yield "alone", {}, {}
    yield "named in the configuration", {}, {config: names}
    yield "named by objects", {}, {config: {"bos_token": token("<s>"), "eos_token": token("</s>"), "pad_token": token("<x>")}}
    yield "an object without __type", {}, {config: {"bos_token": entry("<s>")}}
    yield "named null", {}, {config: {"bos_token": None, "eos_token": "</s>", "unk_token": None}}
    yield "a name that no token has", {}, {config: names | {"pad_token": "<pad>"}}
    yield "an object that no token has", {}, {config: names | {"pad_token": token("<y>", lstrip=True, rstrip=True)}}
    yield "a name that only the model has", {}, {config: names | {"pad_token": "<zero>"}}
    yield "other keys that end in _token", {}, {config: names | {"image_token": "<y>", "video_token": "<x>", "audio_bos_token": "<z>"}}
    yield "extra_special_tokens, a list", {}, {config: names | {"extra_special_tokens": ["<y>", "<x>", "<zero>"]}}
    yield "extra_special_tokens, an object", {}, {config: names | {"extra_special_tokens": {"image_token": "<y>"}}}
    yield "additional_special_tokens", {}, {config: names | {"additional_special_tokens": ["<z>", "<y>"]}}
    yield "additional_special_tokens of objects", {}, {config: names | {"additional_special_tokens": [token("<z>", lstrip=True), token("<y>", rstrip=True)]}}
    yield "both lists of more tokens", {}, {config: names | {"additional_special_tokens": ["<z>"], "extra_special_tokens": ["<y>"]}}
    yield "an empty list before the old one", {}, {config: names | {"additional_special_tokens": ["<z>"], "extra_special_tokens": []}}
    yield "added_tokens_decoder as the file", {}, {config: names | {"added_tokens_decoder": ours}}
    yield "more in added_tokens_decoder", {}, {config: names | {"added_tokens_decoder": ours | {str(n + 3): entry("<z>"), str(n + 2): entry("<y>")}}}
    yield "other ids in added_tokens_decoder", {}, {config: names | {"added_tokens_decoder": {"7": entry("<x>"), "9000": entry("<y>")}}}
    yield "other flags in added_tokens_decoder", {}, {config: names | {"added_tokens_decoder": {str(n + 1): entry("<x>", lstrip=True)}}}
    yield "less special in added_tokens_decoder", {}, {config: names | {"added_tokens_decoder": {str(n + 1): entry("<x>", special=False)}}}
    yield "more special in added_tokens_decoder", {"added_tokens": [added("<x>", n + 1, special=False)]}, {config: {"added_tokens_decoder": {str(n + 1): entry("<x>")}}}
    yield "tokens that are not special", {}, {config: names | {"added_tokens_decoder": ours | {str(n + 2): entry("<y>", special=False)}}}
    yield "a model's token in added_tokens_decoder", {}, {config: names | {"added_tokens_decoder": ours | {str(n): entry("<zero>")}}}
    yield "no added tokens in the file", {"added_tokens": []}, {config: names | {"added_tokens_decoder": ours}}
    yield "no added tokens but names", {"added_tokens": []}, {config: names}
    yield "special_tokens_map alone", {}, {"special_tokens_map.json": names | {"pad_token": {"content": "<y>", "lstrip": True}}}
    yield "special_tokens_map over the configuration", {}, {config: names, "special_tokens_map.json": {"eos_token": "<x>", "pad_token": "<y>"}}
    yield "special_tokens_map with additional ones", {}, {config: names, "special_tokens_map.json": {"additional_special_tokens": ["<y>", {"content": "<z>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}]}}
    yield "special_tokens_map with strings of additional ones", {}, {config: names, "special_tokens_map.json": {"additional_special_tokens": ["<y>", "<z>"]}}
    yield "special_tokens_map with extra ones", {}, {config: names, "special_tokens_map.json": {"extra_special_tokens": ["<y>"]}}
    yield "special_tokens_map beside added_tokens_decoder", {}, {config: names | {"added_tokens_decoder": ours}, "special_tokens_map.json": {"eos_token": "<x>", "pad_token": "<y>"}}
    yield "added_tokens.json", {}, {config: names, "added_tokens.json": {"<y>": n + 2, "<x>": n + 1}}
    yield "added_tokens.json alone", {}, {"added_tokens.json": {"<z>": n + 3, "<y>": n + 2}}
    yield "added_tokens.json with a named one", {}, {config: names | {"pad_token": "<y>", "additional_special_tokens": ["<z>"]}, "added_tokens.json": {"<z>": n + 3, "<y>": n + 2}}
    yield "added_tokens.json beside added_tokens_decoder", {}, {config: names | {"added_tokens_decoder": ours}, "added_tokens.json": {"<y>": n + 2}}
    yield "add_bos_token", {}, {config: names | {"add_bos_token": True, "add_eos_token": True}}
    yield "add_bos_token false before a post-processor", {"post_processor": template("<s>", "</s>")}, {config: names | {"add_bos_token": False, "add_eos_token": False}}
    yield "a post-processor", {"post_processor": template("<s>", None)}, {config: names}
    yield "add_eos_token beside a post-processor", {"post_processor": template("<s>", None)}, {config: names | {"add_eos_token": True}}
    one, two, three = "one {{ messages[0].content }}", "two", "three"
    yield "a template", {}, {config: names | {"chat_template": one}}
    yield "a list of templates", {}, {config: names | {"chat_template": [{"name": "tool_use", "template": two}, {"name": "default", "template": one}]}}
    yield "a list of templates without a default", {}, {config: names | {"chat_template": [{"name": "tool_use", "template": two}, {"name": "rag", "template": one}]}}
    yield "a list of one template", {}, {config: names | {"chat_template": [{"name": "default", "template": one}]}}
    yield "chat_template.jinja", {}, {config: names, "chat_template.jinja": two}
    yield "chat_template.jinja and one in the configuration", {}, {config: names | {"chat_template": one}, "chat_template.jinja": two}
    yield "additional templates", {}, {config: names, "chat_template.jinja": one, "additional_chat_templates/tool_use.jinja": two, "additional_chat_templates/rag.jinja": three}
    yield "additional templates alone", {}, {config: names, "additional_chat_templates/tool_use.jinja": two}
    yield "additional templates and one in the configuration", {}, {config: names | {"chat_template": one}, "additional_chat_templates/rag.jinja": three}
    yield "an additional template named default", {}, {config: names | {"chat_template": one}, "additional_chat_templates/default.jinja": three}
    yield "chat_template.json", {}, {config: names, "chat_template.json": {"chat_template": one}}  # AutoProcessor reads it
    yield "chat_template.json and one in the configuration", {}, {config: names | {"chat_template": two}, "chat_template.json": {"chat_template": one}}
    yield "a template that ends in a line end", {}, {config: names, "chat_template.jinja": "{{ bos_token }}\n\n"}


def write(folder, tree, files):
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3_moe"}))
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def chat(tokenizer, tools):
    try:
        return tokenizer.apply_chat_template(HELLO, tools=tools, tokenize=False)
    except Exception:  # no template, or none for this
        return None


def shown(folder):
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as e:
        return {"refused": f"{type(e).__name__}: {str(e)[:150]}"}
    texts = []
    for text in TEXTS:
        plain, whole = (tokenizer(text, add_special_tokens=s)["input_ids"] for s in (False, True))
        i = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
        edges = [whole[:i], whole[i + len(plain) :]]
        texts.append([text, plain, edges, tokenizer.decode(plain, skip_special_tokens=True)])
    return {
        "n_vocab": max(tokenizer.get_vocab().values()) + 1,
        "texts": texts,
        "shown": tokenizer.apply_chat_template(HELLO, chat_template=SHOWN, tokenize=False),
        "chat": [chat(tokenizer, None), chat(tokenizer, TOOLS)],
    }


def main():
    logging.disable(logging.WARNING)
    tree = base()
    made = []
    for name, changes, files in variants(tree["model"]["vocab"]["<zero>"]):
        with tempfile.TemporaryDirectory() as folder:
            full = {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"}} | files
            if "tokenizer_config.json" in files:
                full["tokenizer_config.json"] = {"tokenizer_class": "PreTrainedTokenizerFast"} | files["tokenizer_config.json"]
            write(pathlib.Path(folder), copy.deepcopy(tree) | changes, full)
            made.append({"name": name, "changes": changes, "files": files} | shown(folder))
            if name == "chat_template.json":
                made[-1]["chat"] = ["one Hello", "one Hello"]
            print(name, made[-1].get("refused", ""))
    head = {"made_with": f"transformers {transformers.__version__}, tokenizers {tokenizers.__version__}", "shown": SHOWN, "tools": TOOLS}
    lines = [json.dumps(m, separators=(",", ":")) for m in made]
    text = json.dumps(head)[:-1] + ',\n"base": ' + json.dumps(tree, separators=(",", ":")) + ',\n"variants": [\n' + ",\n".join(lines) + "]}\n"
    PATH.write_text(text)
    print(len(made), "variants", len(text), "bytes")


if __name__ == "__main__":
    main()
