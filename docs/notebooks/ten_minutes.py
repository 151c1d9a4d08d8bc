# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Ten minutes with llama_ref
#
# From an empty folder to generated tokens, in the order in which the data flows: files, a
# blueprint, token ids, every intermediate of a forward pass, the cache, text. Nothing is
# downloaded. The weights come from a formula, so the model knows nothing, and every machine
# computes the same one.

# %%
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np

import llama_ref as lr
from llama_ref.checkpoint import synthetic, write_hf
from llama_ref.config import to_hf_dict
from llama_ref.numerics import BFLOAT16, round_to
from llama_ref.ops.rope import rope_half_split, rope_interleaved, rope_table
from llama_ref.ops.rope_frequencies import rope_frequencies

plt.rcParams.update({"figure.dpi": 110, "font.size": 9})

# %% [markdown]
# ## 1. A blueprint
#
# A `Config` is the dozen numbers that make one Llama different from another. `golden-tiny` is a
# small one that still has everything Llama 3.1 has: groups of query heads that share a key head,
# and stretched RoPE. It gets a vocabulary of 256 bytes and 256 special tokens.

# %%
config = replace(
    lr.preset("golden-tiny"),
    name="ten-minutes",
    vocab_size=512,
    bos_id=256,
    eos_ids=(257, 264, 265),
)
config

# %% [markdown]
# The published ones are there too; `lr.preset("llama-3.1-405b")` says why nobody runs that one on
# a laptop.

# %%
lr.preset("llama-3.1-405b")

# %% [markdown]
# ## 2. A checkpoint on disk
#
# `write_hf` writes what you would download: `config.json`, shards of bfloat16 tensors, and an index
# that says which shard holds which tensor. A tokenizer belongs to it. This one is the smallest of
# its kind: each of the 256 bytes is a token, and nothing ever merges.

# %%
folder = Path(mkdtemp()) / "ten-minutes"
weights = synthetic.checkpoint(config)
tensors = ((name, round_to(array, BFLOAT16)) for name, array in weights)
write_hf(folder, to_hf_dict(config), tensors, shard_bytes=2_000_000)

ranks = [b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256)]
(folder / "tokenizer.model").write_bytes(b"".join(ranks))

for path in sorted(folder.iterdir()):
    print(f"{path.stat().st_size:>10,}  {path.name}")

# %% [markdown]
# Opening it reads the headers and nothing else. Each tensor is a read-only view of a mapped file:
# the bytes of a matrix are fetched when somebody multiplies with it, and not before.

# %%
checkpoint = lr.checkpoint.open_hf(folder)
checkpoint

# %%
for name in ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]:
    tensor, (file,) = checkpoint[name], checkpoint.files[name]
    print(f"{name:26} {tensor.shape!s:11} {tensor.dtype}  {file}")
print("a copy in memory:", tensor.flags.owndata, "  writable:", tensor.flags.writeable)

# %% [markdown]
# `load` does that and more: it checks the inventory of tensors against the blueprint (nothing
# missing, nothing extra, every shape right) and finds the tokenizer.

# %%
model = lr.load(folder)
model

# %% [markdown]
# ## 3. Text to ids
#
# A model never sees letters. With a real vocabulary `" llama"` might be one id; here every byte is.
# Watch the last character: an emoji is four bytes, so four tokens, none of which is text alone.

# %%
text = "Sí, llamas 🦙"
ids = model.tokenizer.encode(text, bos=True)
print(ids)
for token_id, start, end in model.tokenizer.spans(text, bos=True)[-5:]:
    piece = model.tokenizer.token_bytes(token_id)
    print(f"{token_id:4}  bytes {start}–{end}  {piece}")

# %% [markdown]
# A program that prints tokens as they come must not print half a character. The stream decoder
# holds bytes back until they make one.

# %%
stream = model.tokenizer.stream()
texts = [stream.push(token_id) for token_id in ids]
print(texts[-6:])

# %% [markdown]
# ## 4. Every intermediate, by name
#
# `trace` runs the tokens once and keeps all there is to see. Open the table: each tap has axes
# (`T` tokens, `D` width, `N` query heads, `K` key heads, `H` width of a head, `S` positions seen),
# a shape, and the size of its numbers.

# %%
trace = model.trace(ids)
trace

# %% [markdown]
# The hidden state is a stream that every layer reads and adds to. Its size grows with depth: small
# out of the embedding, larger with each attention and each feed-forward.

# %%
stations = ["embed", *(name for name in trace if name.endswith(("ffn_inp", ".out")))]
rms = [np.sqrt(np.mean(trace[name] ** 2)) for name in stations]
fig, ax = plt.subplots(figsize=(6, 2.2))
ax.plot(rms, "o-")
ax.set_xticks(range(len(stations)), stations, rotation=40, ha="right")
ax.set_ylabel("root mean square")
ax.set_title("The hidden state through four layers")
plt.show()

# %% [markdown]
# ## 5. One attention map
#
# `L00.probs` has axes `N T S`: for each of the eight heads a row per token, and in it how much the
# token reads from every position. Two things hold in any Llama. Nothing is read from the future,
# so the upper triangle is empty, and each row is a distribution, so it adds up to one.

# %%
probs_NTS = trace["L00.probs"]
fig, axes = plt.subplots(2, 4, figsize=(7.4, 4), layout="constrained")
for head, ax in enumerate(axes.flat):
    shown = ax.imshow(probs_NTS[head], vmin=0, vmax=1, cmap="magma")
    ax.set_title(f"head {head}, keys {head // config.group_size}")
fig.supxlabel("position read from")
fig.supylabel("token that reads")
fig.colorbar(shown, ax=axes, shrink=0.7, label="probability")
plt.show()

print("from the future:", np.triu(probs_NTS, k=1).max())
sums_NT = probs_NTS.sum(axis=-1)
print("sums of rows:   ", sums_NT.min(), "to", sums_NT.max())

# %% [markdown]
# ## 6. The cache changes nothing
#
# Keys and values of a token never change once they are computed, so they are kept. Fed one at a
# time through a cache, the tokens get the logits they get all at once; the difference is the order
# in which float32 sums were added up.

# %%
whole_TV = model.logits(ids)

cache = model.new_cache()
rows = [model.forward([token_id], cache) for token_id in ids]
stepwise_TV = np.concatenate(rows)

print(cache)
print("largest difference, in standard deviations of the logits:")
print(f"{np.abs(stepwise_TV - whole_TV).max() / whole_TV.std():.1e}")

# %% [markdown]
# So a text can grow a token at a time: choose the most likely one, run it alone, choose the next.
# `generate` is that loop. Without the cache, each step would run the whole text again; here that
# is done for comparison.

# %%
generated = [token.id for token in lr.generate(model, ids, max_tokens=12)]

text_so_far = list(ids)
for _ in range(12):
    text_so_far.append(int(model.logits(text_so_far)[-1].argmax()))

print(generated)
print("the same without a cache:", text_so_far[len(ids) :] == generated)

# %% [markdown]
# The ids mean nothing, for neither does this model. With the folder of a trained one,
# `lr.generate(lr.load(folder), "Once upon a time", max_tokens=100)` tells a story, token by token.

# %% [markdown]
# ## 7. The convention that breaks most ports
#
# RoPE turns pairs of channels by an angle that grows with the position. Which channels are a pair?
# Meta's files say neighbours, (0, 1) (2, 3) …; Hugging Face's files say half a head apart, (0, H/2)
# (1, H/2 + 1) …. Run a checkpoint with the other pairing and position 0 is right, because nothing
# is turned there; from position 1 on it is nonsense that still reads like language.

# %%
H = 16
frequency_P = rope_frequencies(H, theta=500_000.0, dtype=np.float64)
position_T = np.arange(12)
cos_TP, sin_TP = rope_table(position_T, frequency_P, dtype=np.float64)

query_TNH = np.tile(np.random.default_rng(0).standard_normal(H), (12, 1, 1))
half_TNH = rope_half_split(query_TNH, cos_TP, sin_TP)
inter_TNH = rope_interleaved(query_TNH, cos_TP, sin_TP)

fig, ax = plt.subplots(figsize=(6, 2.2))
ax.bar(position_T, np.linalg.norm(half_TNH - inter_TNH, axis=-1)[:, 0])
ax.set_xlabel("position")
ax.set_ylabel("length of the difference")
ax.set_title("The same query, turned by the two conventions")
plt.show()

# %% [markdown]
# Both keep the law that makes RoPE useful: the product of a query and a key depends only on how far
# apart they are. That is why no test of laws finds the mistake, and a golden value does.

# %%
for rotate in (rope_half_split, rope_interleaved):
    turned_TH = rotate(query_TNH, cos_TP, sin_TP)[:, 0]
    print(rotate.__name__)
    for m, n in [(2, 5), (8, 11), (0, 11)]:
        print(f"    positions {m} and {n}: {turned_TH[m] @ turned_TH[n]:.12f}")

# %% [markdown]
# ## Exercise
#
# The two conventions are one rotation on permuted channels. So a query in half-split order can be
# turned by the interleaved function, if its channels are first put side by side. Write the list
# `order` of channel numbers for which
#
#     rope_interleaved(query_TNH[..., order], ...)  ==  rope_half_split(query_TNH, ...)[..., order]
#
# The answer below is wrong from position 1 on. Change it until the check is content. (On the *rows*
# of `q_proj` and `k_proj`, this permutation is what turns a Hugging Face checkpoint into Meta's.)

# %%
order = np.arange(H)


# %%
def check(order):
    """Say at which positions an order of channels makes the two rotations one."""
    found = rope_interleaved(query_TNH[..., order], cos_TP, sin_TP)
    good_T = np.isclose(found, half_TNH[..., order]).all(axis=(1, 2))
    is_permutation = sorted(order) == list(range(H))
    solved = bool(is_permutation and good_T.all())
    right = np.flatnonzero(good_T).tolist()
    print("solved" if solved else f"not yet: right at positions {right}")
    return solved


solved = check(order)

# %% [markdown]
# One answer, for when you have found yours:

# %% tags=["hide-cell"]
answer = np.arange(H).reshape(2, H // 2).T.ravel()
assert check(answer)
answer
