"""The blueprint of a Llama: a dozen numbers, the published ones by name, and how files state them.

blueprint.py    Config and RopeScaling: every number, checked; the sizes that follow
facts.py        those sizes in words
presets.py      the published blueprints
hf.py           what a config.json says          } json_object.py: key by key,
meta.py         what a params.json says          } accepting nothing unexplained
quantisation.py which matrices are in 8 bits
read.py         which file a folder holds
"""

from llama_ref.config.blueprint import Config, RopeScaling
from llama_ref.config.hf import parse_hf_config, to_hf_dict
from llama_ref.config.meta import parse_meta_params
from llama_ref.config.presets import PRESETS, preset
from llama_ref.config.read import (
    read_hf_config,
    read_hf_quantisation,
    read_meta_params,
    read_meta_quantisation,
)

__all__ = [
    "PRESETS",
    "Config",
    "RopeScaling",
    "parse_hf_config",
    "parse_meta_params",
    "preset",
    "read_hf_config",
    "read_hf_quantisation",
    "read_meta_params",
    "read_meta_quantisation",
    "to_hf_dict",
]
