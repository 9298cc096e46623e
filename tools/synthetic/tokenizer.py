"""A tokenizer.json that is as simple as can be: byte-level BPE without merges, one token a byte.

Ids from 256 on are fillers that no text gives, so that whatever a random model answers has a text.
"""

N_BYTES = 256


def byte_letters():
    """The letter that stands for each byte in byte-level vocabularies: itself where printable, else from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(N_BYTES) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    letters.update({byte: chr(0x100 + place) for place, byte in enumerate(others)})
    return [letters[byte] for byte in range(N_BYTES)]


def special_tokens(config):
    """Contents by id; a list of ids is numbered from its second one on, and the last key that names an id wins."""
    special = {}
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        ids = config.get(key, [])
        for place, i in enumerate(ids if isinstance(ids, list) else [ids]):
            special[i] = f"<|{key[:3]}{place or ''}|>"
    return special


def byte_level(config):
    n_vocab = config["vocab_size"]
    special = special_tokens(config)
    if n_vocab < N_BYTES + len(special):
        raise ValueError(f"--tokenizer needs --vocab-size of at least {N_BYTES + len(special)}")
    # Bytes take the lowest ids that are not special ones.
    ordinary = [i for i in range(n_vocab) if i not in special]
    vocab = dict(zip(byte_letters(), ordinary))
    vocab.update({f"<{i}>": i for i in ordinary[N_BYTES:]})
    vocab.update({content: i for i, content in special.items()})
    byte_level_step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = [{"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for i, content in sorted(special.items())]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": byte_level_step, "post_processor": None, "decoder": byte_level_step,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])), "merges": []},
    }
