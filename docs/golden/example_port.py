"""A Llama in NumPy as somebody might port it: float32, one sequence at a time, with a cache.

    python example_port.py BUNDLE WEIGHTS DUMP [TAPS]

runs the cases of a golden bundle and dumps what it computes, or only the taps of these kinds
(`k_rope,ctx,out`). Of llama_ref it uses nothing: it reads JSON and bare numbers, and writes both.
"""

import json
import sys
from pathlib import Path

import numpy as np


def linear(x, weight):
    return x @ weight.T


def rms_norm(x, gain, *, eps):
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + np.float32(eps)) * gain


def softmax(x):
    exp = np.exp(x - x.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def swiglu(gate, up):
    return gate / (1 + np.exp(-gate)) * up


def rope_half_split(x, cos, sin):
    (a, b), cos, sin = np.split(x, 2, axis=-1), cos[:, None], sin[:, None]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def frequencies(config):
    plain = config["rope_theta"] ** (-np.arange(0, config["head_dim"], 2) / config["head_dim"])
    if (scaling := config["rope_scaling"]) is not None:
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = scaling["original_context"] * plain / (2 * np.pi)
        kept = np.clip((turns - low) / (high - low), 0, 1)
        plain = plain * (kept + (1 - kept) / scaling["factor"])
    return plain.astype(np.float32)


class Llama:
    def __init__(self, folder, config):
        self.config, self.tensors = config, {}
        for name, stored in json.loads((folder / "index.json").read_text()).items():
            bits = np.fromfile(folder / stored["file"], "<u2").astype(np.uint32) << 16  # bfloat16
            self.tensors[name] = bits.view(np.float32).reshape(stored["shape"])

    def run(self, case, dump):
        """Feed the tokens of a case in the calls that it asks for."""
        cache, start = {}, 0
        for call, n in enumerate(case["chunks"]):
            ids, positions = (case[key][start : start + n] for key in ("ids", "positions"))
            self.forward(ids, positions, cache, f"{case['name']}/{call}/", dump)
            start += n

    def forward(self, ids, positions, cache, prefix, dump):
        angle = np.outer(np.array(positions, np.float32), frequencies(self.config))
        turn = np.cos(angle), np.sin(angle)
        hidden = self.tensors["model.embed_tokens.weight"][ids]
        dump(prefix + "embed", hidden)
        for layer in range(self.config["n_layers"]):
            hidden = self.layer(layer, hidden, turn, cache, f"{prefix}L{layer:02d}.", dump)
        final = rms_norm(hidden, self.tensors["model.norm.weight"], eps=self.config["norm_eps"])
        dump(prefix + "final_norm", final)
        dump(prefix + "logits", linear(final, self.tensors["lm_head.weight"]))

    def layer(self, number, hidden, turn, cache, prefix, dump):
        eps, taps = self.config["norm_eps"], {}
        own = {
            name.split(".")[-2]: tensor
            for name, tensor in self.tensors.items()
            if name.startswith(f"model.layers.{number}.")
        }
        taps["attn_norm"] = rms_norm(hidden, own["input_layernorm"], eps=eps)
        taps["attn_out"] = self.attention(number, taps, own, turn, cache)
        taps["ffn_inp"] = hidden + taps["attn_out"]
        taps["ffn_norm"] = rms_norm(taps["ffn_inp"], own["post_attention_layernorm"], eps=eps)
        taps["gate"] = linear(taps["ffn_norm"], own["gate_proj"])
        taps["up"] = linear(taps["ffn_norm"], own["up_proj"])
        taps["act"] = swiglu(taps["gate"], taps["up"])
        taps["ffn_out"] = linear(taps["act"], own["down_proj"])
        taps["out"] = taps["ffn_inp"] + taps["ffn_out"]
        for tap, array in taps.items():
            dump(prefix + tap, array)
        return taps["out"]

    def attention(self, number, taps, own, turn, cache):
        for tap in "qkv":
            flat = linear(taps["attn_norm"], own[f"{tap}_proj"])
            taps[tap] = flat.reshape(len(flat), -1, self.config["head_dim"])
        query, key = (rope_half_split(taps[tap], *turn) for tap in "qk")
        taps["q_rope"], taps["k_rope"] = query, key
        nothing = np.empty((2, 0, *key.shape[1:]), np.float32)
        past_key, past_value = cache.get(number, nothing)
        key, value = np.concatenate([past_key, key]), np.concatenate([past_value, taps["v"]])
        cache[number] = key, value
        group = self.config["n_heads"] // self.config["n_kv_heads"]
        key, value = np.repeat(key, group, axis=1), np.repeat(value, group, axis=1)
        scores = np.einsum("tnh,snh->nts", query, key) * np.float32(key.shape[-1] ** -0.5)
        seen = np.arange(len(key)) <= np.arange(len(key) - len(query), len(key))[:, None]
        taps["scores"], taps["probs"] = scores, softmax(np.where(seen, scores, -np.inf))
        taps["ctx"] = np.einsum("nts,snh->tnh", taps["probs"], value)
        return linear(taps["ctx"].reshape(len(query), -1), own["o_proj"])


class Dump:
    """Bare numbers in one file, and in another, in JSON, what they are."""

    def __init__(self, folder, kinds):
        folder.mkdir(exist_ok=True)
        self.folder, self.kinds, self.described = folder, kinds, {}
        self.numbers = (folder / "numbers.bin").open("wb")

    def __call__(self, name, array):
        if self.kinds is None or name.split("/")[-1].split(".")[-1] in self.kinds:
            stored = {"file": "numbers.bin", "dtype": "f32", "shape": array.shape}
            self.described[name] = stored | {"offset": self.numbers.tell()}
            self.numbers.write(array.astype("<f4").tobytes())

    def close(self):
        self.numbers.close()
        (self.folder / "dump.json").write_text(json.dumps(self.described))


def main(bundle, weights, folder, kinds=None):
    manifest = json.loads(Path(bundle, "manifest.json").read_text())
    model = Llama(Path(weights), manifest["models"]["main"]["config"])
    dump = Dump(Path(folder), kinds and kinds.split(","))
    for case in manifest["cases"]:
        if case["model"] == "main":
            model.run(case, dump)
    dump.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
