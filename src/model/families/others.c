/*
 * others.c - what the engine lacks for well-known families that it does not run.  docs/limits.md has the same
 * list.
 */
#include "family.h"
#include <string.h>

/* How an architecture begins, a model_type, and what is missing. */
static const struct {
    const char *architecture, *model_type, *needs;
} others[] = {
    {"Afmoe", "afmoe", "norms after attention and MLP, gated attention outputs"},
    {"Arctic", "arctic", "a dense MLP beside the experts"},
    {"BailingMoe", "bailing_moe", "queries, keys and values fused in one matrix"},
    {"BailingHybrid", "bailing_hybrid", "linear attention (lightning)"},
    {"Cohere2Moe", "cohere2_moe", "attention and MLP side by side, layers without rotary embeddings"},
    {"Dbrx", "dbrx", "fused queries, keys and values, layer norms without biases"},
    {"DeepseekV32", "deepseek_v32", "sparse attention (an indexer that chooses tokens)"},
    {"DeepseekV4", "deepseek_v4", "compressed sparse attention, attention sinks, hyper-connections"},
    {"ExaoneMoe", "exaone_moe", "layers without rotary embeddings"},
    {"FlexOlmo", "flex_olmo", "norms after attention and MLP"},
    {"Gemma4", "gemma4", "norms after attention and MLP, rotary embeddings that differ between layers"},
    {"GlmMoeDsa", "glm_moe_dsa", "sparse attention (an indexer that chooses tokens)"},
    {"GptOss", "gpt_oss", "attention sinks, experts with biases and a limited activation, MXFP4"},
    {"GraniteMoeHybrid", "granitemoehybrid", "state-space layers (Mamba)"},
    {"Grok1", "grok-1", "norms after attention and MLP, limited attention scores"},
    {"HunYuanMoEV1", "hunyuan_v1_moe", "norms of queries and keys after the rotation"},
    {"Jamba", "jamba", "state-space layers (Mamba)"},
    {"KimiLinear", "kimi_linear", "linear attention (Kimi delta attention)"},
    {"Lfm2Moe", "lfm2_moe", "short convolutions in place of attention"},
    {"Llama4", "llama4",
     "attention in chunks, layers without rotary embeddings, experts whose input is scaled"},
    {"LongcatFlash", "longcat_flash", "experts that compute nothing, two attentions in a layer"},
    {"MiMoV2Flash", "mimo_v2_flash", "attention sinks, keys and values of different sizes"},
    {"MiniMaxForCausalLM", "minimax", "linear attention (lightning)"},
    {"MiniMaxM1", "minimax_m1", "linear attention (lightning)"},
    {"MiniMaxText01", "minimax_text_01", "linear attention (lightning)"},
    {"NemotronH", "nemotron_h", "state-space layers (Mamba)"},
    {"NllbMoe", "nllb-moe", "an encoder"},
    {"OlmoHybrid", "olmo_hybrid", "linear attention (gated DeltaNet)"},
    {"Qwen3Next", "qwen3_next", "linear attention (gated DeltaNet), gated attention outputs"},
    {"Qwen3_5Moe", "qwen3_5_moe", "linear attention (gated DeltaNet), gated attention outputs"},
    {"Qwen3OmniMoe", "qwen3_omni_moe", "speech and vision"},
    {"Qwen3VLMoe", "qwen3_vl_moe", "rotary embeddings of several axes (mrope), vision"},
    {"SwitchTransformers", "switch_transformers", "an encoder"},
};

static bool begins_with(const char *text, const char *with)
{
    return text != NULL && strncmp(text, with, strlen(with)) == 0;
}

const char *mb_family_needs(const char *architecture, const char *model_type)
{
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (begins_with(architecture, others[i].architecture) ||
            (architecture == NULL && model_type != NULL && strcmp(model_type, others[i].model_type) == 0))
            return others[i].needs;
    return NULL;
}
