"""Five hundred completions at temperature 1.5: every one that was not cut parses and fits."""

import json
from collections import Counter

import jsonschema
import numpy as np
import pytest

import llama_ref as lr
from llama_ref import constrain
from llama_ref.checkpoint import synthetic
from llama_ref.sampling import SamplingParams
from tests.models import TINY, assembled
from llama_ref.tokenizer import load_tokenizer

pytestmark = [pytest.mark.real, pytest.mark.slow]
N_COMPLETIONS, N_TOKENS = 250, 60
