"""One file as torch 2.13.0 wrote it, byte for byte, and what torch says is in it.

Made by running, with that version of torch:

    state = torch.nn.Linear(2, 1, bias=False).state_dict()      # an OrderedDict with _metadata
    state.clear()
    state["matrix"] = torch.tensor([[0.0, -1.0, 2.0], [3.5, 4.0, 5.0]])
    state["transposed"] = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.float16).t()
    state["whole"] = shared = torch.arange(6, dtype=torch.bfloat16)
    state["window"] = shared.view(2, 3)[:, 1:]
    state["parameter"] = torch.nn.Parameter(torch.tensor([0.5, -0.0]))
    state["scalar"] = torch.tensor(7.0, dtype=torch.float64)
    state["none"] = torch.empty(0, 3)
    torch.save(state, "golden.pth")
"""

import base64
import zlib

# zlib-compressed, base64. Root folder `golden`; data.pkl has 715 bytes.
FILE = zlib.decompress(
    base64.b64decode(
        "eNqlVk9s21QYf0naJPPSNmyjpKwtbPxLYPnj/M/arsF0BskHuiAki0twE6+xcON+9ss6kCZFQi30yAVxQIgDN06IAxck"
        "kDgiIcENxAGJXaYdduLOe35J5ucs7bq+yHESf78/3/P3ffGmEppCKBpFY2sOnUfbltnWu9m2hrXM7gemLM2h9/jVD7Za"
        "lmnqLWxYXUd4227rtt7eMFpYAJRqQCCphgnZjoZt4zYEW9iyW51Ms4cN0xGatr7VM8x2E+tdx7Kbt/IChJJJNUIQDonU"
        "tnWYYhBBNi0Nv8N+FGBaDZCYHITVEDm3dnsQUcIYojcUpASV0AGcUUJK4ACEww51cRZDrAEzqkCCsa11nV3L0dsw2yFq"
        "naHCW5p5cyQw5wqIEO+4xE9R4pASPIBzSoDyn2fEFzA83YB5dZoE73UsU4dnOE7JtS2WR7wJlzcPC4z3Wcob3oeLSmAf"
        "FhnnEoblBjzn7tue0W1be/A8I+0kOgPcpRvERpD6ucwSfYFhX8TwUgNeVs8Q7K5mazs61m14ZcK2jyIESA4U2MYWIEV0"
        "ghhedTd0H16j/q4wjTSGTAOyn7pfcp+A2IC8a9ZpaaZmQ4HbgQ2rt2Xqo/yLLn8RSoQ/gKFM+FMpxlvBUG1ATSX1iLpW"
        "V4ernKcSrBAMwrBKPSF6E9ZY7tcYfh1DvQGv9+6A5ObfJKlptHThDff6hkrLGq7fAdmtsFu67ZCihTeVgOM4W5lNJRL9"
        "a+W3w1+DCNFjc2JrzCNx2BqZm5ZNirs5IJOltL9Djl4iVf3hwd8f0xTpMVl1AVVHqoPuaGqmsd3d0btYloonEx6scpEa"
        "WN+DeyRjFDzSQBzVhwa2PsS6RXtdllafSHe4TANjU6ce9tf+XaBVFD7Swwxa906lbE6WVk5jgLH2fyJvdYTeJ0efHF/X"
        "qaOsWm4nyIXEMY7SnCNRllKP7witEl0JbaDrSKaad9PX4jHCGjtGs8Zp5mWphJ4w//46qtfr/TrL+ftL/1w9uX7hFPrk"
        "hhITVHvZuf8tFYseo73GaRdlqYZOef8X3dy/+eXwP14fPYZ+6VT6k/OcRReGOqPhEh8TKgjU+e9fbb97fP8uocJogLjW"
        "Hd02yAT5SKN/3k2jLUvZk2Yi5svVUrlSqJVr5SJ55cuimMvlK1WxVBDFaqFSKZEPuQp1+efP3/2YJD6SrssANTvy6R28"
        "c2POfc8hfrB3fs5zwIshNGFS+zm8I3CB4/jMwzE2d/003ikW52jOTaGx6elHeyfODIf+fArxc88P9Q4OHpqc5qGiH+rt"
        "eR76pQ+a90O9LctDF8M8tOCHeruNh37hgxaH0Ee3o3clIjy05Ff1dsosB+0/hE4oEW/9LnHYPx5iH91Zm0o4fGUQvBxK"
        "j4Ax3/kByxPdHkgSXMRtgLPsO3tCmA4zTMyNZ7H/A1iinNw="
    )
)

# dtype, storage_offset(), size(), stride(), number of elements of the storage, tolist()
CONTENTS = {
    "matrix": ("float32", 0, (2, 3), (3, 1), 6, [[0.0, -1.0, 2.0], [3.5, 4.0, 5.0]]),
    "transposed": ("float16", 0, (3, 2), (1, 3), 6, [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]),
    "whole": ("bfloat16", 0, (6,), (1,), 6, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
    "window": ("bfloat16", 1, (2, 2), (3, 1), 6, [[1.0, 2.0], [4.0, 5.0]]),
    "parameter": ("float32", 0, (2,), (1,), 2, [0.5, -0.0]),
    "scalar": ("float64", 0, (), (), 1, 7.0),
    "none": ("float32", 0, (0, 3), (3, 1), 0, []),
}
STORAGE_KEYS = {"matrix": "0", "transposed": "1", "whole": "2", "window": "2", "parameter": "3"}
