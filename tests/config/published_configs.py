"""What published config.json files say, and what transformers 5 writes; tests read them as goldens.

Source: the files in the meta-llama repositories on Hugging Face, and
LlamaConfig(...).save_pretrained of transformers 5.23.
"""


def without(stated, *keys):
    return {key: value for key, value in stated.items() if key not in keys}


SCALING_8 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
LLAMA_31_8B_INSTRUCT = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": SCALING_8,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3",
    "use_cache": True,
    "vocab_size": 128256,
}
LLAMA_31_70B_INSTRUCT = LLAMA_31_8B_INSTRUCT | {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_hidden_layers": 80,
}
LLAMA_31_405B_INSTRUCT = LLAMA_31_8B_INSTRUCT | {
    "head_dim": 128,
    "hidden_size": 16384,
    "intermediate_size": 53248,
    "num_attention_heads": 128,
    "num_hidden_layers": 126,
    "transformers_version": "4.45.2",
}
LLAMA_32_1B_INSTRUCT = LLAMA_31_8B_INSTRUCT | {
    "head_dim": 64,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "rope_scaling": SCALING_8 | {"factor": 32.0},
    "tie_word_embeddings": True,
    "transformers_version": "4.45.0.dev0",
}
LLAMA_3_8B = without(LLAMA_31_8B_INSTRUCT, "mlp_bias") | {
    "eos_token_id": 128001,
    "max_position_embeddings": 8192,
    "rope_scaling": None,
    "transformers_version": "4.40.0.dev0",
}
# Written by transformers 4.33 or later; the first upload had no rope_theta (see B4-55).
LLAMA_2_7B = {
    "_name_or_path": "meta-llama/Llama-2-7b-hf",
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "pad_token_id": 0,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.33.0",
    "use_cache": True,
    "vocab_size": 32000,
}
PUBLISHED = {
    "llama-3-8b": LLAMA_3_8B,
    "llama-3-70b": LLAMA_3_8B
    | {"hidden_size": 8192, "intermediate_size": 28672}
    | {"num_attention_heads": 64, "num_hidden_layers": 80},
    "llama-3.1-8b": LLAMA_31_8B_INSTRUCT,
    "llama-3.1-70b": LLAMA_31_70B_INSTRUCT,
    "llama-3.1-405b": LLAMA_31_405B_INSTRUCT,
    "llama-3.2-1b": LLAMA_32_1B_INSTRUCT,
    "llama-3.2-3b": LLAMA_32_1B_INSTRUCT
    | {"head_dim": 128, "hidden_size": 3072, "num_attention_heads": 24, "num_hidden_layers": 28},
    "llama-3.3-70b": LLAMA_31_70B_INSTRUCT
    | {"head_dim": 128, "transformers_version": "4.47.0.dev0"},
    "llama-guard-3-8b": LLAMA_31_8B_INSTRUCT | {"transformers_version": "4.43.0.dev0"},
    "llama-guard-3-1b": LLAMA_32_1B_INSTRUCT
    | {"rope_scaling": SCALING_8, "tie_word_embeddings": False}
    | {"transformers_version": "4.44.2"},
}

# What LlamaConfig(...).save_pretrained of transformers 5.23 writes.
TRANSFORMERS_5 = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "dtype": "float32",
    "eos_token_id": [1, 2],
    "head_dim": 8,
    "hidden_act": "silu",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 172,
    "max_position_embeddings": 4096,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 8,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "pad_token_id": None,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-06,
    "rope_parameters": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 1024,
        "rope_theta": 500000.0,
        "rope_type": "llama3",
    },
    "tie_word_embeddings": False,
    "transformers_version": "5.23.0",
    "use_cache": True,
    "vocab_size": 500,
}
ROPE_5 = TRANSFORMERS_5["rope_parameters"]
OLD_SCALING = without(ROPE_5, "rope_theta")
