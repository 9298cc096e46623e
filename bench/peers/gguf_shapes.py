"""The shapes that make_gguf.py can write, spelled as llama.cpp reads them: the header's values and every tensor.

Owns what a file consists of.  Types and weights are make_gguf.py's.
"""

from typing import NamedTuple


class Tensor(NamedTuple):
    name: str
    shape: tuple
    kind: str  # matrix, f32 (a router's matrix), ones or zeros


class Moonlight:
    """Moonlight-16B-A3B."""

    arch, n_layers, context, hidden, inner, heads, kv_heads = "deepseek2", 27, 8192, 2048, 11264, 16, 1
    norm_eps, rope_base, n_rotated = 1e-5, 50000.0, 64
    expert, n_experts, n_used, n_shared = 1408, 64, 6, 2
    latent, nope, value = 512, 128, 128

    def write_keys(self, writer, gguf):
        writer.add_leading_dense_block_count(1)
        writer.add_q_lora_rank(0)
        writer.add_kv_lora_rank(self.latent)
        writer.add_key_length(self.latent + self.n_rotated)
        writer.add_value_length(self.latent)
        writer.add_key_length_mla(self.nope + self.n_rotated)
        writer.add_value_length_mla(self.value)
        writer.add_expert_feed_forward_length(self.expert)
        writer.add_expert_shared_count(self.n_shared)
        writer.add_expert_weights_scale(2.446)
        writer.add_expert_weights_norm(True)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)

    def attention(self):
        yield Tensor("attn_q.weight", (self.heads * (self.nope + self.n_rotated), self.hidden), "matrix")
        yield Tensor("attn_kv_a_mqa.weight", (self.latent + self.n_rotated, self.hidden), "matrix")
        yield Tensor("attn_kv_a_norm.weight", (self.latent,), "ones")
        yield Tensor("attn_k_b.weight", (self.heads, self.latent, self.nope), "matrix")
        yield Tensor("attn_v_b.weight", (self.heads, self.value, self.latent), "matrix")
        yield Tensor("attn_output.weight", (self.hidden, self.heads * self.value), "matrix")

    def mlp(self, layer):
        if layer == 0:
            yield from swiglu("", (), self.hidden, self.inner)
            return
        yield Tensor("exp_probs_b.bias", (self.n_experts,), "zeros")
        yield from swiglu("_shexp", (), self.hidden, self.expert * self.n_shared)
        yield from experts(self, self.expert)


class Qwen3:
    """Qwen3-30B-A3B."""

    arch, n_layers, context, hidden, inner, heads, kv_heads = "qwen3moe", 48, 40960, 2048, 6144, 32, 4
    norm_eps, rope_base, n_rotated = 1e-6, 1000000.0, 128
    expert, n_experts, n_used, head = 768, 128, 8, 128

    def write_keys(self, writer, _gguf):
        writer.add_key_length(self.head)
        writer.add_value_length(self.head)
        writer.add_expert_feed_forward_length(self.expert)

    def attention(self):
        yield from grouped_attention(self, self.head)
        yield Tensor("attn_q_norm.weight", (self.head,), "ones")
        yield Tensor("attn_k_norm.weight", (self.head,), "ones")

    def mlp(self, _layer):
        yield from experts(self, self.expert)


class Mixtral:
    """Mixtral-8x7B."""

    arch, n_layers, context, hidden, inner, heads, kv_heads = "llama", 32, 32768, 4096, 14336, 32, 8
    norm_eps, rope_base, n_rotated = 1e-5, 1000000.0, 128
    n_experts, n_used = 8, 2

    def write_keys(self, _writer, _gguf):
        pass

    def attention(self):
        yield from grouped_attention(self, self.hidden // self.heads)

    def mlp(self, _layer):
        yield from experts(self, self.inner)


SHAPES = {"moonlight": Moonlight(), "qwen3": Qwen3(), "mixtral": Mixtral()}


def grouped_attention(shape, n_head):
    yield Tensor("attn_q.weight", (shape.heads * n_head, shape.hidden), "matrix")
    yield Tensor("attn_k.weight", (shape.kv_heads * n_head, shape.hidden), "matrix")
    yield Tensor("attn_v.weight", (shape.kv_heads * n_head, shape.hidden), "matrix")
    yield Tensor("attn_output.weight", (shape.hidden, shape.heads * n_head), "matrix")


def swiglu(suffix, n, n_hidden, n_inner):
    yield Tensor(f"ffn_gate{suffix}.weight", (*n, n_inner, n_hidden), "matrix")
    yield Tensor(f"ffn_down{suffix}.weight", (*n, n_hidden, n_inner), "matrix")
    yield Tensor(f"ffn_up{suffix}.weight", (*n, n_inner, n_hidden), "matrix")


def experts(shape, n_inner):
    yield Tensor("ffn_gate_inp.weight", (shape.n_experts, shape.hidden), "f32")
    yield from swiglu("_exps", (shape.n_experts,), shape.hidden, n_inner)


def list_tensors(shape, n_layers, n_vocab):
    yield Tensor("token_embd.weight", (n_vocab, shape.hidden), "matrix")
    yield Tensor("output_norm.weight", (shape.hidden,), "ones")
    yield Tensor("output.weight", (n_vocab, shape.hidden), "matrix")
    for layer in range(n_layers):
        yield Tensor(f"blk.{layer}.attn_norm.weight", (shape.hidden,), "ones")
        yield Tensor(f"blk.{layer}.ffn_norm.weight", (shape.hidden,), "ones")
        for tensor in (*shape.attention(), *shape.mlp(layer)):
            yield tensor._replace(name=f"blk.{layer}.{tensor.name}")


def write_keys(shape, writer, gguf, n_layers, n_vocab):
    writer.add_name(f"random weights, the shape of {type(shape).__doc__}")
    writer.add_block_count(n_layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_rope_dimension_count(shape.n_rotated)
    writer.add_vocab_size(n_vocab)
    writer.add_expert_count(shape.n_experts)
    writer.add_expert_used_count(shape.n_used)
    shape.write_keys(writer, gguf)
